"""The cache of answers: the same after reopening, bounded, and never in the way of a run."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.policy.response_cache import FILE_NAME, ResponseCache, request_key

MIB = 2**20


def test_keys_follow_the_request_and_not_the_order_of_its_fields() -> None:
    body = {"a": 1, "b": [1.5, None, "ß\ud800"]}
    key = request_key("u", "/e", body)
    assert request_key("u", "/e", dict(reversed(body.items()))) == key
    others = [("v", "/e", body), ("u", "/f", body), ("u", "/e", {**body, "a": 2}), ("u", "/e", {"a": 1})]
    assert key not in {request_key(*other) for other in others}


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, MIB)

    @given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
    def holds(value: dict[str, int | str]) -> None:
        cache.put("k", value)
        assert cache.get(["k", "other"]) == {"k": value}

    holds()
    cache.close()


def test_it_survives_closing_and_processes_that_never_close(tmp_path: Path) -> None:
    first = ResponseCache(tmp_path / "new" / "place", MIB)
    first.put("a", {"x": 1})
    second = ResponseCache(tmp_path / "new" / "place", MIB)
    assert second.get(["a"]) == {"a": {"x": 1}}
    second.put("a", {"x": 2})
    assert first.get(["a"]) == {"a": {"x": 2}}
    assert len(first) == 1
    first.close()
    second.close()


def test_the_least_recently_used_leave_first_and_the_bound_holds(tmp_path: Path) -> None:
    value = {"text": "x" * 87}  # 100 bytes as JSON
    cache = ResponseCache(tmp_path, 1000)
    for i in range(10):
        cache.put(f"k{i}", value)
    assert len(cache) == 10
    cache.get(["k0", "k1"])
    cache.put("new", value)
    assert len(cache) == 9
    assert set(cache.get([f"k{i}" for i in range(10)])) == {"k0", "k1", *(f"k{i}" for i in range(4, 10))}
    cache.put("huge", {"text": "x" * 2000})
    assert cache.get(["huge"]) == {}
    assert len(cache) == 9
    for _ in range(50):
        cache.put("same", value)
    assert len(cache) == 10
    cache.close()
    reopened = ResponseCache(tmp_path, 1000)  # the bound counts what was there before
    reopened.put("one more", value)
    assert len(reopened) == 9
    reopened.close()


@pytest.mark.parametrize("body", [b"", b'{"x": 2}', "text", b"\x00" * 8])
def test_damaged_entries_are_left_out_counted_and_gone(tmp_path: Path, body: object) -> None:
    cache = ResponseCache(tmp_path, MIB)
    cache.put("bad", {"x": 1})
    cache.put("good", {"y": 1})
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("update responses set body = ? where key = 'bad'", (body,))
    other.close()
    assert cache.get(["bad", "good"]) == {"good": {"y": 1}}
    assert cache.corrupt == 1
    assert len(cache) == 1
    cache.put("bad", {"x": 3})
    assert cache.get(["bad"]) == {"bad": {"x": 3}}
    assert cache.corrupt == 1
    cache.close()


@pytest.mark.parametrize("damage", ["overwritten", "cut", "scribbled"])
def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE_NAME
    cache = ResponseCache(tmp_path, MIB)
    for i in range(200):
        cache.put(f"k{i}", {"x": "y" * 100})
    cache.close()
    content = path.read_bytes()
    if damage == "overwritten":
        path.write_bytes(b"this is no database" * 50)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:4096] + b"\x55" * 8192 + content[12288:])
    cache = ResponseCache(tmp_path, MIB)
    assert cache.corrupt == 1
    assert cache.get([f"k{i}" for i in range(200)]) == {}
    cache.put("k", {"x": 1})
    assert cache.get(["k"]) == {"k": {"x": 1}}
    cache.close()
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()


def test_a_disk_that_refuses_is_counted_and_does_not_stop_anybody(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, MIB)
    cache.put("a", {"x": 1})
    cache._connection.execute("pragma query_only = on")
    cache.put("b", {"x": 2})
    assert cache.unwritten == 1
    cache._connection.execute("pragma query_only = off")
    cache.put("c", {"x": 3})
    assert cache.get(["a", "b", "c"]) == {"a": {"x": 1}, "c": {"x": 3}}
    cache.close()


def test_an_answer_that_could_not_be_replaced_still_counts(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, 1000)
    cache.put("old", {"text": "x" * 800})
    cache._connection.execute(
        "create trigger full before insert on responses begin select raise(abort, 'disk full'); end"
    )
    cache.put("old", {"text": "y" * 800})
    assert cache.unwritten == 1
    cache._connection.execute("drop trigger full")
    assert cache.get(["old"]) == {"old": {"text": "x" * 800}}
    cache.put("new", {"text": "x" * 300})
    assert set(cache.get(["old", "new"])) == {"new"}
    cache.close()


def test_threads_share_it(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, MIB)

    def work(name: int) -> None:
        for i in range(20):
            cache.put(f"{name} {i}", {"v": i})
            found.append(cache.get([f"{name} {i}"])[f"{name} {i}"]["v"] == i)

    found: list[bool] = []
    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80
    assert len(cache) == 80
    cache.close()


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be opened"):
        ResponseCache(tmp_path / "file", MIB)
    with pytest.raises(InputError, match="0 bytes"):
        ResponseCache(tmp_path, 0)
