"""Curves, their interpolation and the paired bootstrap, against plain loops and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.bench_curves import (
    Draws,
    along,
    curves,
    draw,
    equal_cost,
    first_crossing,
    percentiles,
    pooled,
    to_reach,
    tokens_to_reach,
)
from tokenzero.bench_outcomes import Outcomes
from tokenzero.bench_settings import Setting
from tokenzero.compare_statistics import first_reached
from tokenzero.selfplay.methods import MethodConfig

POINTS = st.lists(
    st.tuples(st.integers(0, 40).map(float), st.integers(0, 10).map(lambda k: k / 10)),
    min_size=1,
    max_size=6,
    unique_by=lambda point: point[0],
).map(sorted)


def _made(
    by_method: dict[str, list[tuple[Any, Any]]], seeds: int = 1, problems: int = 10, wall: float = 1.0
) -> Outcomes:
    """Outcomes from (tokens, solved) of each budget of each method, broadcast to [seeds, problems]."""
    settings, tokens, solved = [], [], []
    for method, points in by_method.items():
        for index, (cost, right) in enumerate(points):
            field = {"greedy": {}, "gumbel": {"simulations": index + 1}}.get(method, {"n": index + 1})
            settings.append(Setting(MethodConfig(method, **field)))
            tokens.append(np.broadcast_to(np.asarray(cost), (seeds, problems)))
            solved.append(np.broadcast_to(np.asarray(right), (seeds, problems)))
    shape = (len(settings), seeds)
    return Outcomes(
        settings,
        list(range(1, seeds + 1)),
        [str(p) for p in range(problems)],
        np.stack(solved).astype(np.bool_),
        *(np.stack(tokens).astype(np.int64) for _ in range(3)),
        np.full(shape, wall),
    )


def _first(count: int, problems: int = 10) -> np.ndarray:
    return np.arange(problems) < count


@given(st.lists(POINTS, min_size=1, max_size=4), st.integers(-5, 45).map(float))
def test_heights_are_numpys_interpolation(lines: list[list[tuple[float, float]]], at: float) -> None:
    for line in lines:
        x, y = (np.asarray([[p[i] for p in line]]) for i in (0, 1))
        assert along(x, y, at)[0] == pytest.approx(float(np.interp(at, x[0], y[0])), abs=1e-12)


@given(POINTS, st.integers(0, 11).map(lambda k: k / 10))
def test_a_crossing_is_the_first_one(line: list[tuple[float, float]], height: float) -> None:
    x, y = (np.asarray([[p[i] for p in line]]) for i in (0, 1))
    expected = first_reached(line, height)
    found = float(first_crossing(x, y, np.asarray([height]))[0])
    assert found == (math.inf if expected is None else pytest.approx(expected, abs=1e-9))


def test_means_are_those_of_the_drawn_problems_and_seeds() -> None:
    rng = np.random.default_rng(0)
    values, wall = rng.random((3, 2, 5)), rng.random((3, 2))
    draws = draw(2, 5, resamples=7, seed=3)
    assert draws.seeds.sum(axis=1).tolist() == [2.0] * 8
    assert draws.problems.sum(axis=1).tolist() == [5.0] * 8
    means, times = draws.means(values), draws.means(wall)
    for b in range(8):
        seeds = np.repeat(np.arange(2), draws.seeds[b].astype(int))
        problems = np.repeat(np.arange(5), draws.problems[b].astype(int))
        for r in range(3):
            assert means[b, r] == pytest.approx(values[r][np.ix_(seeds, problems)].mean())
            assert times[b, r] == pytest.approx(wall[r][seeds].mean())
    np.testing.assert_allclose(means[0], values.mean(axis=(1, 2)))


def test_equal_tokens_are_linear_in_their_logarithm_and_end_where_settings_do() -> None:
    outcomes = _made(
        {
            "greedy": [(10, _first(1))],
            "best-of-n": [(10, _first(1)), (90, _first(5))],
            "gumbel": [(20, _first(4)), (80, _first(8))],
        }
    )
    rows = {
        (r["method"], r["times"]): r for r in equal_cost(curves(outcomes, draw(1, 10), "tokens"), "best-of-n")
    }
    assert {method for method, _ in rows} == {"best-of-n", "gumbel"}  # greedy is a point, no curve
    assert rows["gumbel", 2]["accuracy"] == pytest.approx(0.4)
    assert rows["gumbel", 4]["accuracy"] == pytest.approx(0.6)  # 40 is halfway from 20 to 80 in log tokens
    assert rows["gumbel", 4]["cost"] == pytest.approx(40)
    assert rows["gumbel", 8]["accuracy"] == pytest.approx(0.8)
    assert rows["gumbel", 16]["accuracy"] is None
    assert rows["gumbel", 16]["difference"] is None
    sampled = 0.1 + 0.4 * math.log(4) / math.log(9)
    assert rows["best-of-n", 4]["accuracy"] == pytest.approx(sampled)
    assert rows["best-of-n", 4]["difference"] is None
    assert rows["gumbel", 4]["difference"] == pytest.approx(0.6 - sampled)
    low, high = rows["gumbel", 4]["difference_ci95"]
    assert low < 0.6 - sampled < high
    seconds = equal_cost(curves(outcomes, draw(1, 10), "seconds"), "best-of-n")
    assert {row["accuracy"] for row in seconds} == {None}  # every setting takes greedy's time
    no_unit = _made({"gumbel": [(20, _first(4)), (80, _first(8))]})
    assert equal_cost(curves(no_unit, draw(1, 10), "tokens"), "best-of-n") == []


def test_the_bootstrap_is_paired() -> None:
    """Two methods that solve the very same problems differ by nothing in every resample."""
    points = [(10, _first(2)), (40, _first(6))]
    outcomes = _made({"greedy": [(10, _first(1))], "best-of-n": points, "gumbel": points})
    row = next(
        r
        for r in equal_cost(curves(outcomes, draw(1, 10), "tokens"), "best-of-n")
        if (r["method"], r["times"]) == ("gumbel", 2)
    )
    assert (row["difference"], row["difference_ci95"]) == (0.0, [0.0, 0.0])


def test_the_interval_of_a_difference_is_the_normal_one() -> None:
    """With many problems and constant costs it is the mean difference and 1.96 standard errors each way."""
    rng = np.random.default_rng(1)
    solved = {name: rng.random(4000) < share for name, share in (("gumbel", 0.6), ("best-of-n", 0.4))}
    points = {name: [(20, right), (40, right)] for name, right in solved.items()}
    outcomes = _made({"greedy": [(10, _first(1, 4000))], **points}, problems=4000)
    row = next(
        r
        for r in equal_cost(curves(outcomes, draw(1, 4000), "tokens"), "best-of-n")
        if (r["method"], r["times"]) == ("gumbel", 2)
    )
    apart = solved["gumbel"].astype(float) - solved["best-of-n"]
    half = 1.96 * apart.std() / math.sqrt(4000)
    assert row["difference"] == pytest.approx(apart.mean())
    assert row["difference_ci95"] == pytest.approx(
        [apart.mean() - half, apart.mean() + half], abs=0.15 * half
    )


def test_resampling_problems_moves_the_costs_too() -> None:
    """The tokens of a problem are drawn with its outcome."""
    dear = np.where(_first(5), 100, 20)
    outcomes = _made({"greedy": [(10, _first(1))], "gumbel": [(dear, _first(5)), (10 * dear, _first(5))]})
    found = curves(outcomes, draw(1, 10), "tokens")
    assert found.cost[0].tolist() == [10, 60, 600]
    costs, accuracies = found.of("gumbel")
    # with k dear problems drawn the cost is 20 + 8k and the accuracy k / 10
    np.testing.assert_allclose(costs[:, 0], 20 + 80 * accuracies[:, 0])
    assert len(np.unique(costs[:, 0])) > 5


def test_the_share_of_tokens_to_reach() -> None:
    outcomes = _made(
        {
            "greedy": [(10, _first(1))],
            "best-of-n": [(10, _first(1)), (160, _first(5))],
            "gumbel": [(20, _first(4)), (80, _first(6))],
            "beam": [(20, _first(1)), (400, _first(3))],
            "dvts": [(30, _first(7)), (60, _first(8))],
        }
    )
    rows = {row["method"]: row for row in to_reach(curves(outcomes, draw(1, 10), "tokens"), "best-of-n")}
    assert rows["best-of-n"]["share"] == pytest.approx(1.0)
    assert rows["gumbel"]["cost"] == pytest.approx(40)
    assert rows["gumbel"]["share"] == pytest.approx(0.25)
    assert rows["gumbel"]["accuracy"] == pytest.approx(0.5)
    low, high = rows["gumbel"]["share_ci95"]
    assert low <= 0.25 <= high
    assert (rows["beam"]["cost"], rows["beam"]["share"], rows["beam"]["share_ci95"]) == (None, None, None)
    assert rows["dvts"]["cost"] == pytest.approx(30)  # more was reached at once
    short = _made({"greedy": [(10, _first(1))], "best-of-n": [(10, _first(1)), (150, _first(5))]})
    assert to_reach(curves(short, draw(1, 10), "tokens"), "best-of-n") == []


def test_same_seed_same_draws() -> None:
    one, two, other = draw(3, 9, seed=1), draw(3, 9, seed=1), draw(3, 9, seed=2)
    np.testing.assert_array_equal(one.problems, two.problems)
    assert not np.array_equal(one.problems, other.problems)


def test_percentiles_bear_infinite_values() -> None:
    values = np.concatenate([np.arange(101.0), [np.inf]])
    low, high = percentiles(values[:101])
    assert (low, high) == (2.0, 98.0)
    assert percentiles(np.asarray([1.0, 2.0, np.inf]))[1] == math.inf


def test_pooled_rows_are_means_over_seeds() -> None:
    right = np.asarray([[1, 0, 0, 0], [1, 1, 1, 0]], np.bool_)
    tokens = np.asarray([[1, 2, 3, 4], [5, 6, 7, 8]])
    outcomes = _made({"best-of-n": [(tokens, right)]}, seeds=2, problems=4, wall=6.0)
    [row] = pooled(outcomes, draw(2, 4))
    assert (row["accuracy"], row["mean_tokens"], row["seconds"]) == (0.5, 4.5, 1.5)
    assert row["p95_tokens"] == pytest.approx(np.percentile(np.arange(1, 9), 95))
    assert row["ci95"][0] < 0.5 < row["ci95"][1]
    [single] = pooled(_made({"best-of-n": [(tokens[0], right[0])]}, problems=4), draw(1, 4))
    assert single["ci95"] == pytest.approx([0.0456, 0.6994], abs=1e-4)  # Wilson's for 1 of 4


def test_draws_without_resamples_are_the_measurement() -> None:
    draws = Draws(np.ones((1, 2)), np.ones((1, 3)))
    values = np.arange(6.0).reshape(1, 2, 3)
    assert draws.means(values)[0, 0] == pytest.approx(2.5)


def _curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"method": "best-of-n", "mean_tokens": t, "accuracy": a} for t, a in points]


def test_tokens_to_reach_is_linear_in_log_tokens() -> None:
    rows = [
        *_curve((10, 0.1), (1000, 0.5), (100, 0.3)),
        {"method": "gumbel", "mean_tokens": 5, "accuracy": 0.9},
    ]
    assert tokens_to_reach(rows, 0.3) == pytest.approx(100)
    assert tokens_to_reach(rows, 0.2) == pytest.approx(math.sqrt(10 * 100))
    assert tokens_to_reach(rows, 0.45) == pytest.approx(10 ** (2 + 0.75))
    assert tokens_to_reach(rows, 0.5) == pytest.approx(1000)
    assert tokens_to_reach(rows, 0.05) == pytest.approx(10)
    assert tokens_to_reach(rows, 0.51) is None
    assert tokens_to_reach([], 0.1) is None


def test_tokens_to_reach_takes_the_first_crossing_of_a_curve_that_dips() -> None:
    rows = _curve((10, 0.2), (100, 0.1), (1000, 0.4))
    assert tokens_to_reach(rows, 0.2) == pytest.approx(10)
    assert tokens_to_reach(rows, 0.25) == pytest.approx(100 * 10**0.5)
