"""The runs of a comparison, a few processes at a time: one that fails is named and the others go on.

However this ends, no process is left behind: each also ends by itself when its stdin closes
(``compare_job``), so that killing this one kills all. It decides nothing about what is run.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.config import SelfPlayConfig

Message = dict[str, Any]

PROGRAM = (sys.executable, "-m", "tokenzero.compare_job")


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be: ``run`` its directory and ``needs`` that of the run it starts from, both relative to the
    comparison's. ``reads_test`` reads ``test_problems`` of the test split at the end (None: all).
    """

    name: str
    run: str
    config: SelfPlayConfig
    needs: str | None = None
    reads_test: bool = False
    test_problems: int | None = None

    @property
    def steps(self) -> int:
        """How many messages of progress it sends from its beginning to its end: rounds, the warm start and
        the test split.
        """
        return self.config.rounds + 1 + self.reads_test


Hear = Callable[[Job, Message], None]
"""Told of what a process says, {"stage": name}, {"record": a round's record} or {"test": what was read}, and
of its end, {"end": why it failed, or None}."""


def read_records(run: Path) -> list[dict[str, Any]]:
    """The records of the finished rounds of ``run``, the warm start's first. Raises InputError for a damaged
    file.
    """
    path = run / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it and the run writes it anew") from error


def execute(directory: Path, jobs: Sequence[Job], processes: int, hear: Hear) -> dict[str, str]:
    """Run ``jobs``, at most ``processes`` at a time and in order, each after the job it needs if that is
    among them; returns one line of reason for each that failed, by ``run``.

    Raises InputError when ``processes`` is below 1. Whatever is raised, all processes are stopped first; what
    they finished is kept.
    """
    if processes < 1:
        raise InputError(f"--jobs is {processes}; give at least 1")
    pool = _Pool(directory, hear)
    waiting, failures = list(jobs), {}
    try:
        while waiting or pool.running:
            unfinished = {job.run for job in (*waiting, *pool.running)}
            for job in list(waiting):
                if job.needs in failures:
                    waiting.remove(job)
                    failures[job.run] = f"{job.needs} failed, where it would have begun"
                elif job.needs not in unfinished and len(pool.running) < processes:
                    waiting.remove(job)
                    pool.start(job)
            if pool.running:
                ended, reason = pool.next_end()
                hear(ended, {"end": reason})
                if reason is not None:
                    failures[ended.run] = reason
    finally:
        pool.stop()
    return failures


class _Pool:
    """Owns the processes. One thread a process passes on what it says; all else happens in the caller's."""

    def __init__(self, directory: Path, hear: Hear) -> None:
        self._directory = directory.resolve()
        self._hear = hear
        self._said: queue.SimpleQueue[tuple[Job, Message | None]] = queue.SimpleQueue()
        self.running: dict[Job, subprocess.Popen[str]] = {}

    def start(self, job: Job) -> None:
        threads = str(job.config.threads)
        log = self._log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                PROGRAM,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        self.running[job] = process
        order = {
            "directory": str(self._directory),
            "run": job.run,
            "config": asdict(job.config),
            "reads_test": job.reads_test,
            "test_problems": job.test_problems,
        }
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended before it listened; its end will be heard
            print(json.dumps(order), file=process.stdin, flush=True)
        threading.Thread(target=self._listen, args=(job, process), daemon=True).start()

    def next_end(self) -> tuple[Job, str | None]:
        """Pass on what is said until a process ends; that job, and why it failed (None: it did not)."""
        while True:
            job, message = self._said.get()
            if message is not None:
                self._hear(job, message)
                continue
            process = self.running[job]
            code = process.wait()
            del self.running[job]
            _close(process)
            if code == 0:
                self._log(job).unlink(missing_ok=True)
                return job, None
            return job, self._reason(job, code)

    def stop(self) -> None:
        """End all processes and wait for them."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()
            _close(process)
        self.running.clear()

    def _listen(self, job: Job, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self._said.put((job, json.loads(line)))
        except ValueError:
            pass  # it was killed within a line, or its pipe was closed by stop()
        finally:
            self._said.put((job, None))

    def _log(self, job: Job) -> Path:
        return self._directory / f"{job.run}.log"

    def _reason(self, job: Job, code: int) -> str:
        lines = self._log(job).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = lines[-1].removeprefix("tokenzero: error: ") if lines else "it said nothing"
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"{told} ({ended}; {self._log(job)})"


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # of what it never read
                pipe.close()
