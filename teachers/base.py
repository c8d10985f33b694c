"""The teacher's contract: sequences in, k candidate next tokens with probabilities out.

A teacher proposes and reports what it spent. It does not know the search, the student or its own weight;
mixing is teachers/mixture.py, weighing and benching are not in this file either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError


@dataclass(frozen=True)
class Proposal:
    """What one teacher proposes for L sequences.

    actions: i64 [L, k] distinct token ids per row, best first; -1 pads, always at the end of the row. probs:
    f32 [L, k] in the teacher's own distribution over the whole vocabulary, sorted descending, ties to the
    lowest action; a row sums to 1 or less (up to float32 rounding), pads are 0. tokens: forwarded tokens paid
    for this proposal, for the ledger.
    """

    actions: NDArray[np.int64]
    probs: NDArray[np.float32]
    tokens: int


class Teacher(Protocol):
    """Anything that proposes next tokens. Same sequences, same proposal."""

    @property
    def name(self) -> str:
        """Stable and unique within one ensemble: weights and attribution are kept under it."""

    def propose(self, sequences: Sequence[Sequence[int]], k: int) -> Proposal:
        """Candidates for the token after each of L sequences (prompt and answer so far, may be empty)."""


def checked_k(k: int) -> int:
    """k itself; raises InputError below 1."""
    if k < 1:
        raise InputError(f"a teacher was asked for k={k} candidates: ask for 1 or more")
    return k


def top_k(probs: NDArray[np.floating], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k most probable tokens of each row of probs [L, V]: (actions i64 [L, k], probs f32 [L, k]).

    Sorted descending as float32, ties to the lowest id. Tokens of probability 0 are no candidates: they
    become pads (-1, 0), as do the missing ones when k > V. Time is linear in V, no full sort.
    """
    dense = np.asarray(probs, dtype=np.float32)
    rows, vocab = dense.shape
    actions = np.full((rows, checked_k(k)), -1, dtype=np.int64)
    best = np.zeros((rows, k), dtype=np.float32)
    kept = min(k, vocab)
    if rows == 0 or kept == 0:
        return actions, best
    threshold = np.partition(dense, vocab - kept, axis=1)[:, vocab - kept, None]
    above, level = dense > threshold, dense == threshold
    room = kept - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))
    ids = np.nonzero(chosen)[1].reshape(rows, kept)
    mass = np.take_along_axis(dense, ids, axis=1)
    order = np.argsort(-mass, axis=1, kind="stable")
    mass = np.take_along_axis(mass, order, axis=1)
    actions[:, :kept] = np.where(mass > 0, np.take_along_axis(ids, order, axis=1), -1)
    best[:, :kept] = mass
    return actions, best
