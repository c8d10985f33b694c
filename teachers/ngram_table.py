"""Counts of n-grams as one tree of contexts, and the smoothing formulae that turn them into weights.

Contexts are read backwards: the parent of a context of length c is its suffix of length c - 1. Sequences do
not flow into each other. This file knows neither proposals nor files, and looks nothing up: see
`ngram_kernels.Table` for the arrays, teachers/ngram.py for their use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.ngram_counting import (
    count_followers,
    lengthen,
    order_by_token,
    reach_of,
    witten_bell,
)
from tokenzero.teachers.ngram_kernels import I32, Floats, Ids, Table

SMOOTHINGS = ("witten-bell", "kneser-ney", "modified-kneser-ney")
TEXT_TYPES = (np.uint16, np.uint32, np.int32, np.int64)
_MOST_TOKENS = 2**31 - 1

Text = NDArray[Any]


class _Level(NamedTuple):
    """Contexts of one length, numbered from 0, with raw counts; children are numbered likewise."""

    older: I32
    children: Ids
    followers: Ids
    tokens: I32
    counts: I32


def build_table(sequences: Sequence[Any], order: int, vocab_size: int, smoothing: str) -> Table:
    """Count and smooth. A single array of one of TEXT_TYPES, memory-mapped or not, is read where it lies.

    Raises InputError for no tokens at all or 2^31 of them, a token outside [0, vocab_size), or an unknown
    smoothing.
    """
    if smoothing not in SMOOTHINGS:
        raise InputError(f"smoothing is {smoothing!r}: choose one of {', '.join(SMOOTHINGS)}")
    text, lengths = _joined(sequences, vocab_size)
    levels = _count(text, lengths, order, vocab_size)
    contexts = sum(len(level.older) for level in levels)
    counts = [level.counts for level in levels]
    discounts = np.zeros((order, 4))
    total = np.empty(contexts, np.int64)
    backoff = np.empty(contexts, np.float64)
    older = np.concatenate([level.older for level in levels])
    tokens = np.concatenate([level.tokens for level in levels])
    followers = _offsets([level.followers for level in levels], 0)
    children = _offsets([level.children for level in levels], 1)
    if smoothing == "witten-bell":
        used = np.concatenate(counts)
        witten_bell(followers, used, total, backoff)
    else:
        firsts = np.cumsum([0, *(len(level.older) for level in levels)])
        for length, level in enumerate(levels):
            if length + 1 < order:
                counts[length] = _continuation_counts(level, levels[length + 1], vocab_size)
            discounts[length] = _discounts(counts[length], smoothing == "modified-kneser-ney")
            part = slice(firsts[length], firsts[length + 1])
            total[part], backoff[part] = _kneser_ney(level, counts[length], discounts[length])
        used = np.concatenate(counts)
    return frozen(Table(older, children, followers, tokens, used, total, backoff, discounts))


def frozen(table: Table) -> Table:
    """The same table, read-only as one from a file is, so that kernels are compiled once for both."""
    for array in table:
        array.flags.writeable = False
    return table


def _joined(sequences: Sequence[Any], vocab_size: int) -> tuple[Text, Ids]:
    """All tokens in one array and the length of each sequence."""
    rows = [row if isinstance(row, np.ndarray) else np.asarray(row, dtype=np.int64) for row in sequences]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    rows = [row for row in rows if len(row) > 0]
    if not rows:
        raise InputError("an n-gram teacher needs at least one token to count: the sequences are empty")
    if lengths.sum() > _MOST_TOKENS:
        raise InputError(f"an n-gram table counts at most {_MOST_TOKENS} tokens; give a part of the text")
    for row in rows:
        least, most = int(row.min()), int(row.max())
        if least < 0 or most >= vocab_size:
            raise InputError(
                f"token {least if least < 0 else most} is outside the vocabulary of {vocab_size}: "
                "give the tokenizer's full size"
            )
    if len(rows) == 1 and rows[0].dtype in TEXT_TYPES and rows[0].flags.c_contiguous:
        text = rows[0].view(np.ndarray)  # a view, so that a memory map stays where it is
    else:
        text = np.concatenate([row.astype(np.int32) for row in rows])
    text.flags.writeable = False
    return text, lengths


def _count(text: Text, lengths: Ids, order: int, vocab_size: int) -> list[_Level]:
    reach = np.empty(len(text), np.uint8)
    reach_of(lengths, order - 1, reach)
    cursor = np.zeros(vocab_size, np.int64)
    positions = np.empty(len(text), np.int32)
    order_by_token(text, cursor, positions)
    cursor[:] = 0
    met = np.empty(vocab_size, np.int32)
    starts = np.array([0, len(text)], dtype=np.int64)
    older = np.array([-1], dtype=np.int32)
    levels: list[_Level] = []
    for length in range(1, order + 1):
        followers = np.empty(len(starts), np.int64)
        # The most there can be; the memory behind what is never written is never taken.
        tokens, counts = np.empty(len(positions), np.int32), np.empty(len(positions), np.int32)
        entries = count_followers(text, positions, starts, followers, tokens, counts)
        tokens, counts = tokens[:entries].copy(), counts[:entries].copy()
        children = np.zeros(len(starts), np.int64)
        levels.append(_Level(older, children, followers, tokens, counts))
        if length == order:
            break
        longer = np.empty(len(positions), np.int32)
        bounds, older = np.empty(len(positions) + 1, np.int64), np.empty(len(positions), np.int32)
        contexts = lengthen(
            text, reach, length, positions, starts, cursor, met, longer, bounds, older, children
        )
        starts, older = bounds[: contexts + 1].copy(), older[:contexts].copy()
        positions = longer[: starts[-1]]
    return levels


def _offsets(levels: Sequence[Ids], first: int) -> Ids:
    """One ascending array [n + 1] of those of the levels, which begin at 0 each; it begins at ``first``."""
    parts = []
    for level in levels:
        parts.append(level[:-1] + first)
        first += int(level[-1])
    return np.concatenate([*parts, [first]])


def _context_of_entry(level: _Level) -> Ids:
    """[m] the context each follower entry belongs to."""
    return np.repeat(np.arange(len(level.older)), np.diff(level.followers))


def _pairs(level: _Level, vocab_size: int) -> Ids:
    """[m] one ascending key per (context, follower)."""
    return _context_of_entry(level) * vocab_size + level.tokens


def _continuation_counts(level: _Level, longer: _Level, vocab_size: int) -> I32:
    """[m] distinct tokens seen before each (h, w); the start of a sequence counts as one more such token."""
    parent = np.repeat(np.arange(len(level.older)), np.diff(level.children))
    suffixes = parent[_context_of_entry(longer)] * vocab_size + longer.tokens
    entry = np.searchsorted(_pairs(level, vocab_size), suffixes)
    distinct = np.bincount(entry, minlength=len(level.tokens))
    preceded = np.bincount(entry, weights=longer.counts, minlength=len(level.tokens))
    return (distinct + (level.counts > preceded)).astype(np.int32)


def _kneser_ney(level: _Level, counts: I32, discounts: Floats) -> tuple[Ids, Floats]:
    """Total c(h) and back-off (sum of the discounts of h) / c(h), both [n], of
    P = (max(c - D(c), 0) + sum of the discounts of h * P_lower) / c(h).

    Interpolated Kneser-Ney; `counts` are raw at the highest order and continuation counts below. One D per
    level, or three for c = 1, 2, 3 and more when modified: Chen & Goodman 1999.
    """
    context, size = _context_of_entry(level), len(level.older)
    total = np.bincount(context, weights=counts, minlength=size)
    freed = np.bincount(context, weights=discounts[np.minimum(counts, 3)], minlength=size)
    return total.astype(np.int64), freed / total


def _discounts(counts: I32, modified: bool) -> Floats:
    """D by min(count, 3), entry 0 unused; 0.5 (modified: 0.5, 1, 1.5) where the sample gives none."""
    n1, n2, n3, n4 = (float((counts == times).sum()) for times in (1, 2, 3, 4))
    if n1 == 0 or n2 == 0:
        return np.array([0.0, 0.5, 1.0, 1.5]) if modified else np.array([0.0, 0.5, 0.5, 0.5])
    single = n1 / (n1 + 2 * n2)
    if not modified:
        return np.array([0.0, single, single, single])
    found = [0.0, 1 - 2 * single * n2 / n1, 2 - 3 * single * n3 / n2]
    found.append(3 - 4 * single * n4 / n3 if n3 > 0 else 1.5)
    fallback = (0.0, 0.5, 1.0, 1.5)
    # Small samples can give a discount outside (0, c); the mass seen or freed would be negative then.
    usable = [f if 0 < f < times else fallback[times] for times, f in enumerate(found)]
    return np.array(usable)
