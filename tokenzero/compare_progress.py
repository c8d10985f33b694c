"""How a comparison looks on a terminal: one bar over all its runs and one line a finished round, on stderr.

Where stderr is no terminal there is no bar, only the lines. It hears messages and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tokenzero.compare import finished
from tokenzero.compare_processes import Job, Message, read_records
from tokenzero.progress import percent


class _Rate(ProgressColumn):
    """Rounds a minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{60 * speed:,.1f} a minute", style="dim")


class Overview:
    """Hears the messages of all jobs. Owns one bar; its steps are rounds, warm starts and readings of the
    test split.
    """

    def __init__(self, directory: Path, jobs: Sequence[Job]) -> None:
        console = Console(file=sys.stderr)
        self._stages: dict[str, str] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=3600,  # a step may take minutes
        )
        done = sum(_steps_done(directory, job) for job in jobs)
        self._bar = self._progress.add_task("", total=sum(job.steps for job in jobs), completed=done)
        self._progress.start()

    def hear(self, job: Job, message: Message) -> None:
        """Show one message of ``job``."""
        if "stage" in message:
            self._stages[job.name] = message["stage"]
        elif "end" in message:
            self._stages.pop(job.name, None)
            if message["end"] is not None:
                self.say(f"{job.name}: failed: {message['end']}")
        else:
            self._progress.advance(self._bar)
            self.say(f"{job.name}: {_line(job, message)}")
        shown = " | ".join(f"{name}: {stage}" for name, stage in self._stages.items())
        self._progress.update(self._bar, description=shown)

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


@contextmanager
def overview(directory: Path, jobs: Sequence[Job]) -> Iterator[Overview]:
    """An :class:`Overview` whose bar is gone when the block ends, however it ends."""
    shown = Overview(directory, jobs)
    try:
        yield shown
    finally:
        shown.close()


def _steps_done(directory: Path, job: Job) -> int:
    return job.steps if finished(directory, job) else len(read_records(directory / job.run))


def _line(job: Job, message: Message) -> str:
    if "test" in message:
        return f"test {percent(message['test']['accuracy'])} of {message['test']['problems']}"
    record = message["record"]
    greedy, seconds = percent(record["greedy_accuracy"]), f"{record['wall_s']:.0f} s"
    return f"round {record['round']}/{job.config.rounds}, greedy {greedy}, {seconds}"
