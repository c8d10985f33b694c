"""Masks, paths and chains of random trees against walks from token to token over plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sequence_packing import cells_of, pack
from tokenzero.policy.tree_packing import STEP, forest, in_one_row, mask_of, paths_of, unfold

TREE = st.integers(1, 12).flatmap(lambda size: st.tuples(*(st.integers(-1, i - 1) for i in range(size))))
TREES = st.lists(TREE, min_size=1, max_size=6).map(lambda trees: [np.asarray(tree) for tree in trees])
Trees = list[np.ndarray]


def line(parents: np.ndarray, token: int) -> list[int]:
    """The token and its ancestors within its tree, itself first."""
    return [token] if parents[token] < 0 else [token, *line(parents, int(parents[token]))]


def lines(parents: Trees) -> list[list[int]]:
    """`line` of every token of all trees, as indices into all of them."""
    before = np.cumsum([0, *map(len, parents)]).tolist()
    return [
        [first + token for token in line(tree, i)]
        for first, tree in zip(before, parents, strict=False)
        for i in range(len(tree))
    ]


@given(TREES)
def test_joined_trees_keep_their_parents_and_know_their_depths(parents: Trees) -> None:
    trees = forest(parents)
    found = lines(parents)
    assert trees.sizes.tolist() == [len(tree) for tree in parents]
    assert trees.depths.tolist() == [len(path) - 1 for path in found]
    assert trees.parents.tolist() == [path[1] if len(path) > 1 else -1 for path in found]
    assert trees.branch == any(tree.tolist() != list(range(-1, len(tree) - 1)) for tree in parents)


@given(TREES)
def test_a_mask_shows_each_token_itself_and_its_ancestors(parents: Trees) -> None:
    trees = forest(parents)
    layout = pack(trees.sizes)
    cells = cells_of(layout, trees.sizes)
    expected = np.zeros((layout.cells, layout.cells), bool)
    np.fill_diagonal(expected, True)  # free cells see themselves
    for token, path in enumerate(lines(parents)):
        expected[cells[token], cells[path]] = True
    mask = mask_of(trees, layout)
    assert mask.shape == (layout.rows, layout.width, layout.width)
    for row in range(layout.rows):
        own = slice(row * layout.width, (row + 1) * layout.width)
        assert np.array_equal(mask[row], expected[own, own])
    assert mask.sum() == expected.sum(), "nobody sees a cell of another row"


@given(TREES)
def test_paths_lead_from_each_token_to_its_first_ancestor(parents: Trees) -> None:
    trees = forest(parents)
    layout = in_one_row(trees.sizes)
    assert cells_of(layout, trees.sizes).tolist() == list(range(len(trees.parents)))
    assert (layout.rows, layout.width % STEP) == (1, 0)
    assert len(trees.parents) <= layout.width < len(trees.parents) + STEP
    paths = paths_of(trees, layout)
    assert paths.shape == (layout.width, trees.depths.max() + 1)
    for token, path in enumerate(lines(parents)):
        assert paths[token, : len(path)].tolist() == path
    assert paths[:, 0].tolist() == list(range(layout.width)), "free cells see themselves"


@given(TREES)
def test_unfolded_chains_are_the_lines_of_the_leaves(parents: Trees) -> None:
    trees = forest(parents)
    found = lines(parents)
    inner = {path[1] for path in found if len(path) > 1}
    chains = unfold(trees)
    expected = [path[::-1] for path in found if path[0] not in inner]
    ends = np.cumsum(chains.lengths)
    assert [chain.tolist() for chain in np.split(chains.tokens, ends[:-1])] == expected
    flat = [token for chain in expected for token in chain]
    assert chains.read.tolist() == [flat.index(token) for token in range(len(found))]


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([], "no tree at all"),
        ([[-1, 0], []], "without tokens"),
        ([[-1, 0], [-1, 1]], "token 1 of a tree has parent 1"),
        ([[-1, 0], [-1, 2, 0]], "token 1 of a tree has parent 2"),
        ([[-1, -2]], "has parent -2"),
        ([[0]], "token 0 of a tree has parent 0"),
    ],
)
def test_what_is_no_tree_is_refused(parents: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        forest([np.asarray(tree, np.int64) for tree in parents])
