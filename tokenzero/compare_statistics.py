"""The statistics of a comparison: Student's t over seeds, a bootstrap over problems and seeds, and where one
curve reaches another's end.

Numbers in, numbers out: it reads no runs and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

RESAMPLES = 10_000
_CHUNK = 500  # resamples drawn together: few enough for their weights to stay small


@dataclass(frozen=True)
class Bootstrapped:
    """95 % percentile intervals of the difference of two mean accuracies and of their ratio (None where the
    reference may be 0).
    """

    difference: Interval
    ratio: Interval | None


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval for the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = t_quantile(len(values) - 1) * math.sqrt(variance / len(values))
    return mean - half, mean + half


def t_quantile(degrees: int, coverage: float = 0.95) -> float:
    """The t with P(-t <= T <= t) = ``coverage`` for ``degrees`` of freedom, found by halving."""
    low, high = 0.0, 1.0
    while t_coverage(high, degrees) < coverage:
        high *= 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if t_coverage(middle, degrees) < coverage:
            low = middle
        else:
            high = middle


def t_coverage(t: float, degrees: int) -> float:
    """P(-t <= T <= t) of Student's distribution: the finite sums for whole degrees of freedom (Abramowitz and
    Stegun 26.7.3 and 26.7.4).
    """
    angle = math.atan2(t, math.sqrt(degrees))
    squared = math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= squared * (k - 1) / k
        total += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def bootstrap(
    arm: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_], resamples: int = RESAMPLES, seed: int = 1
) -> Bootstrapped:
    """Resample seeds and problems, both with replacement and each draw for both arms alike (Owen 2007, the
    pigeonhole bootstrap).

    ``arm`` and ``reference`` are bool [seeds, problems], True where solved, their rows paired. With few seeds
    percentile intervals are too narrow; Student's is the one to quote then.
    """
    seeds, problems = arm.shape
    rng = np.random.default_rng(seed)
    shares = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        of_problems = rng.multinomial(problems, np.full(problems, 1 / problems), size=count)
        shares.append(
            [((of_seeds @ solved) * of_problems).sum(axis=1) / arm.size for solved in (arm, reference)]
        )
    own, other = np.concatenate(shares, axis=1)
    ratio = _percentiles(own / other) if other.min() > 0 else None
    return Bootstrapped(_percentiles(own - other), ratio)


def first_reached(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Tokens at which a curve of (tokens, accuracy) first reaches ``accuracy``, on the straight line between
    its points; None if it never does.

    What the first point has reached is reached there: the curve cannot say less.
    """
    before, below = curve[0]
    for tokens, reached in curve:
        if reached >= accuracy:
            rise = reached - below
            return before + (tokens - before) * (accuracy - below) / rise if rise > 0 else tokens
        before, below = tokens, reached
    return None


def _percentiles(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
