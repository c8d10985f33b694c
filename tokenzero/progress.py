"""How a run looks on a terminal: one progress bar per stage and one table row per round, all on stderr.

Where stderr is no terminal there are no bars, only the rows. It reads records and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

COLUMNS = ("round", "games", "solved", "greedy", "search", "policy loss", "value loss", "seconds")


@dataclass(frozen=True)
class Rows:
    """How records become rows of a table: its ``columns``, and the ``cells`` of a record."""

    columns: tuple[str, ...]
    cells: Callable[[dict[str, Any]], list[str]]


class _Rate(ProgressColumn):
    """Steps or games a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="dim")


class Progression:
    """A ``selfplay.run.Listener`` that draws. Owns one bar at a time; call :meth:`close` when done."""

    def __init__(self, rounds: int | None = None, rows: Rows | None = None) -> None:
        self._console = Console(file=sys.stderr)
        self._rounds = rounds
        self._rows = rows or PROBLEM_ROWS
        self._round = 0
        self._headed = False
        self._bar: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._progress.start()

    def stage(self, name: str, total: int) -> None:
        """A stage of ``total`` steps or games begins; the bar before it goes away."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        head = "" if self._rounds is None else f"round {self._round}/{self._rounds} "
        self._bar = self._progress.add_task(head + name, total=total)

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        if self._bar is not None:
            self._progress.advance(self._bar, count)

    def name(self, name: str) -> None:
        """The stage goes on under another name: what it has come to."""
        if self._bar is not None:
            self._progress.update(self._bar, description=name)

    def record(self, record: dict[str, Any]) -> None:
        """A round is finished: one row, under a header before the first, and a line for each alarm."""
        self._round = int(record["round"]) + 1
        if not self._headed:
            self._headed = True
            self.say("".join(f"{name:>12}" for name in self._rows.columns))
        self.say("".join(f"{cell:>12}" for cell in self._rows.cells(record)))
        for name, asked in record.get("consulted", {}).items():
            if asked["states"] and not asked["spoke"]:
                why = "; ".join(asked["failures"]) or "nothing the student's tokenizer knows"
                self.say(f"{'teacher':>12}  {name} said nothing on {asked['states']:,} states: {why}")
        for alarm in record["alarms"]:
            at = f"step {alarm['step']}: " if "step" in alarm else ""
            self.say(f"{'alarm':>12}  {at}{alarm['message']} ({alarm['action']})")

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


@contextmanager
def showing(rounds: int | None = None, rows: Rows | None = None) -> Iterator[Progression]:
    """A :class:`Progression` whose bar is gone when the block ends, however it ends."""
    progression = Progression(rounds, rows)
    try:
        yield progression
    finally:
        progression.close()


def round_cells(record: dict[str, Any]) -> list[str]:
    """One round's record as the cells of ``COLUMNS``."""
    games = int(record["games"])
    return [
        str(record["round"]),
        str(games) if games else "-",
        percent(record["solved"] / games if games else None),
        percent(record["greedy_accuracy"]),
        percent(record["search_accuracy"]),
        f"{record['loss']['policy']:.3f}",
        f"{record['loss']['value']:.3f}",
        f"{record['wall_s']:.1f}",
    ]


PROBLEM_ROWS = Rows(COLUMNS, round_cells)
"""Runs on a task's problems."""

TEXT_COLUMNS = (
    "round",
    "step",
    "nats/char",
    "accuracy",
    "calibration",
    "confidence",
    "alarms",
    "forwarded",
    "seconds",
)


def text_cells(record: dict[str, Any]) -> list[str]:
    """One round's record of a text game as the cells of ``TEXT_COLUMNS``; calibration is the expected
    error."""
    health = record["health"]
    return [
        str(record["round"]),
        str(record["step"]),
        decimals(record["nats_per_character"]),
        percent(record["accuracy"]),
        decimals(health.get("policy_calibration_error")),
        decimals(health["confidence"]),
        str(len(record["alarms"])),
        f"{record['forwarded']:,}",
        f"{record['wall_s']:.1f}",
    ]


TEXT_ROWS = Rows(TEXT_COLUMNS, text_cells)
"""Text games."""


def decimals(number: float | None) -> str:
    """Three of them, for a table; "-" for None."""
    return "-" if number is None else f"{number:.3f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] for a table; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def print_table(
    columns: tuple[str, ...], rows: list[list[str]], title: str | None = None, *, words: bool = False
) -> None:
    """A table on stdout, its cells to the right (``words``: to the left); as wide as it needs where that is
    no terminal.
    """
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=160)
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if words else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
