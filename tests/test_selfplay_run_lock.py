"""One process at a time; the kernel lets go when the holder dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError
from tokenzero.selfplay import run_lock
from tokenzero.selfplay.run_lock import locked

HOLDER = """
import sys
from pathlib import Path
from tokenzero.selfplay.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"in use by process {holder.pid} on \S+; wait for it"):
            locked(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / "lock").read_text().startswith(f"process {holder.pid}")
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert (tmp_path / "lock").read_text() == ""


def test_one_process_does_not_hold_it_twice_and_lets_go_on_errors(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path):
            with pytest.raises(InputError, match="in use by"):
                locked(tmp_path).__enter__()
            assert (tmp_path / "lock").read_text(), "the refused one took nothing away"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("open", errno.EROFS, "Read-only file system; choose a place you may write to"),
        ("flock", errno.ENOLCK, "No locks available; put the run on a file system that has locks"),
    ],
)
def test_what_cannot_be_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int, message: str
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(run_lock.os if call == "open" else run_lock.fcntl, call, refuse)
    with pytest.raises(OutputError, match=f"cannot lock .*/lock: {message}"):
        locked(tmp_path).__enter__()


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_lock.os, "pwrite", full)
    with locked(tmp_path), pytest.raises(InputError, match="in use by another process"):
        locked(tmp_path).__enter__()


def test_a_platform_without_locks_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    with pytest.raises(InputError, match="use Linux or macOS"):
        locked(tmp_path).__enter__()
