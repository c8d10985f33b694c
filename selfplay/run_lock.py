"""One process at a time on a run directory, by the operating system's own file lock.

The kernel lets go of the lock when its holder ends, however it ends, so nothing is ever stale and the file is
never removed. It does not protect a run from being copied or deleted while it is played.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

LOCK_FILE = "lock"
_HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold ``directory/lock`` while the block runs; the file says by whom (process id and host), and is empty
    afterwards.

    Raises:
        InputError: another process holds it, or this platform has no such locks.
        OutputError: the file cannot be made there, or its file system does not lock.
    """
    if fcntl is None:
        raise InputError("runs are locked with fcntl, which this platform lacks; use Linux or macOS")
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _output_error(path, error, "choose a place you may write to") from error
    try:
        _take(descriptor, path)
        try:
            _write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            _write(descriptor, "")
    finally:
        os.close(descriptor)  # which lets go of the lock


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            raise InputError(
                f"{path.parent} is in use by {holder}; wait for it, stop it, or choose another --out"
            ) from error
        raise _output_error(path, error, "put the run on a file system that has locks") from error


def _write(descriptor: int, text: str) -> None:
    """Replace the file's content; a disk that is full loses no more than the name of the holder."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode("utf-8"), 0)
    except OSError:
        return


def _output_error(path: Path, error: OSError, way_out: str) -> OutputError:
    made = OutputError(f"cannot lock {path}: {error.strerror or error}; {way_out}")
    made.errno = error.errno
    return made
