"""Accuracy at equal cost: each method's curve through its settings, compared by a paired bootstrap.

Numbers in, numbers out: it plays nothing and prints nothing. A curve is straight between neighbouring
settings over the logarithm of the cost, and nothing is said outside of what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokenzero.bench_outcomes import Outcomes, budget_of
from tokenzero.compare_statistics import Interval
from tokenzero.selfplay.evaluation import wilson

RESAMPLES = 2_000
MULTIPLES = (2, 4, 8, 16)
"""Budgets of the tables, in costs of greedy decoding."""

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]
Cost = Literal["tokens", "shared", "seconds"]


@dataclass(frozen=True)
class Draws:
    """How often each seed and each problem counts: ``seeds`` [B + 1, S], ``problems`` [B + 1, P]. Row 0 is
    what was measured, the others are resamples.
    """

    seeds: Floats
    problems: Floats

    def means(self, values: npt.NDArray[Any]) -> Floats:
        """Means [B + 1, R] of ``values`` [R, S, P], or [R, S] that no problem can be told apart in."""
        settings, seeds = values.shape[:2]
        if values.ndim == 2:
            return np.asarray(self.seeds @ values.T / seeds, np.float64)
        count = values.shape[2]
        of_seeds = values.reshape(-1, count).astype(np.float64) @ self.problems.T
        summed = np.einsum("rsb,bs->br", of_seeds.reshape(settings, seeds, -1), self.seeds)
        return np.asarray(summed / (seeds * count), np.float64)


def draw(seeds: int, problems: int, resamples: int = RESAMPLES, seed: int = 1) -> Draws:
    """Resample seeds and problems, both with replacement (Owen 2007, the pigeonhole bootstrap)."""
    rng = np.random.default_rng(seed)

    def counts(of: int) -> Floats:
        drawn = rng.multinomial(of, np.full(of, 1 / of), size=resamples)
        return np.concatenate([np.ones((1, of)), drawn])

    return Draws(counts(seeds), counts(problems))


@dataclass(frozen=True)
class Curves:
    """R settings in each of B + 1 draws: ``cost`` of a problem and ``accuracy``, both [B + 1, R]. ``unit`` is
    greedy's measured cost, None where greedy was not played.
    """

    methods: list[str]
    cost: Floats
    accuracy: Floats
    unit: float | None

    def of(self, method: str) -> tuple[Floats, Floats]:
        """The cost in each draw, rising, and the accuracy there, both [B + 1, settings of ``method``]."""
        own = [r for r, name in enumerate(self.methods) if name == method]
        cost, accuracy = self.cost[:, own], self.accuracy[:, own]
        order = cost.argsort(axis=1, kind="stable")
        return np.take_along_axis(cost, order, axis=1), np.take_along_axis(accuracy, order, axis=1)

    def at(self, method: str, cost: float) -> Floats | None:
        """The accuracy [B + 1] of ``method`` at a cost; None where its settings do not enclose that cost. A
        resample in which they just miss it takes the nearest one's.
        """
        costs, accuracies = self.of(method)
        if not costs.shape[1] or not costs[0, 0] <= cost <= costs[0, -1]:
            return None
        return along(np.log(costs), accuracies, float(np.log(cost)))

    def reaching(self, method: str, accuracy: Floats) -> Floats:
        """The cost [B + 1] at which ``method`` first reaches ``accuracy`` [B + 1]; inf where it never does.

        What the first setting has reached is reached there: the curve cannot say less.
        """
        costs, accuracies = self.of(method)
        if not costs.shape[1]:
            return np.full(len(accuracy), np.inf)
        return np.exp(first_crossing(np.log(costs), accuracies, accuracy))


def along(x: Floats, y: Floats, at: float) -> Floats:
    """The height [B] at ``at`` of straight lines through the points ``x`` (rising), ``y`` [B, K]; outside of
    them that of the nearest point.
    """
    after = (x <= at).sum(axis=1)
    left, right = np.maximum(after - 1, 0), np.minimum(after, x.shape[1] - 1)
    rows = np.arange(len(x))
    run = x[rows, right] - x[rows, left]
    share = np.where(run > 0, (at - x[rows, left]) / np.where(run > 0, run, 1.0), 0.0)
    low, high = y[rows, left], y[rows, right]
    return np.asarray(low + share * (high - low), np.float64)


def first_crossing(x: Floats, y: Floats, height: Floats) -> Floats:
    """The x [B] at which straight lines through the points ``x`` (rising), ``y`` [B, K] first reach
    ``height`` [B]; inf where they never do.
    """
    reached = y >= height[:, None]
    right = reached.argmax(axis=1)
    left, rows = np.maximum(right - 1, 0), np.arange(len(x))
    rise = y[rows, right] - y[rows, left]
    share = np.where(rise > 0, (height - y[rows, left]) / np.where(rise > 0, rise, 1.0), 1.0)
    crossing = x[rows, left] + share * (x[rows, right] - x[rows, left])
    return np.where(reached.any(axis=1), np.where(right == 0, x[:, 0], crossing), np.inf)


def curves(outcomes: Outcomes, draws: Draws, cost: Cost) -> Curves:
    """The curves over tokens forwarded, tokens if samples shared what they begin with, or seconds of wall
    time, per problem.

    Problems are played together, so that their seconds cannot be told apart: resampling problems leaves
    them.
    """
    seconds = outcomes.wall_s / len(outcomes.ids)
    costs = {"tokens": outcomes.tokens, "shared": outcomes.shared, "seconds": seconds}[cost]
    methods = [setting.method for setting in outcomes.settings]
    means = draws.means(costs)
    unit = float(means[0, methods.index("greedy")]) if "greedy" in methods else None
    return Curves(methods, means, draws.means(outcomes.solved), unit)


def equal_cost(found: Curves, against: str) -> list[Row]:
    """Each method at each of ``MULTIPLES`` of greedy's cost: ``method``, ``times``, ``cost``, ``accuracy``,
    its ``difference`` from ``against``'s and ``difference_ci95``; None where settings do not reach so far.
    Methods with one setting have no curve and no rows; without greedy there are none at all.
    """
    if found.unit is None:
        return []
    rows = []
    for method in (name for name in dict.fromkeys(found.methods) if found.methods.count(name) > 1):
        for times in MULTIPLES:
            own, other = (found.at(name, times * found.unit) for name in (method, against))
            rows.append(
                {
                    "method": method,
                    "times": times,
                    "cost": times * found.unit,
                    "accuracy": None if own is None else float(own[0]),
                    **difference(own, None if method == against else other),
                }
            )
    return rows


def difference(own: Floats | None, other: Floats | None) -> Row:
    """``difference`` of two values [B + 1] and ``difference_ci95``; None where one is missing."""
    if own is None or other is None:
        return {"difference": None, "difference_ci95": None}
    apart = own - other
    return {"difference": float(apart[0]), "difference_ci95": list(percentiles(apart[1:]))}


def to_reach(found: Curves, against: str, times: int = MULTIPLES[-1]) -> list[Row]:
    """What each method costs when it reaches the accuracy that ``against`` has at ``times`` greedy's cost:
    ``method``, ``accuracy`` (the one to reach), ``cost``, ``share`` of ``against``'s cost and ``share_ci95``
    (its upper end None where more than a few resamples never get there). No rows where ``against`` was not
    measured so far.
    """
    target = None if found.unit is None else found.at(against, times * found.unit)
    if target is None or found.unit is None:
        return []
    budget = times * found.unit
    rows = []
    for method in dict.fromkeys(found.methods):
        shares = found.reaching(method, target) / budget
        low, high = percentiles(shares[1:])
        reached = bool(np.isfinite(shares[0]))
        rows.append(
            {
                "method": method,
                "accuracy": float(target[0]),
                "cost": float(shares[0] * budget) if reached else None,
                "share": float(shares[0]) if reached else None,
                "share_ci95": [_finite(low), _finite(high)] if reached else None,
            }
        )
    return rows


def pooled(outcomes: Outcomes, draws: Draws) -> list[Row]:
    """One row a setting over all seeds: ``method``, ``simulations``, ``n``, ``accuracy``, ``ci95`` (Wilson's
    for one seed, else the bootstrap's over problems and seeds), ``mean_tokens``, ``p95_tokens``, ``seconds``
    a problem and ``mean_depth``.
    """
    shares = draws.means(outcomes.solved)
    count = len(outcomes.ids)
    rows = []
    for r, setting in enumerate(outcomes.settings):
        single = wilson(int(outcomes.solved[r].sum()), count) if len(outcomes.seeds) == 1 else None
        rows.append(
            {
                **budget_of(setting),
                "accuracy": float(outcomes.solved[r].mean()),
                "ci95": list(single or percentiles(shares[1:, r])),
                "mean_tokens": float(outcomes.tokens[r].mean()),
                "p95_tokens": float(np.percentile(outcomes.tokens[r], 95)),
                "seconds": float(outcomes.wall_s[r].mean()) / count,
                "mean_depth": float(outcomes.depth[r].mean()),
            }
        )
    return rows


def percentiles(values: Floats) -> Interval:
    """The 95 % percentile interval, its ends values that occur, so that infinite ones do no harm."""
    ordered = np.sort(values)
    last = len(ordered) - 1
    return float(ordered[round(0.025 * last)]), float(ordered[round(0.975 * last)])


def tokens_to_reach(rows: Sequence[Row], accuracy: float) -> float | None:
    """Forwarded tokens at which the curve of best-of-N reaches ``accuracy``; None if it never does. ``rows``
    have ``method``, ``mean_tokens`` and ``accuracy``.
    """
    curve = sorted((row["mean_tokens"], row["accuracy"]) for row in rows if row["method"] == "best-of-n")
    if not curve:
        return None
    points = np.asarray(curve, np.float64)[None]
    return _finite(
        float(np.exp(first_crossing(np.log(points[..., 0]), points[..., 1], np.asarray([accuracy]))[0]))
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
