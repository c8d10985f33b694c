"""Atomic output: faults injected at every system call, and processes killed in the middle of writing."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tokenzero.policy import atomic
from tokenzero.policy.atomic import OutputError, replace_directory, sweep, write_bytes, write_text


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def _failing(call: Callable[..., Any], turn: int, code: int) -> Callable[..., Any]:
    """`call`, failing with `code` the `turn`-th time (from 1)."""
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn:
            raise OSError(code, os.strerror(code))
        return call(*args, **kwargs)

    return wrapper


def _fill(directory: Path, mark: str) -> None:
    (directory / "sub").mkdir()
    (directory / "a.txt").write_text(mark, encoding="utf-8")
    (directory / "sub" / "b.txt").write_text(mark, encoding="utf-8")


def _mark(directory: Path) -> str:
    marks = {path.read_text(encoding="utf-8") for path in directory.rglob("*.txt")}
    assert len(marks) == 1
    assert _names(directory) == ["a.txt", "sub"]
    return marks.pop()


# ---- files


def test_a_file_is_written_replaced_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text(path, "één\r\n")
    assert path.read_bytes() == "één\r\n".encode()
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert _names(path.parent) == ["file.txt"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == "new"


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    write_bytes(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_data_is_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name in ("write", "fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, call=call: (order.append(name), call(*a))[1])
    write_bytes(tmp_path / "file", b"x")
    assert order == ["write", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_call_leaves_the_old_file(
    name: str, code: int, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if existing:
        path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, _failing(getattr(os, name), 1, code))
        with pytest.raises(OutputError) as caught:
            write_bytes(path, b"x" * 12345)
    message = str(caught.value)
    assert caught.value.errno == code
    assert "\n" not in message
    assert f"{path} (12,345 bytes)" in message
    assert os.strerror(code) in message
    assert ("free some space, then run again with --resume" in message) == (code == errno.ENOSPC)
    assert _names(tmp_path) == (["file"] if existing else [])
    assert not existing or path.read_bytes() == b"old"


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    partial = _failing(lambda descriptor, data: write(descriptor, bytes(data[:3])), 3, errno.ENOSPC)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", partial)
        with pytest.raises(OutputError, match="No space left"):
            write_bytes(tmp_path / "file", b"0123456789")
    assert _names(tmp_path) == []


def test_a_name_that_cannot_be_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    for path in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="choose a place"):
            write_bytes(path, b"x")
    assert _names(tmp_path) == ["file"]


# ---- directories


def test_a_directory_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with replace_directory(target) as temporary:
        _fill(temporary, "1")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.name.startswith(atomic.PREFIX)
    assert _mark(target) == "1"
    with replace_directory(target) as temporary:
        assert _names(temporary) == []
        _fill(temporary, "2")
        assert _mark(target) == "1"
    assert _mark(target) == "2"
    assert _names(target.parent) == ["target"]


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "round-1").mkdir()
    (tmp_path / "latest").symlink_to("round-1")
    with replace_directory(tmp_path / "latest") as temporary:
        _fill(temporary, "1")
    assert (tmp_path / "latest").is_symlink()
    assert _mark(tmp_path / "round-1") == "1"


def test_every_file_and_folder_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note(descriptor: int) -> None:
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        flushed.append("renamed")
        rename(source, target)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to name descriptors")
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", note_rename)
    with replace_directory(tmp_path / "target") as temporary:
        _fill(temporary, "1")
    before = flushed[: flushed.index("renamed")]
    assert {"a.txt", "sub", "b.txt", temporary.name} == set(before)
    assert flushed[-2:] == ["renamed", tmp_path.name]


CALLS = [("mkdir", 2), ("fsync", 1), ("fsync", 4), ("rename", 1)]


@pytest.mark.parametrize(
    ("name", "turn", "existing"),
    # only a replacement needs a second rename
    [(*call, existing) for call in CALLS for existing in (True, False)] + [("rename", 2, True)],
)
def test_a_failing_call_leaves_the_old_directory(
    name: str, turn: int, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    if existing:
        target.mkdir()
        _fill(target, "old")
    real = getattr(os, name)
    with pytest.raises(OutputError, match=r"free some space, then run again with --resume") as caught:  # noqa: PT012
        monkeypatch.setattr(os, name, _failing(real, turn, errno.ENOSPC))
        with replace_directory(target) as temporary:
            monkeypatch.setattr(os, name, real)
            _fill(temporary, "new")
            monkeypatch.setattr(os, name, _failing(real, turn, errno.ENOSPC))
    monkeypatch.setattr(os, name, real)
    assert str(target) in str(caught.value)
    assert "6 bytes" in str(caught.value) or name == "mkdir"
    assert _names(tmp_path) == (["target"] if existing else [])
    assert not existing or _mark(target) == "old"


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="in the way"), replace_directory(tmp_path / "target") as temporary:
        _fill(temporary, "new")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "mine"
    assert _names(tmp_path) == ["target"]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
RUST_FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [FULL, RUST_FULL])
def test_a_disk_that_fills_inside_the_block_is_an_output_error(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, replace_directory(tmp_path / "target") as temporary:  # noqa: PT012
        (temporary / "half").write_bytes(b"x" * 1000)
        raise error
    assert "(1,000 bytes): No space left on device; free some space" in str(caught.value)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__cause__ is error
    assert _names(tmp_path) == []


OTHERS = [
    ValueError("bad"),
    KeyboardInterrupt(),
    FileNotFoundError(errno.ENOENT, "missing", "/data/in.txt"),
    PermissionError(errno.EACCES, "denied", "/data/in.txt"),  # reading elsewhere is not our output's fault
    SafetensorError("header too large"),
    OutputError("inner"),
]


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_exceptions_pass_unchanged(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, replace_directory(tmp_path / "target") as temporary:  # noqa: PT012
        _fill(temporary, "new")
        raise error
    assert caught.value is error
    assert _names(tmp_path) == []


def test_safetensors_written_inside_open_afterwards(tmp_path: Path) -> None:
    with replace_directory(tmp_path / "target") as temporary:
        save_file({"w": np.arange(5)}, temporary / "model.safetensors")
    assert load_file(tmp_path / "target" / "model.safetensors")["w"].tolist() == [0, 1, 2, 3, 4]


# ---- killed processes


def test_sweep_removes_what_the_dead_left_and_spares_the_living(tmp_path: Path) -> None:
    dead, parent = _dead_pid(), os.getppid()
    (tmp_path / f".tmp-{dead}-0-new-file").write_bytes(b"x")
    (tmp_path / f".tmp-{dead}-1-new-dir").mkdir()
    (tmp_path / f".tmp-{dead}-1-new-dir" / "f").write_bytes(b"x")
    (tmp_path / f".tmp-{os.getpid()}-999999-new-same-id-before-a-restart").write_bytes(b"x")
    kept = [f".tmp-{parent}-0-new-file", ".tmp-notes", "data.txt", "tmp-1-0-new-x"]
    for name in kept:
        (tmp_path / name).write_bytes(b"x")
    with replace_directory(tmp_path / "target") as temporary:
        assert len(sweep(tmp_path)) == 3
        assert _names(tmp_path) == sorted([*kept, temporary.name])
        _fill(temporary, "1")
    assert _mark(tmp_path / "target") == "1"
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "absent") == []


def test_sweep_moves_back_a_directory_whose_replacement_never_came(tmp_path: Path) -> None:
    dead = _dead_pid()
    for name in (f".tmp-{dead}-1-was-target", f".tmp-{dead}-1-was-other", "other"):
        (tmp_path / name).mkdir()
        _fill(tmp_path / name, "new" if name == "other" else "old")
    sweep(tmp_path)
    assert _names(tmp_path) == ["other", "target"]
    assert _mark(tmp_path / "target") == "old"
    assert _mark(tmp_path / "other") == "new"


def test_a_failing_sweep_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".tmp-{_dead_pid()}-0-new-file").write_bytes(b"x")
    monkeypatch.setattr(os, "unlink", _failing(os.unlink, 1, errno.EACCES))
    with pytest.raises(OutputError, match="Permission denied; choose a place"):
        sweep(tmp_path)


WRITER = """
import sys
from pathlib import Path
from tokenzero.policy.atomic import replace_directory, write_bytes
root, start = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for number in range(start, start + 1_000_000):
    text = f"{number}\\n"
    write_bytes(root / "file", text.encode() * 2000)
    with replace_directory(root / "target") as temporary:
        for name in ("a", "b", "c"):
            (temporary / name).write_text(text * 2000)
    if number == start:
        print("once", flush=True)
