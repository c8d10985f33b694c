"""Documents read back as they were written, damage is one line, and other programs can read the exports."""

from __future__ import annotations

import io
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tree import searched_tree, small_tree

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.view_document import check, document, read_document, to_json, trees_of
from tokenzero.view_export import to_dot, to_graph, to_graphml

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def same(one: RecordedTree, other: RecordedTree) -> None:
    for field in fields(RecordedTree):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        else:
            assert mine == theirs, field.name


@st.composite
def trees(draw: st.DrawFn) -> RecordedTree:
    nodes = draw(st.integers(1, 12))
    parent = [-1, *(draw(st.integers(0, n - 1)) for n in range(1, nodes))]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    numbers = rng.normal(size=(3, nodes)).astype(np.float32)
    numbers[rng.random((3, nodes)) < 0.2] = np.nan
    flags = rng.random((3, nodes)) < 0.5
    known = draw(st.booleans())
    steps = draw(st.integers(0, 9))
    return RecordedTree(
        prompt=draw(texts),
        method=draw(st.sampled_from(["puct", "frontier"])),
        before=draw(texts),
        settings={"a": 1, "b": "x", "c": 0.5, "d": True, "e": None},
        parent=np.asarray(parent, np.int32),
        actions=[[], *([int(t) for t in rng.integers(0, 99, draw(st.integers(1, 3)))] for _ in parent[1:])],
        text=["", *(draw(texts) for _ in parent[1:])],
        visits=rng.integers(0, 9, nodes).astype(np.int32),
        value=numbers[0],
        raw_value=numbers[1],
        prior=np.abs(numbers[2]),
        terminal=flags[0],
        solved=flags[1],
        exhausted=flags[2],
        weight=np.abs(numbers[2]) if known else None,
        reward=rng.normal(size=nodes).astype(np.float32) if known else None,
        lost=rng.integers(0, 3, nodes).astype(np.int32) if known else None,
        judge=rng.integers(-1, 2, nodes).astype(np.int8) if known else None,
        proposers=["a", "b"] if known else [],
        shares=rng.random((nodes, 2)).astype(np.float32) if known else None,
        ended=rng.integers(0, nodes, steps).astype(np.int32),
        outcome=rng.normal(size=steps).astype(np.float32),
        discount=0.9,
        counted=draw(st.sampled_from(["visits", "states"])),
        note=draw(texts),
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3), texts)
def test_a_document_is_read_back_as_it_was(made: list[RecordedTree], answer: str) -> None:
    written = to_json(document(made, answer))
    assert written.isascii()
    found = json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["answer"] == answer
    for one, other in zip(made, trees_of(found), strict=True):
        same(one, other)


def test_a_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(to_json(document([searched_tree(25)], "x")))
    same(searched_tree(25), trees_of(read_document(path))[0])


