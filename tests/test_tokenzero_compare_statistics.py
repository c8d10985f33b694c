"""The statistics of a comparison against closed forms, published quantiles and plain resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.compare_statistics import bootstrap, first_reached, t_coverage, t_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "published"),  # any table of Student's t, two-sided 95 %
    [
        (1, 12.706205),
        (2, 4.302653),
        (3, 3.182446),
        (4, 2.776445),
        (5, 2.570582),
        (9, 2.262157),
        (10, 2.228139),
        (30, 2.042272),
        (120, 1.979930),
    ],
)
def test_quantiles_are_the_published_ones(degrees: int, published: float) -> None:
    assert t_quantile(degrees) == pytest.approx(published, abs=1e-6)


@given(st.floats(0.01, 0.999))
def test_quantiles_of_one_and_two_degrees_have_closed_forms(coverage: float) -> None:
    assert t_quantile(1, coverage) == pytest.approx(math.tan(math.pi * coverage / 2), rel=1e-9)
    assert t_quantile(2, coverage) == pytest.approx(coverage * math.sqrt(2 / (1 - coverage**2)), rel=1e-9)


@given(st.floats(0.0, 20.0), st.integers(1, 60))
def test_coverage_is_the_area_under_the_density(t: float, degrees: int) -> None:
    x = np.linspace(-t, t, 4001)
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    density = np.exp(scale - (degrees + 1) / 2 * np.log1p(x * x / degrees))
    assert t_coverage(t, degrees) == pytest.approx(float(np.trapezoid(density, x)), abs=1e-4)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    # mean 4, variance 4 of 3 values: half width t(2) * 2 / sqrt(3)
    half = 4.302652729 * 2 / math.sqrt(3)
    assert t_interval([2.0, 4.0, 6.0]) == pytest.approx((4 - half, 4 + half), abs=1e-8)
    assert t_interval([0.25, 0.25]) == (0.25, 0.25)
    assert t_interval([1.0]) is None
    assert t_interval([]) is None


def _grids(seed: int, seeds: int, problems: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((seeds, problems)) < 0.6, rng.random((seeds, problems)) < 0.4


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 9))
def test_the_bootstrap_is_plain_resampling_of_rows_and_columns(seed: int, seeds: int, problems: int) -> None:
    arm, reference = _grids(seed, seeds, problems)
    reference[:, 0] = True  # so that no resample's reference is 0 with many problems only by luck
    rng = np.random.default_rng(1)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=40)
    columns = rng.multinomial(problems, np.full(problems, 1 / problems), size=40)
    own, other = [], []
    for row, column in zip(rows, columns, strict=True):
        for solved, means in ((arm, own), (reference, other)):
            drawn = np.repeat(np.repeat(solved, row, axis=0), column, axis=1)
            assert drawn.shape == arm.shape
            means.append(drawn.mean())
    found = bootstrap(arm, reference, resamples=40)
    difference = np.subtract(own, other)
    assert found.difference == pytest.approx(tuple(np.percentile(difference, [2.5, 97.5])), abs=1e-12)
    if min(other) > 0:
        ratio = np.divide(own, other)
        assert found.ratio == pytest.approx(tuple(np.percentile(ratio, [2.5, 97.5])), rel=1e-12)
    else:
        assert found.ratio is None


def test_the_bootstrap_says_the_same_twice_whatever_its_chunks_and_is_fair_to_both() -> None:
    arm, reference = _grids(3, 5, 200)
    found = bootstrap(arm, reference, resamples=1300)
    assert found == bootstrap(arm, reference, resamples=1300)
    assert found != bootstrap(arm, reference, resamples=1300, seed=2)
    low, high = bootstrap(reference, arm, resamples=1300).difference
    assert found.difference == pytest.approx((-high, -low), abs=1e-12)
    assert bootstrap(arm, arm, resamples=100).difference == (0.0, 0.0)
    assert bootstrap(arm, arm, resamples=100).ratio == (1.0, 1.0)
    assert bootstrap(arm, np.zeros_like(arm), resamples=100).ratio is None


def test_the_bootstrap_is_as_wide_as_sampling_theory_says() -> None:
    """All seeds alike: only problems vary, so the interval is the binomial one of the paired differences."""
    rng = np.random.default_rng(5)
    arm = np.repeat(rng.random((1, 2000)) < 0.5, 4, axis=0)
    reference = np.repeat(rng.random((1, 2000)) < 0.5, 4, axis=0)
    low, high = bootstrap(arm, reference).difference
    deviation = (arm[0].astype(float) - reference[0]).std()
    assert high - low == pytest.approx(2 * 1.96 * deviation / math.sqrt(2000), rel=0.05)


CURVE = [(0.0, 0.1), (10.0, 0.3), (20.0, 0.2), (30.0, 0.5)]


@pytest.mark.parametrize(
    ("accuracy", "tokens"),
    [(0.05, 0.0), (0.1, 0.0), (0.2, 5.0), (0.3, 10.0), (0.35, 25.0), (0.5, 30.0), (0.51, None)],
)
def test_where_a_curve_first_reaches_an_accuracy(accuracy: float, tokens: float | None) -> None:
    found = first_reached(CURVE, accuracy)
    assert found == (None if tokens is None else pytest.approx(tokens))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_the_curve_is_below_before_and_there_at_the_crossing(accuracies: list[float], goal: float) -> None:
    tokens = [10.0 * i for i in range(len(accuracies))]
    found = first_reached(list(zip(tokens, accuracies, strict=True)), goal)
    if found is None:
        assert max(accuracies) < goal
    else:
        assert np.interp(found, tokens, accuracies) == pytest.approx(max(goal, accuracies[0]), abs=1e-9) or (
            found == 0.0
        )
        assert all(a < goal for t, a in zip(tokens, accuracies, strict=True) if t < found)