"""


def _whole(path: Path) -> int:
    """The number a file repeats 2000 times; fails when the file is cut or mixed."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 2001
    assert set(lines[:-1]) == {lines[0]}
    return int(lines[0])


def test_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    seen: list[int] = []
    for life in range(10):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(life * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            if life % 2 == 0:
                assert child.stdout.readline() == "once\n"
            for _ in range(400 * life):  # die at a different point of the cycle each time
                (tmp_path / "file").exists()
            child.send_signal(signal.SIGKILL)
        sweep(tmp_path)
        assert set(_names(tmp_path)) <= {"file", "target"}
        seen.append(_whole(tmp_path / "file"))
        assert len({_whole(tmp_path / "target" / name) for name in "abc"}) == 1
    assert seen == sorted(seen)
    assert seen[-1] >= 8_000_000


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_kill_between_two_renames(turn: int, tmp_path: Path) -> None:
    """Death just before one of the steps of a replacement: 1 moving aside, 2 moving in, 3 removing."""
    (tmp_path / "target").mkdir()
    _fill(tmp_path / "target", "old")
    script = """
import os, shutil, signal, sys
from pathlib import Path
from tokenzero.policy.atomic import replace_directory
rename, turn, calls = os.rename, int(sys.argv[2]), 0
def die_or_rename(source, target):
    global calls
    calls += 1
    if calls == turn:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = die_or_rename
shutil.rmtree = lambda path, *rest: os.kill(os.getpid(), signal.SIGKILL)
with replace_directory(Path(sys.argv[1]) / "target") as temporary:
    (temporary / "sub").mkdir()
    (temporary / "a.txt").write_text("new")
    (temporary / "sub" / "b.txt").write_text("new")
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(turn)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "target").exists() == (turn != 2)
    assert sweep(tmp_path)
    assert _names(tmp_path) == ["target"]
    assert _mark(tmp_path / "target") == ("new" if turn == 3 else "old")