def changed(**changes: Any) -> dict[str, Any]:
    found = json.loads(to_json(document([small_tree()])))
    found["searches"][0].update(changes)
    return dict(found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parent": [-1, 0, 0, 4, 1]}, "parents before"),
        ({"parent": [-1, 0, 0, -1, 1]}, "parents before"),
        ({"parent": []}, "parents before"),
        ({"parent": "x"}, "parent is missing"),
        ({"visits": [1, 2]}, "visits has 2 values for 5 nodes"),
        ({"visits": [5, 3, 1, 1, -1]}, r"visits\[4\] is '-1'"),
        ({"visits": [5, 3, 1, 1, 1.5]}, r"visits\[4\] is '1.5'"),
        ({"visits": [5, 3, 1, 1, True]}, r"visits\[4\]"),
        ({"visits": [5, 3, 1, 1, 2**40]}, r"visits\[4\]"),
        ({"value": [0, 0, 0, 0, "x" * 999]}, r"value\[4\] is 'x{40}'"),
        ({"value": [0, 0, 0, 0, float("inf")]}, r"value\[4\]"),
        ({"value": [0, 0, 0, 0, 10**400]}, r"value\[4\]"),
        ({"terminal": [0, 0, 0, 1, 1]}, r"terminal\[0\]"),
        ({"text": ["", "", "", "", None]}, r"text\[4\]"),
        ({"actions": [[], [1], [1], [1], [None]]}, r"actions\[4\]"),
        ({"judge": [0, 0, 0, 0, -7]}, r"judge\[4\]"),
        ({"shares": [[1]] * 5}, r"shares\[0\]"),
        ({"ended": [0, 9]}, r"ended\[1\] is '9'"),
        ({"outcome": [0.5]}, "outcome has 1 values for 5 simulations"),
        ({"committed": [0]}, r"committed\[0\]"),
        ({"counted": "things"}, "counted is 'things'"),
        ({"settings": []}, "settings is no object"),
        ({"settings": {"a": [1]}}, "setting a"),
        ({"discount": None}, "discount is no number"),
        ({"prompt": 3}, "prompt is no text"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(changed(**changes)))
    with pytest.raises(InputError, match=said) as caught:
        read_document(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "no search tree"),
        ('{"format": "tokenzero-tree", "version": 2}', "version 2 is unknown"),
        ('{"format": "tokenzero-tree", "version": 1}', "searches is empty"),
        ('{"format": "tokenzero-tree", "version": 1, "searches": [3]}', "search 0 is damaged"),
        ('{"format": "tokenzero-tree", "version": 1, "searches": [{}], "answer": 1}', "answer is no text"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(written)
    with pytest.raises(InputError, match=said):
        read_document(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path / "nothing.json")


def test_every_missing_field_is_noticed() -> None:
    optional = {"weight", "reward", "lost", "judge", "shares", "settings", "counted", "discount"}
    optional |= {"position", "prompt", "before", "method", "note"}
    for name in changed()["searches"][0]:
        found = changed()
        del found["searches"][0][name]
        if name in optional:
            check(found)
        else:
            with pytest.raises(InputError, match=name):
                check(found)


def test_the_graph_is_the_tree() -> None:
    tree = small_tree()
    graph = to_graph(tree)
    assert nx.is_arborescence(graph)
    assert sorted(graph.edges) == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert graph.nodes[3]["text"] == "+ 2"
    assert graph.nodes[3]["committed"] is True
    assert graph.nodes[4]["created"] == 4
    assert graph.nodes[2]["lost"] == 2
    assert graph.nodes[1]["proposer <teacher & co>"] == 0.5
    assert "weight" not in graph.nodes[1]


def test_graphml_reads_back_with_texts_that_xml_cannot_hold() -> None:
    tree = small_tree(text=["", "<&\"'>", "a\x00b\ud800", "\U0001f600 \ufffe", "line\nbreak"])
    read = nx.read_graphml(io.BytesIO(to_graphml(tree).encode()), node_type=int)
    graph = to_graph(tree)
    assert sorted(read.edges) == sorted(graph.edges)
    assert [read.nodes[n]["visits"] for n in range(5)] == [5, 3, 1, 1, 1]
    assert read.nodes[3]["solved"] is True
    assert read.nodes[1]["text"] == "<&\"'>"
    assert read.nodes[2]["text"] == "a\\u0000b\\ud800"
    assert read.nodes[3]["text"] == "\U0001f600 \\ufffe"
    for node in range(5):
        assert read.nodes[node]["value"] == pytest.approx(float(tree.value[node]))


@settings(max_examples=30, deadline=None)
@given(trees())
def test_graphml_of_any_tree_can_be_read(tree: RecordedTree) -> None:
    read = nx.read_graphml(io.BytesIO(to_graphml(tree).encode()), node_type=int)
    assert sorted(read) == list(range(len(tree.parent)))


def test_dot_quotes_what_it_is_told() -> None:
    tree = small_tree(text=["", 'say "x"', "back\\slash", "two\nlines", "; -> {"])
    drawn = to_dot(tree)
    assert r'label="say \"x\""' in drawn
    assert r'label="back\\slash"' in drawn
    assert r'label="two\nlines"' in drawn
    without_strings = re.sub(r'"(?:\\.|[^"\\])*"', "S", drawn)
    assert '"' not in without_strings
    assert without_strings.count("{") == without_strings.count("}") == 1
    assert sorted(re.findall(r"^  (\d+) -> (\d+) ", without_strings, re.MULTILINE)) == [
        ("0", "1"), ("0", "2"), ("1", "3"), ("1", "4"),
    ]  # fmt: skip
    assert "".join(re.findall(r"^  (\d+) \[", without_strings, re.MULTILINE)) == "01234"
