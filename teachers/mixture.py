"""The prior at a node when teachers are heard: a weighted sum of top-k lists, with who proposed what.

prior = (1 - beta) * student + beta * sum_i w_i * teacher_i over the union of their candidates, the best k
kept and renormalised. It does not choose the weights or beta and decides nothing about who is consulted
where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, checked_k

_LAST = np.iinfo(np.int64).max  # stands for a pad while sorting, so that pads come last


class Mixture(NamedTuple):
    """actions i64 [L, k] best first (-1 pads at the end); logits f32 [L, k], log of the prior (-inf at pads);
    responsibility f32 [L, k, 1 + n], each proposer's share of a candidate's mass: column 0 the student, 1 + i
    teacher i, rows sum to 1, pads all 0.
    """

    actions: NDArray[np.int64]
    logits: NDArray[np.float32]
    responsibility: NDArray[np.float32]


class _Lists(NamedTuple):
    """One proposer's candidates, weighted: actions i64 [L, k_i], mass f64 [L, k_i] (0 at pads)."""

    actions: NDArray[np.int64]
    mass: NDArray[np.float64]


def mix(
    student_actions: NDArray[np.int64],
    student_probs: NDArray[np.float32],
    proposals: Sequence[Proposal],
    weights: ArrayLike,
    beta: float,
    k: int,
) -> Mixture:
    """Mix a student's candidates [L, K] with those of n teachers (each [L, k_i]) into k per row.

    Student rows are sorted descending with -1 pads last, like a Proposal. weights: f64 [n], or [L, n] for
    weights by row, non-negative; only their ratios count, they are brought to sum 1. A row in which a teacher
    has only pads (it was not asked) is the mixture of the others; a row in which no teacher speaks is the
    student's, at beta = 1 too. Ties go to the lowest action; candidates of mass 0 become pads.

    beta = 0, no teachers or weights that are all 0 return the student's first k candidates in their order,
    logits log(student_probs) bit for bit, not renormalised. Raises InputError for shapes that do not fit,
    beta outside [0, 1], or bad weights.
    """
    shares = _checked_weights(weights, len(student_actions), len(proposals))
    _check_shapes(student_actions, student_probs, proposals)
    if not 0.0 <= beta <= 1.0:
        raise InputError(f"teacher share beta is {beta}: it must lie in [0, 1]")
    checked_k(k)
    if beta == 0.0 or not shares.any():
        return _student_alone(student_actions, student_probs, len(proposals), k)
    heard = [
        _weighted(p.actions, p.probs, beta * w[:, None]) for p, w in zip(proposals, shares.T, strict=True)
    ]
    silent = sum((one.mass.sum(axis=1) for one in heard), np.zeros(len(student_actions))) == 0
    own_share = np.where(silent, 1.0, 1.0 - beta)[
        :, None
    ]  # at beta = 1 a row nobody was asked about stays alive
    lists = [_weighted(student_actions, student_probs, own_share), *heard]
    actions, mass = _best_of_union(lists, k)
    real = actions >= 0
    total = mass.sum(axis=1, keepdims=True)
    prior = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)
    logits = np.log(prior, out=np.full_like(prior, -np.inf), where=real)
    return Mixture(actions, logits.astype(np.float32), _responsibility(actions, lists))


def _weighted(actions: NDArray[np.int64], probs: NDArray[np.float32], weight: ArrayLike) -> _Lists:
    mass = np.where(actions >= 0, probs, 0.0).astype(np.float64) * np.asarray(weight, dtype=np.float64)
    return _Lists(np.asarray(actions, dtype=np.int64), mass)


