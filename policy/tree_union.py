"""The slots that the leaves of one tree read between them, and how far above each leaf they lie.

Turns the paths of a batch into rectangles, one per tree, for attention by matrix products. It reads no keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tokenzero.policy.key_value_pool import Batch

OUT_OF_SIGHT = 2**31 - 1


class Union(NamedTuple):
    """For T trees with at most Q tokens and U slots each (arrays, or tensors of the same):

    ``slots`` i64 [T, U], padded with slot 0; ``distance`` i32 [T, Q, U], how many tokens above the query
    the slot is, `OUT_OF_SIGHT` if it is no ancestor, -1 in column 0 of rows without a token; ``place`` i64
    [N], the row (tree * Q + query) of each token.
    """

    slots: Any
    distance: Any
    place: Any


@njit(cache=True, error_model="numpy")
def _columns(tree: Any, read: Any, lengths: Any, trees: int) -> Any:
    """Column of every read slot within its tree's union i32 [N, P], and the size of each union i64 [T]."""
    column = np.zeros(read.shape, np.int32)
    size = np.zeros(trees, np.int64)
    order = np.argsort(tree, kind="mergesort")
    seen_in = np.full(int(read.max()) + 1, -1, np.int64)
    seen_at = np.zeros(int(read.max()) + 1, np.int32)
    for n in order:
        t = tree[n]
        for p in range(lengths[n]):
            slot = read[n, p]
            if seen_in[slot] != t:
                seen_in[slot], seen_at[slot] = t, size[t]
                size[t] += 1
            column[n, p] = seen_at[slot]
    return column, size


@njit(cache=True, error_model="numpy")
def _fill(tree: Any, query: Any, read: Any, lengths: Any, column: Any, slots: Any, distance: Any) -> None:
    for n in range(len(tree)):
        for p in range(lengths[n]):
            slots[tree[n], column[n, p]] = read[n, p]
            distance[tree[n], query[n], column[n, p]] = p


def unite(batch: Batch) -> Union:
    """The unions of a batch's trees, as arrays."""
    _, tree = np.unique(batch.trees, return_inverse=True)
    count = np.bincount(tree)
    order = np.argsort(tree, kind="stable")
    query = np.empty(len(tree), np.int64)
    query[order] = np.arange(len(tree)) - np.repeat(np.cumsum(count) - count, count)
    column, size = _columns(tree, batch.read, batch.lengths, len(count))
    slots = np.zeros((len(count), int(size.max())), np.int64)
    distance = np.full((len(count), int(count.max()), int(size.max())), OUT_OF_SIGHT, np.int32)
    distance[np.arange(int(count.max()))[None, :] >= count[:, None], 0] = -1
    _fill(tree, query, batch.read, batch.lengths, column, slots, distance)
    return Union(slots, distance, tree * int(count.max()) + query)
