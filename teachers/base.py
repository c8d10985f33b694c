"""The teacher's contract: sequences in, k candidate next tokens with probabilities out.

A teacher proposes and reports what it spent. It does not know the search, the student or its own weight;
mixing is teachers/mixture.py, weighing and benching are not in this file either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError


class Continuation(NamedTuple):
    """A whole proposed continuation: ``tokens`` in the student's ids, the first one included, and the
    ``probability`` that the teacher gives to all of it. Its first token is among the row's actions, whose
    mass includes it.
    """

    tokens: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class Proposal:
    """What one teacher proposes for L sequences.

    actions: i64 [L, k] distinct token ids per row, best first; -1 pads, always at the end of the row. probs:
    f32 [L, k] in the teacher's own distribution over the whole vocabulary, sorted descending, ties to the
    lowest action; a row sums to 1 or less (up to float32 rounding), pads are 0. tokens: forwarded tokens paid
    for this proposal, for the ledger. continuations: one tuple per row, likeliest first, from teachers that
    think further than one token; empty from those that do not.
    """

    actions: NDArray[np.int64]
    probs: NDArray[np.float32]
    tokens: int
    continuations: tuple[tuple[Continuation, ...], ...] = ()


class Teacher(Protocol):
    """Anything that proposes next tokens. Same sequences, same proposal."""

    @property
    def name(self) -> str:
        """Stable and unique within one ensemble: weights and attribution are kept under it."""

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """Candidates for the token after each of L sequences (prompt and answer so far, may be empty).

        ``prompt_lens`` [L] says how many tokens of each are the prompt, for teachers that treat prompt and
        answer apart; None when nobody knows, which no teacher may refuse.
        """


def silence(rows: int, k: int, tokens: int = 0) -> Proposal:
    """The proposal of a teacher that has nothing to say on ``rows`` rows and forwarded ``tokens``."""
    shape = (rows, checked_k(k))
    return Proposal(np.full(shape, -1, np.int64), np.zeros(shape, np.float32), tokens)


def checked_k(k: int) -> int:
    """k itself; raises InputError below 1."""
    if k < 1:
        raise InputError(f"a teacher was asked for k={k} candidates: ask for 1 or more")
    return k


def from_paths(rows: Sequence[Mapping[tuple[int, ...], float]], k: int, tokens: int) -> Proposal:
    """The proposal of a teacher that thinks in whole continuations: for each row their student tokens (at
    least one) with probabilities. Those that begin alike add up; what begins beyond the best ``k`` is lost.
    """
    proposal = silence(len(rows), k, tokens)
    whole: list[tuple[Continuation, ...]] = []
    for row, paths in enumerate(rows):
        first: dict[int, float] = {}
        for path, mass in paths.items():
            first[path[0]] = first.get(path[0], 0.0) + mass
        ranked = sorted((-float(np.float32(mass)), token) for token, mass in first.items() if mass > 0)[:k]
        for column, (negative, token) in enumerate(ranked):
            proposal.actions[row, column], proposal.probs[row, column] = token, -negative
        kept = {token for _, token in ranked}
        told = [Continuation(path, mass) for path, mass in paths.items() if path[0] in kept and mass > 0]
        whole.append(tuple(sorted(told, key=lambda one: (-one.probability, one.tokens))))
    return Proposal(proposal.actions, proposal.probs, tokens, tuple(whole))


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
