"""Trees of partial answers as rows of one forward: each token once, attention to its ancestors alone.

A *sequence tree* is T tokens and ``parents`` i64 [T]: the index, in the same tree, of the token before, -1
for a first one; a parent stands before its children. A plain sequence is the chain ``parents[i] = i - 1``.
A token's position is its depth. Three ways are known (`Way`), and which of them a model can be trained with
is `training_forward`'s to say. No targets and no losses are known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.kernels import kernel
from tokenzero.policy.sequence_packing import Layout, cells_of

Ids = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

# Each new shape costs oneDNN a kernel: the one row of all trees is as wide as a multiple of this.
STEP = 128


class Way(Enum):
    """How a model reads trees: all in one row, each token with the list of its ancestors, for a compiled
    kernel; in rows that several trees share, under a mask; as the chains from the root to each leaf, with
    the tokens that leaves share as often as there are leaves.
    """

    PATHS = "paths"
    MASK = "mask"
    CHAINS = "chains"


class PackedTrees(NamedTuple):
    """What a forward reads of several trees, whichever way they are laid out.

    ``ids`` i64 [R, W]; ``positions`` i64 [R, W], None when each row holds one plain sequence. ``mask`` is for
    the forward alone to understand: what each cell attends to, as bool [R, W, W] or, for the compiled kernel,
    as paths i32 [W, P] in one row; None when it is all that stands before it in its sequence. These are on
    the model's device. ``cells`` i64 [T] on the host: where each token is to be read, tree by tree, as an
    index into the R * W cells counted row by row; no cell belongs to two tokens.
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    mask: torch.Tensor | None
    cells: Ids


class Forest(NamedTuple):
    """Trees in one array: ``sizes`` i64 [N] tokens of each, ``parents`` i64 [T] as indices into all T tokens,
    ``depths`` i64 [T].
    """

    sizes: Ids
    parents: Ids
    depths: Ids

    @property
    def branch(self) -> bool:
        """Whether some tree does: its tokens do not each follow the one before."""
        chain = np.arange(-1, len(self.parents) - 1)
        chain[np.cumsum(self.sizes) - self.sizes] = -1
        return not np.array_equal(self.parents, chain)


class Unfolded(NamedTuple):
    """``lengths`` i64 [L] of the chains from a root to each leaf, in the order of the leaves; ``tokens`` i64
    [sum of lengths] of each chain in turn, as indices into the trees' T tokens; ``read`` i64 [T]: the first
    place in ``tokens`` at which each of them stands.
    """

    lengths: Ids
    tokens: Ids
    read: Ids


def forest(parents: Sequence[Ids]) -> Forest:
    """Join the ``parents`` i64 of several trees.

    Raises:
        InputError: no tree, one without tokens, or a parent that does not stand before its child.
    """
    sizes = np.asarray([len(tree) for tree in parents], np.int64)
    if len(sizes) == 0 or not sizes.all():
        raise InputError("there is a tree without tokens, or no tree at all; give each at least one token")
    before = np.repeat(np.cumsum(sizes) - sizes, sizes)
    joined = np.concatenate(parents).astype(np.int64, copy=False)
    wrong = np.flatnonzero((joined < -1) | (joined >= np.arange(len(joined)) - before))
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"token {at - before[at]} of a tree has parent {joined[at]}; "
            "a parent stands before its child, and -1 says that there is none"
        )
    joined = np.where(joined < 0, -1, joined + before)
    depths = np.empty(len(joined), np.int64)
    _depths(joined, depths)
    return Forest(sizes, joined, depths)


def in_one_row(sizes: Ids) -> Layout:
    """Trees of ``sizes`` i64 [N] one after the other."""
    tokens = int(sizes.sum())
    return Layout(np.cumsum(sizes) - sizes, 1, tokens + -tokens % STEP, True)


def mask_of(trees: Forest, layout: Layout) -> Flags:
    """bool [R, W, W]: cell i of a row may attend to cell j if that is i itself or an ancestor of it."""
    mask = np.zeros((layout.cells, layout.width), np.bool_)
    _see_ancestors(trees.parents, cells_of(layout, trees.sizes), mask)
    return mask.reshape(layout.rows, layout.width, layout.width)


def paths_of(trees: Forest, layout: Layout) -> I32:
    """i32 [W, P] for trees in one row: each cell itself, its parent, and so on up to its first ancestor; the
    first ``position + 1`` of a row count.
    """
    paths = np.zeros((layout.width, int(trees.depths.max()) + 1), np.int32)
    paths[:, 0] = np.arange(layout.width)
    _copy_paths(trees.parents, trees.depths, paths)
    return paths


def unfold(trees: Forest) -> Unfolded:
    """The chains from a root to each leaf, and where in them each token is to be read."""
    leaf = np.ones(len(trees.parents), np.bool_)
    leaf[trees.parents[trees.parents >= 0]] = False
    at = np.flatnonzero(leaf)
    lengths = trees.depths[at] + 1
    place = np.cumsum(lengths) - 1
    tokens = np.empty(int(lengths.sum()), np.int64)
    while len(at):  # all chains at once, from the leaves up
        tokens[place] = at
        above = trees.parents[at]
        at, place = above[above >= 0], place[above >= 0] - 1
    return Unfolded(lengths, tokens, np.unique(tokens, return_index=True)[1])


@kernel
def _depths(parents: Ids, depths: Ids) -> None:
    for i in range(parents.shape[0]):
        depths[i] = depths[parents[i]] + 1 if parents[i] >= 0 else 0


@kernel
def _see_ancestors(parents: Ids, cells: Ids, mask: Flags) -> None:
    """What a token sees is what its parent sees, and itself. ``mask`` bool [R * W, W] comes in all false."""
    width = mask.shape[1]
    for cell in range(mask.shape[0]):
        mask[cell, cell % width] = True
    for i in range(cells.shape[0]):
        if parents[i] >= 0:
            mine, above = cells[i], cells[parents[i]]
            for j in range(above % width + 1):
                mask[mine, j] = mask[above, j]


@kernel
def _copy_paths(parents: Ids, depths: Ids, paths: I32) -> None:
    """A token's path is itself, which stands in ``paths`` i32 [W, P] already, and its parent's path."""
    for i in range(parents.shape[0]):
        for j in range(depths[i]):
            paths[i, j + 1] = paths[parents[i], j]
