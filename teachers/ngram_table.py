"""Counts of n-grams in sorted arrays, and the smoothing formulae that turn them into weights.

Contexts form a tree that is read backwards: a context of length c is its suffix of length c - 1 (the parent)
and one older token, so its key `parent * vocab + token` fits into an int64 for any order. Sequences do not
flow into each other. This file knows neither text nor proposals, and it looks nothing up: teachers/ngram.py
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

SMOOTHINGS = ("witten-bell", "kneser-ney", "modified-kneser-ney")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Level(NamedTuple):
    """All contexts of one length c and what followed them.

    keys i64 [n], ascending: parent * vocab + older token; a context's id is its index here ([0] at c = 0).
    offsets i64 [n + 1]: the followers of context h are tokens[offsets[h]:offsets[h + 1]], ascending, at least
    one. tokens, counts i64 [m]: follower and how often it was seen.
    """

    keys: Ints
    offsets: Ints
    tokens: Ints
    counts: Ints

    def context_of_entry(self) -> Ints:
        """[m] the context id of each follower entry."""
        return np.repeat(np.arange(len(self.keys), dtype=np.int64), np.diff(self.offsets))


class Weights(NamedTuple):
    """P(w | h) = seen[entry of (h, w), else 0] + backoff[h] * P(w | h without its oldest token)."""

    seen: Floats
    backoff: Floats


def count_levels(sequences: Sequence[Sequence[int]], order: int, vocab_size: int) -> list[Level]:
    """Levels 0 .. order - 1. Raises InputError for no tokens at all, or a token outside [0, vocab_size)."""
    rows = [np.asarray(row, dtype=np.int64) for row in sequences]
    flat = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    if flat.size == 0:
        raise InputError("an n-gram teacher needs at least one token to count: the sequences are empty")
    if flat.min() < 0 or flat.max() >= vocab_size:
        worst = int(flat.min()) if flat.min() < 0 else int(flat.max())
        raise InputError(
            f"token {worst} is outside the vocabulary of {vocab_size}: give the tokenizer's full size"
        )
    place = np.concatenate([np.arange(len(row)) for row in rows])
    context = np.zeros(flat.size, dtype=np.int64)  # id of the context of length c before each position
    alive = np.arange(flat.size)  # positions with at least c tokens before them
    levels: list[Level] = []
    for length in range(order):
        keys = np.zeros(1, dtype=np.int64)
        if length > 0:
            alive = alive[place[alive] >= length]
            keys, ids = np.unique(context[alive] * vocab_size + flat[alive - length], return_inverse=True)
            context[alive] = ids
        pairs, counts = np.unique(context[alive] * vocab_size + flat[alive], return_counts=True)
        offsets = np.searchsorted(pairs // vocab_size, np.arange(len(keys) + 1))
        levels.append(Level(keys, offsets.astype(np.int64), pairs % vocab_size, counts.astype(np.int64)))
    return levels


def smooth(levels: Sequence[Level], vocab_size: int, smoothing: str) -> list[Weights]:
    """Weights of each level under one of SMOOTHINGS; below level 0 lies the uniform 1 / vocab_size."""
    if smoothing not in SMOOTHINGS:
        raise InputError(f"smoothing is {smoothing!r}: choose one of {', '.join(SMOOTHINGS)}")
    if smoothing == "witten-bell":
        return [_witten_bell(level) for level in levels]
    used = [_continuation_counts(levels[c], levels[c + 1], vocab_size) for c in range(len(levels) - 1)]
    used.append(levels[-1].counts)
    modified = smoothing == "modified-kneser-ney"
    return [_kneser_ney(level, counts, modified) for level, counts in zip(levels, used, strict=True)]


def consistent(levels: Sequence[Level], vocab_size: int) -> bool:
    """Whether every index points where it should: a damaged file must not become a wrong answer."""
    if not levels or len(levels[0].keys) != 1:
        return False
    for depth, level in enumerate(levels):
        keys, offsets, tokens, counts = level
        if len(offsets) != len(keys) + 1 or len(tokens) != len(counts) or offsets[0] != 0:
            return False
        if offsets[-1] != len(tokens) or (np.diff(offsets) < 1).any() or (counts < 1).any():
            return False
        contexts = len(levels[depth - 1].keys) * vocab_size if depth else 1
        if (np.diff(keys) < 1).any() or not _inside(keys, contexts) or not _inside(tokens, vocab_size):
            return False
        if (np.diff(_pairs(level, vocab_size)) < 1).any():
            return False
        if depth and not np.isin(_suffixes(level, vocab_size), _pairs(levels[depth - 1], vocab_size)).all():
            return False
    return True


def _inside(values: Ints, limit: int) -> bool:
    return bool(((values >= 0) & (values < limit)).all())


def _pairs(level: Level, vocab_size: int) -> Ints:
    """[m] one ascending key per (context, follower)."""
    return level.context_of_entry() * vocab_size + level.tokens


def _suffixes(longer: Level, vocab_size: int) -> Ints:
    """[m] the key its (context, follower) has one level below, where the oldest token is forgotten."""
    return (longer.keys // vocab_size)[longer.context_of_entry()] * vocab_size + longer.tokens


def _witten_bell(level: Level) -> Weights:
    """P = (c(h w) + T(h) P_lower) / (c(h) + T(h)), T(h) the number of distinct followers of h.

    Witten & Bell 1991, method C, in the interpolated form of Chen & Goodman 1999.
    """
    context = level.context_of_entry()
    kinds = np.diff(level.offsets).astype(np.float64)
    total = np.bincount(context, weights=level.counts, minlength=len(level.keys)) + kinds
    return Weights(level.counts / total[context], kinds / total)


def _continuation_counts(level: Level, longer: Level, vocab_size: int) -> Ints:
    """[m] distinct tokens seen before each (h, w); the start of a sequence counts as one more such token."""
    pairs = _pairs(level, vocab_size)
    entry = np.searchsorted(pairs, _suffixes(longer, vocab_size))
    distinct = np.bincount(entry, minlength=len(pairs))
    preceded = np.bincount(entry, weights=longer.counts, minlength=len(pairs))
    return (distinct + (level.counts > preceded)).astype(np.int64)


def _kneser_ney(level: Level, counts: Ints, modified: bool) -> Weights:
    """P = (max(c - D(c), 0) + sum of the discounts of h * P_lower) / c(h).

    Interpolated Kneser-Ney; `counts` are raw at the highest order and continuation counts below. One D per
    level, or three for c = 1, 2, 3 and more when modified: Chen & Goodman 1999.
    """
    context = level.context_of_entry()
    discount = _discounts(counts, modified)[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=len(level.keys))
    freed = np.bincount(context, weights=discount, minlength=len(level.keys))
    return Weights((counts - discount) / total[context], freed / total)


def _discounts(counts: Ints, modified: bool) -> Floats:
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
