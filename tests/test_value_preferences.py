"""Reading, writing and splitting preferences: every form of a row, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.preferences import (
    SUFFIXES,
    Preference,
    read_preferences,
    split_by_prompt,
    write_preferences,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PAIRS = st.lists(
    st.builds(
        lambda prompt, texts, margin: Preference(prompt, *texts, margin),
        TEXT,
        st.tuples(TEXT, TEXT).filter(lambda texts: texts[0] != texts[1]),
        st.none() | st.floats(0, 1e6),
    ),
    min_size=1,
    max_size=5,
)
USER = {"role": "user", "content": "2 + 2?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}


def _jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@given(PAIRS, st.sampled_from(SUFFIXES))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Preference], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("pairs") / f"pairs{suffix}"
    write_preferences(path, pairs)
    assert read_preferences(path) == pairs


def test_the_three_kinds_of_file_say_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "answers": ["a", "b", "c"], "ranks": [2, 1, 3]},
        {"prompt": "p", "answers": ["d", "e"], "ranks": [1, 2]},
    ]
    jsonl = _jsonl(tmp_path / "a.jsonl", *rows)
    csv = tmp_path / "a.csv"
    csv.write_text(
        'prompt,answers,ranks,chosen,rejected\np,"[""a"",""b"",""c""]","[2,1,3]",,\n'
        'p,"[""d"", ""e""]","[1, 2]",,\n'
    )
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    expected = [Preference("p", *pair) for pair in ("ba", "ac", "bc", "de")]
    assert [read_preferences(path) for path in (jsonl, csv, parquet)] == [expected] * 3


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_a_ranking_gives_every_pair_of_different_ranks(
    tmp_path_factory: pytest.TempPathFactory, ranks: list[int]
) -> None:
    answers = [f"answer {index}" for index in range(len(ranks))]
    path = _jsonl(
        tmp_path_factory.mktemp("r") / "r.jsonl", {"prompt": "p", "answers": answers, "ranks": ranks}
    )
    expected = {
        (answers[i], answers[j]) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]
    }
    if not expected:
        with pytest.raises(InputError, match="no pair in it"):
            read_preferences(path)
        return
    found = [(one.chosen, one.rejected) for one in read_preferences(path)]
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": [USER, FOUR], "rejected": [USER, FIVE]}, ("2 + 2?", "4", "5")),
        ({"prompt": "2 + 2?", "chosen": [USER, FOUR], "rejected": [USER, FIVE]}, ("2 + 2?", "4", "5")),
        ({"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}, ("2 + 2?", "4", "5")),
        ({"prompt": [USER], "chosen": "4", "rejected": [FIVE]}, ("2 + 2?", "4", "5")),
        (
            {"chosen": [USER, FOUR, USER, FOUR], "rejected": [USER, FOUR, USER, FIVE]},
            ("User: 2 + 2?\n\nAssistant: 4\n\nUser: 2 + 2?", "4", "5"),
        ),
        (
            {"chosen": [USER, FOUR, USER, FOUR], "rejected": [USER, FIVE]},
            ("2 + 2?", "Assistant: 4\n\nUser: 2 + 2?\n\nAssistant: 4", "5"),
        ),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": None, "id": 3}, ("p", "a", "b")),
    ],
)
def test_chat_messages_are_flattened(row: Any, expected: tuple[str, str, str], tmp_path: Path) -> None:
    assert read_preferences(_jsonl(tmp_path / "a.jsonl", row)) == [Preference(*expected)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "choosen": "a", "rejected": "b"}, "has no chosen; did 'choosen' mean it"),
        ({"chosen": "a", "rejected": "b"}, "has no prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "the same text"),
        ({"prompt": "p", "chosen": 3, "rejected": "a"}, "chosen is '3'"),
        ({"prompt": "p", "chosen": [{"role": "user"}], "rejected": "a"}, "has a role and a content"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin is -1"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "1"}, "margin holds '1'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": float("nan")}, "finite numbers"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "ranks": [1]}, "keep one of the two forms"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1]}, "of the same length"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, True]}, "finite numbers"),
        ({"prompt": "p", "answers": ["a", "b"]}, "has no ranks"),
        ({"prompt": "p", "answers": ["a", "a"], "ranks": [1, 2]}, "the same text"),
        ({"prompt": "q", "chosen": [USER, FOUR], "rejected": [USER, FIVE]}, "is not what chosen"),
        ({"chosen": [FOUR], "rejected": [FIVE]}, "begin with different messages"),
        ({"prompt": "p", "chosen": "\ud800", "rejected": "b"}, "not valid Unicode"),
        (["p", "a", "b"], "not a JSON object"),
    ],
)
def test_a_bad_row_is_named_by_its_line(row: Any, message: str, tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = _jsonl(tmp_path / "a.jsonl", good, row)
    with pytest.raises(InputError, match=message) as caught:
        read_preferences(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "p"\n', r"a\.jsonl:1: not one JSON object"),
        ("a.jsonl", b"\n\n", "no pair in it"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.csv", b"prompt,chosen,rejected\np,a\n", r"a\.csv:2: more or fewer cells"),
        ("a.csv", b'prompt,chosen,rejected\n"p\n\nq",a,b\np,a,b,c\n', r"a\.csv:5: more or fewer cells"),
        ("a.csv", b"prompt,answers,ranks\np,a b,1 2\n", r"a\.csv:2: answers is 'a b'"),
        ("a.csv", b'prompt,chosen,rejected\np,"a"x,b\n', r"a\.csv:2: not CSV"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.txt", b"", r"use one of \.jsonl, \.csv, \.parquet"),
    ],
)
def test_a_bad_file_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_preferences(tmp_path / name)


def test_a_bad_row_of_parquet_is_named_by_its_number(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a", "rejected": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: row 2: has no rejected"):
        read_preferences(tmp_path / "a.parquet")


def test_a_missing_file_and_a_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_preferences(tmp_path / "no.jsonl")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,chosen,rejected\np,a,b\n")
    assert read_preferences(tmp_path / "a.csv") == [Preference("p", "a", "b")]


@given(st.lists(st.integers(0, 30), max_size=40), st.floats(0, 0.9), st.integers(0, 5))
def test_no_prompt_is_on_both_sides(prompts: list[int], share: float, seed: int) -> None:
    pairs = [Preference(f"p{prompt}", f"a{i}", "b") for i, prompt in enumerate(prompts)]
    train, held_out = split_by_prompt(pairs, share, seed)
    assert {one.prompt for one in train}.isdisjoint(one.prompt for one in held_out)
    assert sorted(train + held_out, key=pairs.index) == pairs
    assert split_by_prompt(pairs[::2], share, seed) == (
        [one for one in pairs[::2] if one in train],
        [one for one in pairs[::2] if one in held_out],
    )


def test_about_the_asked_share_is_held_out() -> None:
    pairs = [Preference(f"prompt {i}", "a", "b") for i in range(2000)]
    assert [len(split_by_prompt(pairs, share)[1]) for share in (0.0, 0.25)] == [0, pytest.approx(500, abs=60)]
    assert split_by_prompt(pairs, 0.25, 1) != split_by_prompt(pairs, 0.25, 2)
    with pytest.raises(InputError, match=r"held-out share is 1\.0"):
        split_by_prompt(pairs, 1.0)
