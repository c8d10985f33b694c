"""Files and directories that appear whole or not at all, whatever kills the process or fills the disk.

Everything is written beside its destination under a name that starts with `.tmp-`, flushed to the disk, and
renamed into place. This file does not lock: one process at a time owns an output directory. It does not retry
either; a failed write is one clear `OutputError`.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

__all__ = ["PREFIX", "OutputError", "replace_directory", "sweep", "write_bytes", "write_text"]

PREFIX = ".tmp-"
"""How every temporary name begins: `.tmp-<process id>-<counter>-<new|was>-<final name>`."""

_NAME = re.compile(re.escape(PREFIX) + r"(?P<pid>\d+)-\d+-(?P<role>new|was)-(?P<final>.+)", re.DOTALL)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_counter = itertools.count()
_mine: set[Path] = set()  # temporaries in use by this process, so that sweep() leaves them alone


class OutputError(OSError):
    """Output could not be written. The message is one line: path, reason, size when known, way out."""


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` (missing parents are made) so that a reader sees the old file or the new one.

    Returns once file and directory entry are on the disk. A symbolic link is followed, not replaced.
    Raises OutputError; `path` then holds what it held before, or all of `data` if only the last flush failed.
    """
    final = Path(os.path.realpath(path))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(final) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, final)
            _sync(final.parent)
    except OSError as error:
        raise _output_error(final, error, len(data)) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes` of `text` as UTF-8, line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def replace_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty directory to fill; when the block ends well it becomes `target`, else it is removed.

    Every file in it is on the disk before the name changes. An existing `target` moves aside for the two
    renames and is removed afterwards; a process killed between them leaves it to `sweep` to move back.
    Missing parents are made.

    Raises OutputError when the disk is full or refuses, also for such failures inside the block (those of
    safetensors, which are no OSError, included). Every other exception of the block passes unchanged.
    """
    final = Path(os.path.realpath(target))
    with _temporary(final) as temporary:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        except OSError as error:
            raise _output_error(final, error, None) from error
        try:
            yield temporary
        except (OSError, SafetensorError) as error:
            cause = _of_the_disk(error, temporary)
            if cause is None:
                raise
            raise _output_error(final, cause, _size(temporary)) from error
        try:
            _sync_tree(temporary)
            _swap(temporary, final)
        except OSError as error:
            raise _output_error(final, error, _size(temporary)) from error


def sweep(directory: str | os.PathLike[str]) -> list[Path]:
    """Clear what killed processes left in `directory` (not below it); return the temporaries that were found.

    A directory that had been moved aside for a replacement that never came is moved back; all else is
    removed. Temporaries of running processes stay. Raises OutputError when something cannot be removed.
    """
    found: list[Path] = []
    root = Path(directory)
    try:
        for path in sorted(root.glob(PREFIX + "*")):
            match = _NAME.fullmatch(path.name)
            if match is None or _in_use(path, int(match["pid"])):
                continue
            final = root / match["final"]
            if match["role"] == "was" and not final.exists():
                os.rename(path, final)
            else:
                _remove(path)
            found.append(path)
        if found:
            _sync(root)
    except OSError as error:
        raise _output_error(root, error, None) from error
    return found


@contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A free name beside `final`, whose content is gone when the block ends, however it ends."""
    path = _free_name(final, "new")
    _mine.add(path)
    try:
        yield path
    finally:
        with suppress(
            OSError
        ):  # what cannot be removed now is for sweep(); the first failure is the one to report
            _remove(path)
        _mine.discard(path)


def _free_name(final: Path, role: str) -> Path:
    while True:  # a dead process with our id may have left the name behind
        path = final.parent / f"{PREFIX}{os.getpid()}-{next(_counter)}-{role}-{final.name}"
        if not os.path.lexists(path):
            return path


def _swap(temporary: Path, final: Path) -> None:
    """Rename `temporary` to `final`, an existing directory moving aside first and back again on failure."""
    if final.exists() and not final.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file of that name is in the way", str(final))
    if not final.exists():
        os.rename(temporary, final)
        _sync(final.parent)
        return
    aside = _free_name(final, "was")
    _mine.add(aside)
    try:
        os.rename(final, aside)
        try:
            os.rename(temporary, final)
        except OSError:
            os.rename(aside, final)
            raise
        _sync(final.parent)
        with suppress(OSError):  # the new directory stands; sweep() clears the rest
            _remove(aside)
    finally:
        _mine.discard(aside)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_tree(directory: Path) -> None:
    for folder, _, files in os.walk(directory):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _in_use(path: Path, pid: int) -> bool:
    if pid == os.getpid():
        return Path(os.path.realpath(path)) in _mine
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and somebody else's
        return True
    return True


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _of_the_disk(error: OSError | SafetensorError, temporary: Path) -> OSError | None:
    """The failure as OSError when writing below `temporary` caused it; None for all else."""
    if isinstance(error, OutputError):
        return None
    if isinstance(error, SafetensorError):  # says "No space left on device (os error 28)"
        code = re.search(r"os error (\d+)", str(error))
        return None if code is None else OSError(int(code[1]), os.strerror(int(code[1])))
    if error.errno in _FULL or error.errno == errno.EIO:
        return error
    inside = isinstance(error.filename, str) and Path(error.filename).is_relative_to(temporary)
    return error if inside and error.errno in _FORBIDDEN else None


def _output_error(path: Path, error: OSError, size: int | None) -> OutputError:
    reason = error.strerror or str(error)
    amount = f" ({size:,} bytes)" if size else ""  # zero: the writer had its own buffer, so nothing is known
    if error.errno in _FULL:
        way_out = "free some space, then run again with --resume"
    elif error.errno in _FORBIDDEN:
        way_out = "choose a place you may write to"
    else:
        way_out = "check the disk, then run again with --resume"
    made = OutputError(f"cannot write {path}{amount}: {reason}; {way_out}")
    made.errno = error.errno
    return made
