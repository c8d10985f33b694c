"""Metrics of reward models against naive counting and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.preferences import Preference
from tokenzero.value.reward_metrics import (
    auc,
    average_ranks,
    pair_accuracy,
    reliability,
    reward_report,
    spearman,
)

REWARDS = st.lists(st.integers(-4, 4).map(lambda n: n / 2), min_size=1, max_size=30)  # with many ties
PAIRED = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=40)


def _preferences(count: int) -> list[Preference]:
    return [Preference("p", "aa" if i % 2 else "a", "bbb" if i % 3 else "b") for i in range(count)]


def _naive_ranks(values: list[float]) -> list[float]:
    return [1 + sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


@given(REWARDS, REWARDS)
def test_auc_by_ranks_is_auc_by_counting(positive: list[float], negative: list[float]) -> None:
    wins = [0.5 * ((p > n) + (p >= n)) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(sum(wins) / len(wins))


@given(REWARDS)
def test_average_ranks_and_spearman_are_the_naive_ones(values: list[float]) -> None:
    other = [math.sin(index * value) for index, value in enumerate(values)]
    np.testing.assert_allclose(average_ranks(values), _naive_ranks(values))
    found = spearman(values, other)
    if len(values) < 3 or len(set(values)) < 2 or len(set(other)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(_naive_ranks(values), _naive_ranks(other))[0, 1])


@given(PAIRED, st.integers(1, 12))
def test_reliability_is_naive_binning(pairs: list[tuple[int, int]], bins: int) -> None:
    chosen, rejected = np.array(pairs, float).T
    confidence = [1 / (1 + math.exp(-abs(c - r))) for c, r in zip(chosen, rejected, strict=True)]
    right = [1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(chosen, rejected, strict=True)]
    table = reliability(chosen, rejected, bins)
    assert sum(one.pairs for one in table) == len(pairs)
    error = 0.0
    for one in table:
        inside = [
            i for i, p in enumerate(confidence) if one.low <= p < one.high or (one.high == 1.0 and p == 1.0)
        ]
        assert len(inside) == one.pairs
        assert one.confidence == pytest.approx(np.mean([confidence[i] for i in inside]))
        assert one.accuracy == pytest.approx(np.mean([right[i] for i in inside]))
        error += abs(one.accuracy - one.confidence) * len(inside) / len(pairs)
    report = reward_report(_preferences(len(pairs)), chosen, rejected, bins)
    assert report.calibration_error == pytest.approx(error)
    assert report.accuracy == pair_accuracy(chosen, rejected) == pytest.approx(np.mean(right))
    assert report.mean_margin == pytest.approx(np.mean(chosen - rejected))
    assert report.loss == pytest.approx(np.mean([math.log1p(math.exp(r - c)) for c, r in pairs]))
    json.dumps(report.as_dict(), allow_nan=False)


def test_rewards_of_the_bradley_terry_model_itself_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 40_000)) * 1.5
    first_wins = rng.random(40_000) < 1 / (1 + np.exp(second - first))
    chosen, rejected = np.where(first_wins, [first, second], [second, first])
    preferences = [Preference("p", "a", "b")] * 40_000
    assert reward_report(preferences, chosen, rejected).calibration_error < 0.02
    assert reward_report(preferences, 5 * chosen, 5 * rejected).calibration_error > 0.15
    assert (
        reward_report(preferences, chosen, rejected).loss
        < reward_report(preferences, 5 * chosen, 5 * rejected).loss
    )


def test_a_taste_for_length_is_seen() -> None:
    preferences = [Preference("p", "long answer", "short"), Preference("p", "short", "long answer")] * 10
    chosen = [len(one.chosen) for one in preferences]
    rejected = [len(one.rejected) for one in preferences]
    length = reward_report(preferences, chosen, rejected).length
    assert (length.correlation, length.preferred_longer, length.chosen_longer) == (1.0, 1.0, 0.5)
    assert (length.accuracy_chosen_longer, length.accuracy_chosen_shorter) == (1.0, 0.0)
    assert length.accuracy_same_length is None
    fair = reward_report(preferences, [1.0] * 20, [0.0] * 20).length
    assert fair.correlation == pytest.approx(0.0)
    assert (fair.preferred_longer, fair.accuracy_chosen_longer, fair.accuracy_chosen_shorter) == (
        0.5,
        1.0,
        1.0,
    )


def test_extreme_rewards_do_not_overflow() -> None:
    report = reward_report([Preference("p", "a", "b")] * 2, [1e4, -1e4], [-1e4, 1e4])
    assert (report.accuracy, report.auc, report.loss) == (0.5, 0.5, 1e4)


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([], [], "at least one number"),
        ([1.0], [1.0, 2.0], "1 rewards of chosen answers and 2"),
        ([float("nan")], [1.0], "not finite"),
        ([1.0, 1.0], [1.0, 1.0], "1 pairs and 2 rewards"),
        ([[1.0]], [[1.0]], "shape"),
    ],
)
def test_mistakes_are_named(chosen: list[float], rejected: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reward_report([Preference("p", "a", "b")], chosen, rejected)
    with pytest.raises(InputError, match="bins are 0"):
        reliability([1.0], [0.0], 0)
