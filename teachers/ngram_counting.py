"""Compiled counting of a text, one length of context after another. Look-ups are in ngram_kernels.py.

Positions of the text are kept sorted by their context, read backwards, and within a context by their token;
so each length costs one pass over them. Kernels trust their inputs and allocate nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenzero.teachers.ngram_kernels import I32, NONE, Floats, Ids, kernel


@kernel
def reach_of(lengths: Ids, most: int, reach: NDArray[np.uint8]) -> None:
    """How many tokens stand before each token of its own sequence, at most ``most``: u8 [T]."""
    at = 0
    for length in lengths:
        for place in range(length):
            reach[at + place] = min(place, most)
        at += length


@kernel
def order_by_token(text: Any, cursor: Ids, positions: I32) -> None:
    """Positions of ``text`` [T] sorted by their token, then by themselves. ``cursor`` [V] comes in as 0."""
    for token in text:
        cursor[token] += 1
    total = 0
    for token in range(len(cursor)):
        count = cursor[token]
        cursor[token] = total
        total += count
    for at in range(len(text)):
        positions[cursor[text[at]]] = at
        cursor[text[at]] += 1


@kernel
def count_followers(text: Any, positions: I32, starts: Ids, followers: Ids, tokens: I32, counts: I32) -> int:
    """The followers of each context, whose positions are positions[starts[h]:starts[h + 1]] in the order of
    their token. Returns how many entries were written.
    """
    entries = 0
    for context in range(len(starts) - 1):
        followers[context] = entries
        last = np.int64(NONE)
        for at in range(starts[context], starts[context + 1]):
            token = np.int64(text[positions[at]])
            if token != last:
                tokens[entries] = token
                counts[entries] = 0
                entries += 1
                last = token
            counts[entries - 1] += 1
    followers[len(starts) - 1] = entries
    return entries


@kernel
def ascending(values: I32, size: int) -> None:
    """Sort the first ``size`` values: Shell's method with Knuth's gaps."""
    gap = 1
    while gap < size:
        gap = 3 * gap + 1
    while gap > 0:
        for right in range(gap, size):
            value = values[right]
            at = right
            while at >= gap and values[at - gap] > value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value
        gap //= 3


@kernel
def lengthen(
    text: Any,
    reach: NDArray[np.uint8],
    length: int,
    positions: I32,
    starts: Ids,
    cursor: Ids,
    met: I32,
    longer_positions: I32,
    longer_starts: Ids,
    older: I32,
    children: Ids,
) -> int:
    """Split contexts of ``length`` - 1 by one older token. Positions with fewer tokens before them are left
    out, the others keep their order within a context. ``cursor`` [V] is 0 before and after. Returns how many
    contexts there are now.
    """
    contexts = 0
    filled = 0
    for context in range(len(starts) - 1):
        children[context] = contexts
        kinds = 0
        for at in range(starts[context], starts[context + 1]):
            position = positions[at]
            if reach[position] >= length:
                token = text[position - length]
                if cursor[token] == 0:
                    met[kinds] = token
                    kinds += 1
                cursor[token] += 1
        ascending(met, kinds)
        for kind in range(kinds):
            count = cursor[met[kind]]
            cursor[met[kind]] = filled
            older[contexts + kind] = met[kind]
            longer_starts[contexts + kind] = filled
            filled += count
        for at in range(starts[context], starts[context + 1]):
            position = positions[at]
            if reach[position] >= length:
                token = text[position - length]
                longer_positions[cursor[token]] = position
                cursor[token] += 1
        for kind in range(kinds):
            cursor[met[kind]] = 0
        contexts += kinds
    children[len(starts) - 1] = contexts
    longer_starts[contexts] = filled
    return contexts


@kernel
def witten_bell(followers: Ids, counts: I32, total: Ids, backoff: Floats) -> None:
    """total = c(h) + T(h) and backoff = T(h) / total, T(h) the number of distinct followers of h."""
    for context in range(len(total)):
        first, end = followers[context], followers[context + 1]
        seen = end - first
        for entry in range(first, end):
            seen += counts[entry]
        total[context] = seen
        backoff[context] = (end - first) / seen
