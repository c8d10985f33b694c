"""The statistics of an audit: slopes, repetition, and trends over rounds with their certainty.

Numbers in, numbers out: it reads no episodes and sets no thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """``mean`` of ``count`` numbers and their standard ``deviation`` (n - 1; 0 of a single one)."""

    mean: float
    deviation: float
    count: int


class Trend(NamedTuple):
    """By how much something changed from the first round to the last, and that in standard errors
    (``surprise``, signed; infinite where numbers differ between rounds and never within one).
    """

    change: float
    surprise: float


def mean_of(values: npt.ArrayLike) -> Mean | None:
    """The mean of ``values`` [N]; None where there are none."""
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        return None
    deviation = float(numbers.std(ddof=1)) if numbers.size > 1 else 0.0
    return Mean(float(numbers.mean()), deviation, int(numbers.size))


def slope(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Least-squares slope of ``y`` over ``x``, both [N]; None where ``x`` is constant."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not a.size:
        return None
    a = a - a.mean()
    spread = float(a @ a)
    return float(a @ (b - b.mean())) / spread if spread > 0 else None


def trend(rounds: Sequence[float], means: Sequence[Mean]) -> Trend | None:
    """The line through all numbers behind ``means``, over the ``rounds`` they belong to; None for fewer than
    two rounds.

    Its slope is that of least squares over the numbers themselves; its standard error takes their variance
    to be the same in every round, which the spread within rounds tells. Answers are counted as if each were
    independent of the others.
    """
    if len(rounds) < 2:
        return None
    x = np.asarray(rounds, np.float64)
    mean = np.asarray([one.mean for one in means])
    deviation = np.asarray([one.deviation for one in means])
    count = np.asarray([one.count for one in means], np.float64)
    x = x - np.average(x, weights=count)
    spread = float(count @ x**2)
    steepness = float((count * x) @ (mean - np.average(mean, weights=count))) / spread
    free = float((count - 1.0).sum())
    variance = float((count - 1.0) @ deviation**2) / free if free > 0 else math.inf
    change = steepness * float(x[-1] - x[0])
    if variance > 0:
        return Trend(change, steepness / math.sqrt(variance / spread))
    return Trend(change, math.copysign(math.inf, change) if change else 0.0)


def repeated_share(tokens: Sequence[Hashable], size: int = 3) -> float:
    """Share of the runs of ``size`` tokens that came before in the same answer, in [0, 1); 0 where the
    answer is too short to have two.
    """
    runs = [tuple(tokens[first : first + size]) for first in range(len(tokens) - size + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
