"""How a training looks on a terminal: a bar with the running loss, a line for each held-out score, a table at
the end. And the directory it writes to: what may be there before it begins.

It trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory
from tokenzero.policy.train_state import STATE_FILE
from tokenzero.progress import Progression, percent, print_table

Cell = Callable[[float], str]


class Column(NamedTuple):
    """A figure of a record by its ``key``, and how the table calls and writes it."""

    key: str
    title: str
    written: Cell


def _three(number: float) -> str:
    return f"{number:.3f}"


COLUMNS = (
    Column("step", "step", lambda step: f"{step:,.0f}"),
    Column("loss", "train loss", _three),
    Column("evaluated", "tokens scored", lambda count: f"{count:,.0f}"),
    Column("nats_per_token", "nats/token", _three),
    Column("nats_per_character", "nats/character", _three),
    Column("perplexity", "perplexity", lambda number: f"{number:,.2f}"),
    Column("accuracy", "accuracy", percent),
)
"""The figures of records; those no record has are left out of tables."""


class CorpusBar:
    """Draws how far a corpus is: hand it to ``open_corpus`` as its progress."""

    def __init__(self, shown: Progression) -> None:
        self._shown = shown
        self._stage = ""
        self._done = 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if total is None:
            return
        if stage != self._stage:
            self._stage, self._done = stage, 0
            self._shown.stage(f"{stage}, bytes", total)
        self._shown.advance(done - self._done)
        self._done = done


class TrainingBar:
    """Draws a training of ``steps`` steps on ``shown``: hand :meth:`step` and :meth:`record` to the loop."""

    def __init__(self, shown: Progression, steps: int) -> None:
        self._shown = shown
        self._done = 0
        self._headed = False
        shown.stage("training", steps)

    def step(self, step: int, loss: float) -> None:
        """The 1-based ``step`` is done; a resumed training begins beyond the first."""
        self._shown.name(f"training, loss {loss:.3f}")
        self._shown.advance(step - self._done)
        self._done = step

    def record(self, record: dict[str, Any]) -> None:
        """One line of held-out scores, under a heading before the first."""
        columns = columns_of([record])
        if not self._headed:
            self._headed = True
            self._shown.say("".join(f"{column.title:>16}" for column in columns))
        self._shown.say("".join(f"{cell:>16}" for cell in _cells(record, columns)))


def print_records(records: Sequence[dict[str, Any]], title: str) -> None:
    """The table of a training on stdout."""
    columns = columns_of(records)
    print_table(
        tuple(column.title for column in columns), [_cells(record, columns) for record in records], title
    )


def columns_of(records: Sequence[dict[str, Any]]) -> list[Column]:
    """Those of COLUMNS that some record has a figure for."""
    return [column for column in COLUMNS if any(column.key in record for record in records)]


def begin(out: Path, texts: Mapping[str, str]) -> None:
    """Write the settings ``texts`` (by file name) where no checkpoint is yet, so that a training which is
    interrupted before its first is resumed as it was begun. Raises OutputError where that fails.
    """
    if not (out / STATE_FILE).is_file():
        with replace_directory(out) as begun:
            write_texts(begun, texts)


def write_texts(directory: Path, texts: Mapping[str, str]) -> None:
    """Write each of ``texts`` under its name. The caller makes it atomic."""
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


def check_target(out: Path, settings_file: str, resume: bool) -> None:
    """Raise InputError where a training must not write to ``out``: weights that are there are never
    overwritten, and only what wrote ``settings_file`` there is gone on with.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / settings_file).is_file():
        raise InputError(f"{out} is there and holds no such training; choose another --out")
    if (out / STATE_FILE).is_file() and not resume:
        raise InputError(f"{out} holds a training; go on with it by --resume, or choose another --out")


def _cells(record: dict[str, Any], columns: Sequence[Column]) -> list[str]:
    return [column.written(record[column.key]) if column.key in record else "-" for column in columns]
