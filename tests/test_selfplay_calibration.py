"""Calibration figures against closed forms and a naive sum over bins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.calibration import (
    calibration_error,
    explained_variance,
    overconfidence_error,
    reliability,
)

CASES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


def naive(cases: list[tuple[float, float]], bins: int, *, above_only: bool) -> float:
    total = 0.0
    for number in range(bins):
        here = [case for case in cases if min(int(case[0] * bins), bins - 1) == number]
        if here:
            gap = sum(p for p, _ in here) / len(here) - sum(z for _, z in here) / len(here)
            total += len(here) / len(cases) * (max(gap, 0.0) if above_only else abs(gap))
    return total


@given(CASES, st.integers(1, 12))
def test_both_errors_are_sums_over_bins(cases: list[tuple[float, float]], bins: int) -> None:
    p, z = zip(*cases, strict=True)
    assert calibration_error(p, z, bins) == pytest.approx(naive(cases, bins, above_only=False))
    assert overconfidence_error(p, z, bins) == pytest.approx(naive(cases, bins, above_only=True), abs=1e-12)


def test_a_known_diagram() -> None:
    p, z = [0.95, 0.95, 0.15, 0.15, 1.0], [1, 0, 0, 1, 1]
    found = reliability(p, z)
    assert found.share.tolist() == pytest.approx([0.4, 0.6])
    assert found.predicted.tolist() == pytest.approx([0.15, 2.9 / 3])
    assert found.observed.tolist() == pytest.approx([0.5, 2 / 3])
    assert calibration_error(p, z) == pytest.approx(0.4 * 0.35 + 0.6 * 0.3)
    assert overconfidence_error(p, z) == pytest.approx(0.6 * 0.3)


def test_being_right_more_often_than_promised_is_not_overconfidence() -> None:
    assert overconfidence_error([0.1, 0.3], [1, 1]) == 0
    assert calibration_error([0.1, 0.3], [1, 1]) == pytest.approx(0.8)


def test_explained_variance() -> None:
    z = np.asarray([-1.0, 1.0, 1.0, -1.0])
    assert explained_variance(z, z) == 1
    assert explained_variance(z / 2 + 0.4, z) == pytest.approx(0.75)  # the common error does not count
    assert explained_variance(np.full(4, 0.7), z) == pytest.approx(0)
    assert explained_variance(-z, z) == pytest.approx(-3)
    assert explained_variance([0.1, 0.2], [1, 1]) is None


@pytest.mark.parametrize("figure", [calibration_error, overconfidence_error, explained_variance])
@pytest.mark.parametrize(("p", "z"), [([], []), ([0.5], [1, 0])])
def test_every_prediction_needs_its_outcome(figure: object, p: list[float], z: list[float]) -> None:
    with pytest.raises(InputError, match="one outcome for each"):
        figure(p, z)  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="outside"):
        calibration_error([0.5, wrong], [1, 0])
    with pytest.raises(InputError, match="outside"):
        calibration_error([0.5, 0.5], [1, wrong])
