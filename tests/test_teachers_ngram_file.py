"""Saved n-gram tables: the same bytes, mapped when opened, and no damage goes unseen."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Teacher
from tokenzero.teachers.ngram import NgramTeacher
from tokenzero.teachers.ngram_file import read_table, write_table
from tokenzero.teachers.ngram_table import SMOOTHINGS

ABOUT = {"format": 2, "name": "x", "order": 2, "smoothing": "witten-bell", "vocab_size": 3}


def saved(path: Path) -> Path:
    NgramTeacher.fit([[0, 1, 2, 0, 2]], 2, 3, name="x").save(path)
    return path


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_saved_table_comes_back_and_has_the_same_bytes(smoothing: str, tmp_path: Path) -> None:
    # Order 6 on short sequences: the highest levels are empty.
    teacher = NgramTeacher.fit([[0, 1, 2], [3, 1, 2, 2]], 6, 4, smoothing, name="grams")
    teacher.save(tmp_path / "a.safetensors")
    back = NgramTeacher.load(tmp_path / "a.safetensors")
    back.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (back.name, back.order, back.vocab_size, back.smoothing) == ("grams", 6, 4, smoothing)
    contexts = [[], [1], [1, 2], [3, 1, 2], [0, 0, 0, 0, 0, 0]]
    proposer: Teacher = back
    first, second = teacher.propose(contexts, 4), proposer.propose(contexts, 4)
    assert np.array_equal(first.actions, second.actions)
    assert np.array_equal(first.probs, second.probs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_the_file_is_mapped_and_any_reader_of_safetensors_opens_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    table = NgramTeacher.load(path).table
    theirs = load_file(path)
    for name, array in table._asdict().items():
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        assert isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap), name
        assert array.flags.aligned
        assert not array.flags.writeable
        assert array.dtype == theirs[name].dtype
        assert np.array_equal(array, theirs[name])
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == sorted(table._asdict())


def test_a_damaged_byte_anywhere_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    content = path.read_bytes()
    for at in [*range(16), *range(16, len(content), 5)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"table\.safetensors"):
            NgramTeacher.load(path)


def test_arrays_that_changed_their_names_are_seen(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    content = path.read_bytes()
    for ours, theirs in ((b'"tokens"', b'"counts"'), (b'"children"', b'"followers"')):
        path.write_bytes(content.replace(ours, b"*").replace(theirs, ours).replace(b"*", theirs))
        assert len(load_file(path)) == 8
        with pytest.raises(InputError, match="its digest is another"):
            NgramTeacher.load(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -8, -1])
def test_a_cut_table_is_named(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"table\.safetensors"):
        NgramTeacher.load(path)
    path.write_bytes(b"\xff" * 40)  # a header longer than any file
    with pytest.raises(InputError, match="not a whole safetensors file"):
        NgramTeacher.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("followers", [0, 3, 99, 6, 7]),
        ("followers", [0, 3, 3, 5, 7]),
        ("followers", [1, 3, 5, 6, 7]),
        ("followers", [0, 3, 5, 6]),
        ("children", [1, 4, 4, 4, 5]),
        ("children", [0, 4, 4, 4, 4]),
        ("children", [1, 4, 3, 4, 4]),
        ("children", [1, 5, 4, 4, 4]),
        ("older", [-1, 0, 1, 3]),
        ("older", [-1, 1, 0, 2]),
        ("tokens", [0, 1, 3, 1, 2, 2, 0]),
        ("tokens", [0, 2, 1, 1, 2, 2, 0]),
        ("counts", [2, 0, 2, 1, 1, 1, 1]),
        ("counts", [2, 1, 2, 1, 1, 1]),
        ("total", [8, 4, 2, 0]),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(name: str, change: list[int], tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    about, arrays = read_table(path)
    assert about == ABOUT
    write_table(path, about, arrays)
    assert NgramTeacher.load(path).order == 2
    assert arrays[name].tolist() != change
    write_table(path, about, {**arrays, name: np.array(change, dtype=arrays[name].dtype)})
    with pytest.raises(InputError, match="contradict each other"):
        NgramTeacher.load(path)


@pytest.mark.parametrize("backoff", [-0.1, 1.5, np.nan])
def test_a_share_out_of_range_is_refused(backoff: float, tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    about, arrays = read_table(path)
    write_table(path, about, {**arrays, "backoff": np.full(4, backoff)})
    with pytest.raises(InputError, match="contradict each other"):
        NgramTeacher.load(path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({**ABOUT, "format": 1}, "format 2"),
        ({**ABOUT, "format": "2"}, "format 2"),
        ({key: value for key, value in ABOUT.items() if key != "order"}, "format 2"),
        ({**ABOUT, "order": 3}, "contradict"),
        ({**ABOUT, "order": 7}, "contradict"),
        ({**ABOUT, "smoothing": "laplace"}, "contradict"),
        ({**ABOUT, "vocab_size": 2}, "contradict"),
    ],
)
def test_what_is_said_of_a_table_must_fit(about: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "table.safetensors")
    write_table(path, about, read_table(path)[1])
    with pytest.raises(InputError, match=message):
        NgramTeacher.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors cannot be read"):
        NgramTeacher.load(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(InputError, match="not an n-gram table"):
        NgramTeacher.load(path)
    write_table(path, ABOUT, {"older": np.zeros(2, np.int32)})
    with pytest.raises(InputError, match="contradict each other"):
        NgramTeacher.load(path)
