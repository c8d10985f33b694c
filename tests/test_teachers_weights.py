"""Weights of teachers: closed forms, floors that hold whatever the scores, contexts, and state that comes
back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.weights import (
    GLOBAL,
    Credit,
    TeacherWeights,
    WeightConfig,
    advantage,
    entropy,
    weights_of,
)

NAMES = ["a", "b", "c"]


def credit(*worth: float, evidence: float = 1000.0, mean: float = 0.0) -> Credit:
    return Credit(np.asarray(worth), np.full(len(worth), evidence), mean)


def test_weights_are_the_softmax_with_its_share_of_equality() -> None:
    config = WeightConfig(temperature=0.5, epsilon=0.3)
    scores = np.asarray([0.2, -0.1, 0.4])
    odds = np.exp(scores / 0.5)
    np.testing.assert_allclose(weights_of(scores, config), 0.7 * odds / odds.sum() + 0.1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=10),
    st.floats(0.01, 1.0),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.95),
    st.floats(0.01, 2.0),
)
def test_floors_and_cap_hold(
    scores: list[float], epsilon: float, cap: float, floor: float, temperature: float
) -> None:
    config = WeightConfig(temperature=temperature, epsilon=epsilon, cap=cap, entropy_floor=floor)
    weights = weights_of(np.asarray(scores), config)
    n = len(scores)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= epsilon / n - 1e-12
    assert weights.max() <= max(cap, 1 / n) + 1e-9
    assert entropy(weights) >= floor * np.log(n) - 1e-6
    order = np.argsort(scores)
    assert (np.diff(weights[order]) >= -1e-9).all()  # a better score never weighs less


def test_scores_are_low_pass_filtered_and_the_first_news_is_taken_whole() -> None:
    weights = TeacherWeights(NAMES, WeightConfig(low_pass=0.25))
    np.testing.assert_array_equal(weights.of(), np.full(3, 1 / 3))
    first, second = credit(0.5, 0.0, -0.5, mean=0.1), credit(0.1, 0.0, -0.5, mean=0.1)
    weights.update({GLOBAL: first})
    record = weights.update({GLOBAL: second})
    known = advantage(first)
    assert record[GLOBAL]["a"]["score"] == pytest.approx(0.75 * known[0] + 0.25 * 0.0)
    assert record[GLOBAL]["a"]["score_before"] == pytest.approx(known[0])
    assert record[GLOBAL]["b"]["score"] == pytest.approx(known[1])


def test_an_advantage_is_in_log_odds_of_success() -> None:
    # chances .75, .5 and .25 against .5, without the prior that little evidence is mixed with
    found = advantage(credit(0.5, 0.0, -0.5, evidence=1e12))
    np.testing.assert_allclose(found, [np.log(3.0), 0.0, -np.log(3.0)], atol=1e-9)
    twice = [advantage(credit(2 * p - 1, mean=p - 1, evidence=1e12))[0] for p in (0.02, 0.04)]
    np.testing.assert_allclose(twice, [np.log(0.02 / 0.98 * 0.99 / 0.01), np.log(0.04 / 0.96 * 0.98 / 0.02)])
    assert abs(advantage(credit(1.0, evidence=1.0))[0]) < 0.2, "one hit is little evidence"
    assert np.isfinite(advantage(credit(1.0, -1.0, mean=-1.0))).all()


def test_a_teacher_that_was_not_heard_keeps_its_score() -> None:
    weights = TeacherWeights(NAMES, WeightConfig())
    known = advantage(credit(0.5, 0.0, -0.5))[2]
    weights.update({GLOBAL: credit(0.5, 0.0, -0.5)})
    quiet = Credit(np.asarray([0.5, 0.0, 0.0]), np.asarray([100.0, 100.0, 0.0]), 0.0)
    record = weights.update({GLOBAL: quiet})
    assert record[GLOBAL]["c"]["score"] == known
    assert "no proposal" in record[GLOBAL]["c"]["reason"]


def test_a_specialist_leads_where_it_is_good_and_only_there() -> None:
    weights = TeacherWeights(NAMES, WeightConfig(patience=100))
    news = {GLOBAL: credit(0.2, 0.1, 0.0), "high": credit(-0.2, 0.1, 0.6), "low": credit(0.4, 0.1, -0.6)}
    weights.update(news)
    assert weights.of("high").argmax() == 2
    assert weights.of("low").argmax() == 0
    assert weights.of().argmax() == 0
    np.testing.assert_array_equal(weights.of("never seen"), weights.of())


def test_little_evidence_leaves_a_context_near_the_global_scores() -> None:
    weights = TeacherWeights(NAMES, WeightConfig(patience=1000, temperature=1.0))
    weights.update({GLOBAL: credit(1.0, 0.0, -1.0), "rare": credit(-1.0, 0.0, 1.0, evidence=1.0)})
    np.testing.assert_allclose(weights.of("rare"), weights.of(), atol=2e-3)


def test_the_record_brings_everything_back_to_the_bit() -> None:
    weights = TeacherWeights(NAMES, WeightConfig())
    rng = np.random.default_rng(0)
    record: dict[str, Any] = {}
    for _ in range(3):
        record |= weights.update({c: credit(*rng.normal(size=3)) for c in (GLOBAL, "x/0", "x/1")})
    again = TeacherWeights(["c", "a", "b"], WeightConfig())
    again.load(json.loads(json.dumps(record)))
    for context in (GLOBAL, "x/0", "x/1"):
        assert again.of(context)[[1, 2, 0]].tolist() == pytest.approx(weights.of(context).tolist(), abs=1e-15)
    same = TeacherWeights(NAMES, WeightConfig())
    same.load(json.loads(json.dumps(record)))
    assert same.of("x/1").tolist() == weights.of("x/1").tolist()


def test_equal_weights_stay_equal_when_told_to() -> None:
    weights = TeacherWeights(NAMES, WeightConfig(dynamic=False))
    record = weights.update({GLOBAL: credit(0.5, 0.0, -0.5)})
    np.testing.assert_array_equal(weights.of(), np.full(3, 1 / 3))
    assert record[GLOBAL]["a"]["score"] > 1.0  # the scores are still known


def test_every_move_is_explained() -> None:
    weights = TeacherWeights(NAMES, WeightConfig(epsilon=0.09))
    told = weights.update({GLOBAL: credit(0.5, 0.0, -0.9, mean=0.1)})[GLOBAL]
    assert told["a"]["reason"] == (
        "rose: its proposals came to +0.50, the other teachers' to -0.45, everyone's to +0.10, "
        "over 1,000 states"
    )
    assert told["c"]["reason"].startswith("fell, to the floor")
    assert told["c"]["weight"] == pytest.approx(0.03, abs=1e-3)


@pytest.mark.parametrize(
    "bad", [{"temperature": 0}, {"epsilon": 0}, {"low_pass": 1.5}, {"cap": 0}, {"entropy_floor": 1.0}]
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        WeightConfig(**bad)  # type: ignore[arg-type]


def test_names_are_unique() -> None:
    with pytest.raises(InputError, match="a, a"):
        TeacherWeights(["a", "a"], WeightConfig())
