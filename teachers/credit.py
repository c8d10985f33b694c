"""What teachers' proposals led to.

Credit goes to every edge of a searched tree that a proposal opened, by responsibility (the share of an
action's prior that came from a teacher), and fades with the distance from the end of the play-out by
``trace`` per action, so the last action never takes it all and the first is never forgotten. With
responsibility r and outcome z in [-1, 1] of a play-out that ends d actions below an edge,

    worth of teacher i = sum(trace**d * r_i * z) / sum(trace**d * r_i)

Actions are drawn from the mixture, and r_i is the teacher's weighted share of it, so this is the
self-normalised importance-sampling estimate of the outcome had the teacher alone proposed; its weight
cancels. Eligibility traces: Sutton and Barto, 2nd edition, chapter 12. It keeps sums; scores are kept by
``weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tokenzero.teachers.weights import GLOBAL, Credit

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass
class Sums:
    """Of one context: of n teachers f64 [n] what they ``earned``, what they were ``eligible`` for, and
    ``asked``, the states they spoke on; ``all_earned`` and ``all_eligible`` of the whole mixture."""

    earned: F64
    eligible: F64
    asked: F64
    all_earned: float = 0.0
    all_eligible: float = 0.0


@dataclass
class CreditLedger:
    """Sums over a round, by context, for ``teachers`` teachers."""

    teachers: int
    sums: dict[str, Sums] = field(default_factory=dict)

    def add(
        self,
        contexts: Sequence[str],
        responsibility: F32,
        weights: F64,
        eligible: NDArray[np.floating],
        earned: F64,
    ) -> None:
        """Credit M states: ``contexts`` of each, ``responsibility`` f32 [M, K, 1 + n] of its K actions, the
        teachers' ``weights`` f64 [M, n] there, what each action was ``eligible`` for and ``earned``, f64 [M,
        K].
        """
        if not len(contexts):
            return
        shares = responsibility[:, :, 1:] / weights[:, None, :]
        mine = np.einsum("mkp,mk->mp", shares, eligible, dtype=np.float64)
        won = np.einsum("mkp,mk->mp", shares, earned, dtype=np.float64)
        spoke: NDArray[np.bool_] = np.asarray((shares > 0).any(axis=1))
        for context in dict.fromkeys([GLOBAL, *contexts]):
            rows = [row for row, name in enumerate(contexts) if context in (name, GLOBAL)]
            kept = self.sums.setdefault(context, Sums(*np.zeros((3, self.teachers))))
            kept.earned += won[rows].sum(axis=0)
            kept.eligible += mine[rows].sum(axis=0)
            kept.asked += spoke[rows].sum(axis=0)
            kept.all_earned += float(earned[rows].sum())
            kept.all_eligible += float(eligible[rows].sum())

    def credits(self) -> dict[str, Credit]:
        """By context; none where nothing was credited."""
        found = {}
        for context, kept in sorted(self.sums.items()):
            heard = kept.eligible > 0
            worth = np.divide(kept.earned, kept.eligible, out=np.zeros(self.teachers), where=heard)
            mean = kept.all_earned / kept.all_eligible if kept.all_eligible > 0 else 0.0
            found[context] = Credit(worth, np.where(heard, kept.asked, 0.0), mean)
        return found


def tree_edges(
    parent: Ids,
    slot: Ids,
    depth: Ids,
    ended: F64,
    outcome: F64,
    lost: NDArray[np.bool_],
    trace: float,
) -> tuple[F64, F64]:
    """Eligibility and earnings of every edge of a tree, both f64 [N, K].

    ``parent``, ``slot``, ``depth`` i64 [N], the root first and parents before children; ``ended`` f64 [N]
    play-outs that ended at a node with ``outcome`` f64 [N]; ``lost`` bool [N, K] slots whose child was a lost
    end that has no node.
    """
    eligible, earned = lost.astype(np.float64), -lost.astype(np.float64)
    below, won = ended.astype(np.float64), ended * outcome
    for level in range(int(depth.max(initial=0)), -1, -1):
        nodes = np.flatnonzero(depth == level)
        below[nodes] += trace * eligible[nodes].sum(axis=1)
        won[nodes] += trace * earned[nodes].sum(axis=1)
        nodes = nodes[parent[nodes] >= 0]
        eligible[parent[nodes], slot[nodes]] = below[nodes]
        earned[parent[nodes], slot[nodes]] = won[nodes]
    return eligible, earned


def trace_weights(length: int, trace: float) -> F64:
    """What each action of a path of ``length`` keeps of the credit for its end, f64 [length]."""
    return np.asarray(trace ** np.arange(length - 1, -1, -1, dtype=np.float64))
