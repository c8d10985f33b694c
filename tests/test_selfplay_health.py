"""Alarms: each raised by its own measure, on the right side of its threshold, with its consequence."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.health import ACTIONS, ALARMS, Alarm, HealthConfig, check

CONFIG = HealthConfig()
HEALTHY = {
    "policy_calibration_error": 0.05,
    "value_calibration_error": 0.05,
    "value_explained_variance": 0.2,
    "value_loss_unseen": 1.8,
    "value_loss_seen": 1.7,
    "overconfidence": 0.02,
    "confidence": 0.75,
    "entropy": 0.6,
    "entropy_min": 0.3,
    "distinct_predictions": 0.6,
    "gradient_norm": 1.4,
    "gradient_variance": 0.05,
    "kl_from_reference": 0.4,
    "duplicate_answers": 0.0,
    "target_entropy": 0.3,
    "all_won": 0.3,
    "all_lost": 0.7,
}
HISTORY = [HEALTHY, {**HEALTHY, "gradient_norm": 1.0, "target_entropy": 0.2}, HEALTHY]
BOUNDS = {
    **{name: getattr(CONFIG, name) for name in ALARMS[1:]},
    "gradient_norm": CONFIG.gradient_norm * 1.4,
    "target_entropy": CONFIG.target_entropy * 0.3,
    "value_loss_unseen": CONFIG.value_loss_unseen * 1.7,
}
LOW = {"value_explained_variance", "entropy", "entropy_min", "distinct_predictions", "target_entropy"}


def test_a_healthy_round_raises_nothing() -> None:
    assert check(HEALTHY, HISTORY, CONFIG) == []
    assert check(HEALTHY, [], CONFIG) == []
    assert check({}, HISTORY, CONFIG) == []


@pytest.mark.parametrize("name", ALARMS[1:])
def test_each_measure_raises_its_own_alarm_and_no_other(name: str) -> None:
    bound = BOUNDS[name]
    just, beyond = (bound, bound - 1e-6) if name in LOW else (bound, bound + 1e-6)
    assert check({**HEALTHY, name: just}, HISTORY, CONFIG) == []
    (alarm,) = check({**HEALTHY, name: beyond}, HISTORY, CONFIG)
    assert (alarm.name, alarm.value, alarm.action) == (name, beyond, "warn")
    assert alarm.threshold == pytest.approx(bound)
    assert name in alarm.message
    assert "\n" not in alarm.message


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_measure_that_is_not_finite_stops_the_run(name: str, wrong: float) -> None:
    (alarm,) = check({**HEALTHY, name: wrong}, HISTORY, CONFIG)
    assert (alarm.name, alarm.action) == ("not_finite", "stop")
    assert name in alarm.message


def test_alarms_come_in_the_order_of_their_names() -> None:
    health = {**HEALTHY, "all_lost": 1.0, "confidence": 1.0, "entropy": 0.0, "gradient_norm": math.nan}
    assert [alarm.name for alarm in check(health, HISTORY, CONFIG)] == [
        "not_finite",
        "confidence",
        "entropy",
        "all_lost",
    ]


def test_without_a_past_there_is_nothing_to_compare_with() -> None:
    sick = {**HEALTHY, "gradient_norm": 1e3, "target_entropy": 0.0}
    warm_start = {"entropy": 0.7, "gradient_norm": math.nan}
    assert check(sick, [], CONFIG) == []
    assert check(sick, [warm_start], CONFIG) == []
    assert [alarm.name for alarm in check(sick, [HEALTHY], CONFIG)] == ["gradient_norm", "target_entropy"]


def test_a_value_head_that_has_not_learnt_from_play_is_not_judged() -> None:
    sick = {**HEALTHY, "value_explained_variance": -0.5, "value_calibration_error": 0.6}
    warm_start = {name: HEALTHY[name] for name in ("entropy", "confidence")}
    assert check(sick, [], CONFIG) == []
    assert check(sick, [warm_start], CONFIG) == []
    names = [alarm.name for alarm in check(sick, [warm_start, sick], CONFIG)]
    assert names == ["value_calibration_error", "value_explained_variance"]


def test_a_round_that_was_itself_an_outlier_does_not_move_the_median_far() -> None:
    past = [{**HEALTHY, "gradient_norm": norm} for norm in (1.0, 1.2, 500.0)]
    (alarm,) = check({**HEALTHY, "gradient_norm": 6.0}, past, CONFIG)
    assert alarm.threshold == pytest.approx(4 * 1.2)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), st.floats(0.1, 100))
def test_gradients_are_judged_by_the_median_of_earlier_rounds(past: list[float], norm: float) -> None:
    ordered = sorted(past)
    middle = (ordered[(len(past) - 1) // 2] + ordered[len(past) // 2]) / 2
    alarms = check({"gradient_norm": norm}, [{"gradient_norm": one} for one in past], CONFIG)
    assert bool(alarms) == (norm > CONFIG.gradient_norm * middle)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_consequence_is_what_config_says(action: str) -> None:
    config = HealthConfig(actions={"entropy": action, "not_finite": action})
    alarms = check({**HEALTHY, "entropy": 0.0, "confidence": math.nan}, HISTORY, config)
    expected = [] if action == "ignore" else [("not_finite", action), ("entropy", action)]
    assert [(alarm.name, alarm.action) for alarm in alarms] == expected
    assert [alarm.action for alarm in check({"all_won": 1.0}, [], config)] == ["warn"]


def test_thresholds_come_from_config() -> None:
    strict = HealthConfig(entropy=0.7, all_lost=0.5)
    assert [alarm.name for alarm in check(HEALTHY, [], strict)] == ["entropy", "all_lost"]


def test_an_alarm_can_be_written_down() -> None:
    (alarm,) = check({"all_won": 1.0}, [], CONFIG)
    assert Alarm(**json.loads(json.dumps(asdict(alarm)))) == alarm


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"games": -1}, "health.games"),
        ({"entropy": math.nan}, "health.entropy "),
        ({"confidence": math.inf}, "health.confidence"),
        ({"entropy_bonus": -0.1}, "health.entropy_bonus"),
        ({"lr_factor": 0.0}, "lr_factor"),
        ({"lr_factor": 1.0}, "lr_factor"),
        ({"actions": {"entropie": "warn"}}, "entropie"),
        ({"actions": {"entropy": "panic"}}, "panic"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        HealthConfig(**change)


def test_settings_are_bound_by_name_and_unknown_ones_refused() -> None:
    adapter = TypeAdapter(HealthConfig)
    told = asdict(HealthConfig(all_won=0.9, actions={"all_won": "stop"}))
    assert adapter.validate_json(json.dumps(told), strict=True) == HealthConfig(**told)
    with pytest.raises(ValueError, match="entropie"):
        adapter.validate_json('{"entropie": 1.0}')
