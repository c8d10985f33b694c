"""Elo ratings of a ladder of checkpoints, from the problems on which they disagreed.

The Bradley-Terry model: a scores against b with probability 1 / (1 + 10^((elo_b - elo_a) / 400)), a tie
counting half a win each. Ratings are the maximum a posteriori with a weak normal prior, so that a checkpoint
that lost every pair has a finite rating and two groups that never met have one at all. Ties between
checkpoints are the rule here: that shrinks the scale (three points of accuracy are about ten Elo), and makes
the model's own standard errors too wide, so they are taken from the spread of the results instead (the
sandwich of White, Econometrica 50, 1982).

All pairings of a ladder may use the same problems; the dependence that makes between them is not modelled. It
plays nothing and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError

SCALE = 400.0 / math.log(10.0)
"""Elo per nat of log odds."""
PRIOR_ELO = 400.0
"""Standard deviation of the prior on a rating's distance from the anchor."""
_PRECISION = (SCALE / PRIOR_ELO) ** 2

F64 = npt.NDArray[np.float64]


class Pairing(NamedTuple):
    """Results of ``a`` against ``b`` (rounds): problems that only ``a`` solved, that only ``b`` solved, and
    the others.
    """

    a: int
    b: int
    wins: int
    losses: int
    ties: int


class Rating(NamedTuple):
    """A rating and its standard error relative to the anchor, both in Elo."""

    elo: float
    standard_error: float


def ratings(pairings: Iterable[tuple[int, int, int, int, int]]) -> dict[int, Rating]:
    """Ratings by round, in order of rounds, from `Pairing`s or plain tuples of the same five numbers.

    The lowest round is the anchor: round 0, the warm start, where it takes part. Its rating and its error are
    0. Add to the list and call again as results come in; the order of the list does not matter. Raises
    InputError for negative counts and for a round that met itself.
    """
    met = [Pairing(*pairing) for pairing in pairings]
    for pairing in met:
        if pairing.a == pairing.b:
            raise InputError(f"round {pairing.a} met itself; pair two different rounds")
        if min(pairing[2:]) < 0:
            raise InputError(f"the counts of {tuple(pairing)} must not be negative")
    rounds = sorted({round_index for pairing in met for round_index in pairing[:2]})
    if not rounds:
        return {}
    # One row a pairing, one column a round: +1 for a, -1 for b. The anchor has no column: it stays at 0.
    design = np.zeros((len(met), len(rounds)))
    rows, place = np.arange(len(met)), {round_index: i for i, round_index in enumerate(rounds)}
    design[rows, [place[pairing.a] for pairing in met]] = 1.0
    design[rows, [place[pairing.b] for pairing in met]] = -1.0
    design = design[:, 1:]
    counts = np.asarray([pairing[2:] for pairing in met], np.float64)
    strength = _most_likely(design, counts)
    errors = _standard_errors(design, counts, strength)
    return {
        round_index: Rating(SCALE * nats, SCALE * error)
        for round_index, nats, error in zip(
            rounds, [0.0, *strength.tolist()], [0.0, *errors.tolist()], strict=True
        )
    }


def _most_likely(design: F64, counts: F64) -> F64:
    """Strengths in nats, by Newton's method: the posterior is concave, so halving steps that overshoot is
    enough.
    """
    games, score = counts.sum(1), counts[:, 0] + counts[:, 2] / 2
    strength = np.zeros(design.shape[1])
    value = _log_posterior(design, games, score, strength)
    for _ in range(100):
        slope = design.T @ (score - games * _expected(design @ strength)) - _PRECISION * strength
        step = np.linalg.solve(_curvature(design, games, strength), slope)
        least = value - 1e-12 * (1 + abs(value))  # near the top rounding alone may seem to lead down
        while (value := _log_posterior(design, games, score, strength + step)) < least:
            step = step / 2
        strength = strength + step
        if np.abs(step).max() < 1e-9:
            break
    return strength


def _standard_errors(design: F64, counts: F64, strength: F64) -> F64:
    """H^-1 (K + P) H^-1: K from the variance of the results, with one more win and loss a pairing (as in
    ``Pairs.ci95``), so that pairings without a disagreement are not taken for certain; P the prior's
    precision.
    """
    games = counts.sum(1)
    won, lost = (counts[:, 0] + 1) / (games + 2), (counts[:, 1] + 1) / (games + 2)
    variance = games * (won + lost - (won - lost) ** 2) / 4
    spread = (design.T * variance) @ design + _PRECISION * np.eye(design.shape[1])
    inverse = np.linalg.inv(_curvature(design, games, strength))
    return np.asarray(np.sqrt(np.diag(inverse @ spread @ inverse)))


def _expected(difference: F64) -> F64:
    return 0.5 * (1.0 + np.tanh(difference / 2))


def _log_posterior(design: F64, games: F64, score: F64, strength: F64) -> float:
    difference = design @ strength
    likely = score * -np.logaddexp(0.0, -difference) + (games - score) * -np.logaddexp(0.0, difference)
    return float(likely.sum() - 0.5 * _PRECISION * (strength @ strength))


def _curvature(design: F64, games: F64, strength: F64) -> F64:
    """Minus the second derivative of the log posterior."""
    expected = _expected(design @ strength)
    return (design.T * (games * expected * (1 - expected))) @ design + _PRECISION * np.eye(design.shape[1])
