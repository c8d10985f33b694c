"""The monitors against closed forms: a student whose every answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.calibration import calibration_error
from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.text.monitors import Monitor, Watch, promises, stepped_alarms

VOCABULARY = 5


class Telling:
    """Stands in for a student: after any token it says the same logits, and remembers what it was shown."""

    device = torch.device("cpu")

    def __init__(self, logits: list[float]) -> None:
        self.logits = torch.tensor(logits)
        self.seen: list[torch.Tensor] = []

    def forward(self, ids: torch.Tensor, **options: Any) -> Any:
        self.seen.append(ids)

        class Output:
            logits = self.logits.expand(*ids.shape, -1)

        return Output


def logits_of(*shares: float) -> list[float]:
    return [math.log(share) if share else -math.inf for share in shares]


def test_promises_are_those_of_the_naive_sums() -> None:
    rng = np.random.default_rng(0)
    sure, right = rng.random(500), rng.random(500) < 0.3
    found = promises(sure.astype(np.float32), right)
    assert found["confidence"] == pytest.approx(sum(sure) / 500, rel=1e-6)
    assert found["accuracy"] == pytest.approx(sum(right) / 500)
    assert found["overconfidence"] == pytest.approx((sum(sure) - sum(right)) / 500, rel=1e-6)
    assert found["policy_calibration_error"] == pytest.approx(calibration_error(sure, right), rel=1e-5)


def test_a_promise_rounded_above_one_is_one_and_no_number_is_told_as_such() -> None:
    assert promises([1.0000001], [True])["policy_calibration_error"] == 0.0
    broken = promises([0.5, math.nan], [True, False])
    assert math.isnan(broken["confidence"])
    assert "policy_calibration_error" not in broken


def test_a_monitor_measures_what_the_student_says_at_every_token_of_its_windows() -> None:
    text = np.asarray([0, 1, 2, 2, 1, 0, 3, 2, 2, 1], np.uint16)
    student: Any = Telling(logits_of(0.1, 0.2, 0.6, 0.1, 0.0))
    found = Monitor(student, text, context=4, windows=3)()
    windows = [text[start : start + 5].tolist() for start in (0, 2, 5)]
    truth = [token for window in windows for token in window[1:]]
    accuracy = truth.count(2) / len(truth)
    assert torch.cat(student.seen).tolist() == [window[:-1] for window in windows]
    assert found["confidence"] == pytest.approx(0.6)
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["overconfidence"] == pytest.approx(0.6 - accuracy)
    assert found["policy_calibration_error"] == pytest.approx(abs(0.6 - accuracy))
    assert found["entropy"] == pytest.approx(-sum(p * math.log(p) for p in (0.1, 0.2, 0.6, 0.1)), rel=1e-5)
    assert found["distinct_predictions"] == 1 / len(set(truth))


def test_windows_are_spread_over_the_whole_text_and_none_is_taken_twice() -> None:
    student: Any = Telling([0.0] * VOCABULARY)
    Monitor(student, np.zeros(6, np.int64), context=4, windows=10)()
    assert sum(len(ids) for ids in student.seen) == 2
    with pytest.raises(InputError, match="the held-out text has 4 tokens"):
        Monitor(student, np.zeros(4, np.int64), context=4, windows=1)


# ---- within a round


class Drifting:
    """A monitor whose student becomes surer with every probe, and no righter."""

    def __init__(self, step: float) -> None:
        self.asked = 0
        self._step = step

    def __call__(self) -> dict[str, float]:
        self.asked += 1
        return {"overconfidence": self._step * self.asked, "entropy": 1.0}


def test_an_alarm_is_raised_once_with_the_step_that_raised_it_first() -> None:
    monitor: Any = Drifting(0.1)
    watch = Watch(monitor, HealthConfig(overconfidence=0.25), every=5, judged_from=0, first_step=100)
    for step in range(1, 21):
        watch.step(step)
    assert [probe["step"] for probe in watch.probes] == [105, 110, 115, 120]
    alarms = watch.close({"overconfidence": 0.4, "gradient_variance": 9.0}, [{"entropy": None}], 120)
    assert [(alarm.name, at) for alarm, at in alarms] == [("overconfidence", 115), ("gradient_variance", 120)]
    assert alarms[0][0].value == pytest.approx(0.3)
    assert [record["step"] for record in stepped_alarms(alarms)] == [115, 120]


def test_probes_in_the_warm_up_are_written_down_and_not_judged() -> None:
    monitor: Any = Drifting(1.0)
    watch = Watch(monitor, HealthConfig(), every=10, judged_from=30, first_step=0)
    for step in range(1, 31):
        watch.step(step)
    assert [probe["step"] for probe in watch.probes] == [10, 20, 30]
    assert [at for _, at in watch.close({}, [], 30)] == [30]
    young = Watch(monitor, HealthConfig(), every=0, judged_from=30, first_step=0)
    found = young.close({"overconfidence": 1.0, "entropy": math.nan}, [], 29)
    assert [(alarm.name, at) for alarm, at in found] == [("not_finite", 29)]


def test_probes_can_be_turned_off() -> None:
    monitor: Any = Drifting(1.0)
    watch = Watch(monitor, HealthConfig(), every=0, judged_from=0, first_step=0)
    watch.step(10)
    assert monitor.asked == 0
    assert watch.close({}, [], 10) == []