def _best_of_union(lists: Sequence[_Lists], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Top k of the summed masses: (actions i64 [L, k], mass f64 [L, k]), ties to the lowest action."""
    actions = np.concatenate([one.actions for one in lists], axis=1)
    mass = np.concatenate([one.mass for one in lists], axis=1)
    rows, width = actions.shape
    actions = np.where(mass > 0, actions, _LAST)
    order = np.argsort(actions, axis=1, kind="stable")  # stable: masses add up in the order of the lists
    actions = np.take_along_axis(actions, order, axis=1)
    mass = np.take_along_axis(mass, order, axis=1)
    # Runs of one action become one segment; its first column holds the action, its number the summed mass.
    starts = np.ones((rows, width), dtype=bool)
    starts[:, 1:] = actions[:, 1:] != actions[:, :-1]
    segment = np.cumsum(starts, axis=1) - 1 + np.arange(rows)[:, None] * width
    summed = np.bincount(segment.ravel(), weights=mass.ravel(), minlength=rows * width).reshape(rows, width)
    union = np.full(rows * width, _LAST, dtype=np.int64)
    union[segment[starts]] = actions[starts]
    union = union.reshape(rows, width)
    # Segments ascend by action, so the stable sort gives ties to the lowest.
    best = np.argsort(-summed, axis=1, kind="stable")[:, :k]
    out_actions = np.full((rows, k), -1, dtype=np.int64)
    out_mass = np.zeros((rows, k), dtype=np.float64)
    chosen = np.take_along_axis(union, best, axis=1)
    out_actions[:, : chosen.shape[1]] = np.where(chosen == _LAST, -1, chosen)
    out_mass[:, : chosen.shape[1]] = np.take_along_axis(summed, best, axis=1)
    return out_actions, out_mass


def _responsibility(actions: NDArray[np.int64], lists: Sequence[_Lists]) -> NDArray[np.float32]:
    """Shares [L, k, len(lists)] of each kept candidate's mass; loops over proposers only."""
    shares = np.zeros((*actions.shape, len(lists)), dtype=np.float64)
    for column, one in enumerate(lists):
        same = actions[:, :, None] == one.actions[:, None, :]  # pads match pads, whose mass is 0
        shares[:, :, column] = np.where(same, one.mass[:, None, :], 0.0).sum(axis=2)
    total = shares.sum(axis=2, keepdims=True)
    parts: NDArray[np.float64] = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    return parts.astype(np.float32)


def _student_alone(
    student_actions: NDArray[np.int64], student_probs: NDArray[np.float32], teachers: int, k: int
) -> Mixture:
    rows, width = student_actions.shape
    kept = min(k, width)
    actions = np.full((rows, k), -1, dtype=np.int64)
    actions[:, :kept] = student_actions[:, :kept]
    probs = np.zeros((rows, k), dtype=np.float32)
    probs[:, :kept] = student_probs[:, :kept]
    real = (actions >= 0) & (probs > 0)
    logits = np.log(probs, out=np.full_like(probs, -np.inf), where=real)
    responsibility = np.zeros((rows, k, 1 + teachers), dtype=np.float32)
    responsibility[:, :, 0] = actions >= 0
    return Mixture(actions, logits, responsibility)


def _checked_weights(weights: ArrayLike, rows: int, teachers: int) -> NDArray[np.float64]:
    """The weights of each row, f64 [L, n], sum 1 or all 0."""
    array = np.asarray(weights, dtype=np.float64)
    if array.shape not in ((teachers,), (rows, teachers)):
        raise InputError(f"{teachers} teachers need {teachers} weights, got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InputError(f"teacher weights {array.tolist()} must be finite and not negative")
    array = np.broadcast_to(array, (rows, teachers))
    total = array.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(array, total, out=np.zeros((rows, teachers)), where=total > 0)
    return shares


def _check_shapes(
    student_actions: NDArray[np.int64], student_probs: NDArray[np.float32], proposals: Sequence[Proposal]
) -> None:
    if student_actions.ndim != 2 or student_actions.shape != student_probs.shape:
        raise InputError(
            f"student candidates {student_actions.shape} and {student_probs.shape} must be one [L, K]"
        )
    for index, proposal in enumerate(proposals):
        shape = proposal.actions.shape
        if len(shape) != 2 or shape != proposal.probs.shape or shape[0] != student_actions.shape[0]:
            raise InputError(
                f"proposal {index} has shape {shape}, the student has {student_actions.shape[0]} rows"
            )
