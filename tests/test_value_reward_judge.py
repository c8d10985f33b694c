"""The reward judge's thresholds, and their calibration against a search over every pair of scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.reward_judge import RewardJudge, calibrated_thresholds, quantile_thresholds


class Numbers:
    """Scores an answer by the number it spells."""

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.tokens = 5

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float32]:
        return np.array([float(answer) for answer in answers], dtype=np.float32)


def test_thresholds_belong_to_their_verdict() -> None:
    judge = RewardJudge(Numbers(), -1.0, 0.5)
    verdicts = judge.judge(["p"] * 6, ["-2", "-1", "-0.99", "0.49", "0.5", "3"])
    assert (verdicts.dtype, verdicts.tolist()) == (np.int8, [-1, -1, 0, 0, 1, 1])
    assert judge.judge([], []).shape == (0,)
    assert (judge.failures, judge.tokens) == (0, 5)
    one_sided = RewardJudge(Numbers(), -math.inf, 0.5)
    assert one_sided.judge(["p"] * 2, ["-1e30", "1"]).tolist() == [0, 1]


def test_scores_that_are_none_are_neutral_and_counted() -> None:
    judge = RewardJudge(Numbers(), -1.0, 0.5)
    assert judge.judge(["p"] * 3, ["nan", "1", "nan"]).tolist() == [0, 1, 0]
    assert judge.failures == 2
    assert judge.judge(["p"] * 2, ["one", "1"]).tolist() == [0, 0], "the scorer raised"
    assert judge.failures == 4

    class Short(Numbers):
        def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float32]:
            return np.ones(1, np.float32)

    short = RewardJudge(Short(), -1.0, 0.5)
    assert short.judge(["p"] * 2, ["1", "1"]).tolist() == [0, 0]
    assert short.failures == 2
    with pytest.raises(InputError, match="2 prompts and 1"):
        judge.judge(["p", "q"], ["1"])


def test_the_version_follows_scorer_and_thresholds() -> None:
    scorer = Numbers()
    judge = RewardJudge(scorer, 0.0, 1.0)
    first = judge.version
    assert RewardJudge(Numbers(), 0.0, 1.0, name="other").version == first
    assert RewardJudge(Numbers(), 0.0, 1.5).version != first
    scorer.version = "2"
    assert judge.version != first

    class Bare:
        def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float32]:
            return np.zeros(len(answers), np.float32)

    with pytest.raises(InputError, match="Bare has no version"):
        RewardJudge(Bare(), 0.0, 1.0)
    assert RewardJudge(Bare(), 0.0, 1.0, version="1").judge(["p"], ["a"]).tolist() == [-1]
    for low, high in ((1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(InputError, match="low must be below high"):
            RewardJudge(scorer, low, high)


def naive_best(
    scores: Sequence[float], solved: Sequence[bool], precision: float, least: int
) -> tuple[float, float] | None:
    """Most answers spoken about, then most of them right, over every pair of scores; the lower pair wins."""
    best, found = (-1, 0), None
    for low, high in itertools.combinations(sorted(set(scores)), 2):
        no = [not good for score, good in zip(scores, solved, strict=True) if score <= low]
        yes = [good for score, good in zip(scores, solved, strict=True) if score >= high]
        enough = len(no) >= least and len(yes) >= least
        precise = enough and sum(no) >= precision * len(no) and sum(yes) >= precision * len(yes)
        spoken = (len(no) + len(yes), sum(no) + sum(yes))
        if precise and spoken > best:
            best, found = spoken, (low, high)
    return found


labelled = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=14)


@given(labelled, st.sampled_from([0.5, 0.6, 0.75, 1.0]), st.integers(1, 3))
def test_calibration_is_the_best_of_all_pairs(
    answers: list[tuple[int, bool]], precision: float, least: int
) -> None:
    scores = [float(score) for score, _ in answers]
    solved = [good for _, good in answers]
    wanted = naive_best(scores, solved, precision, least)
    if wanted is None:
        with pytest.raises(InputError):
            calibrated_thresholds(scores, solved, precision, least=least)
        return
    found = calibrated_thresholds(scores, solved, precision, least=least)
    low, high = found
    assert (low, high) == wanted
    judge = RewardJudge(Numbers(), low, high)
    verdicts = judge.judge(["p"] * len(scores), [str(score) for score in scores])
    assert found.rejected == int((verdicts < 0).sum()) >= least
    assert found.accepted == int((verdicts > 0).sum()) >= least
    assert found.reject_precision == pytest.approx(1 - np.mean(np.array(solved)[verdicts < 0]))
    assert found.accept_precision == pytest.approx(np.mean(np.array(solved)[verdicts > 0]))
    assert found.reject_precision >= precision - 1e-9
    assert found.accept_precision >= precision - 1e-9


def test_of_equal_thresholds_the_lower_ones_are_taken() -> None:
    """(1, 2) and (2, 3) both speak about all four answers and are right about three."""
    low, high = calibrated_thresholds([1, 2, 2, 3], [0, 0, 1, 1], 0.6, least=1)
    assert (low, high) == (1.0, 2.0)


def test_outcomes_count_as_solved_above_zero_and_the_report_is_plain() -> None:
    scores = np.arange(40.0)
    outcomes = np.where(scores >= 20, 1.0, -1.0)
    outcomes[[5, 30]] *= -1
    found = calibrated_thresholds(scores, outcomes, 0.9)
    assert found.as_dict() == {
        "low": 19.0,
        "high": 20.0,
        "answers": 40,
        "solved": 20,
        "rejected": 20,
        "reject_precision": 0.95,
        "accepted": 20,
        "accept_precision": 0.95,
    }


@pytest.mark.parametrize(
    ("scores", "outcomes", "options", "message"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], {"precision": 1.0, "least": 2}, "no low .* 0.667 is reachable"),
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 0], {"precision": 1.0, "least": 2}, "no high .* 0.500 is reachable"),
        ([1.0, 2.0], [0, 1], {"precision": 1.0}, "2 answers cannot set a threshold for 10"),
        ([1.0, 1.0], [0, 1], {"precision": 0.5, "least": 1}, "lies below"),
        ([2.0, 1.0], [0, 1], {"precision": 0.9, "least": 1}, "0.500 is reachable"),
        ([1.0, math.nan], [0, 1], {"precision": 0.9}, "1 scores are not finite"),
        ([1.0], [0, 1], {"precision": 0.9}, "one of each"),
        ([], [], {"precision": 0.9}, "one of each"),
        ([1.0, 2.0], [0, 1], {"precision": 0.0}, "precision is 0.0"),
        ([1.0, 2.0], [0, 1], {"precision": 1.1}, "precision is 1.1"),
        ([1.0, 2.0], [0, 1], {"precision": 0.9, "least": 0}, "least is 0"),
    ],
)
def test_what_cannot_be_calibrated_says_what_can(
    scores: list[float], outcomes: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        calibrated_thresholds(scores, outcomes, **options)


@given(labelled, st.floats(0, 0.5), st.floats(0, 0.5))
def test_quantiles_speak_about_no_more_than_their_share(
    answers: list[tuple[int, bool]], reject: float, accept: float
) -> None:
    scores = [float(score) for score, _ in answers]
    solved = [good for _, good in answers]
    levels = sorted(set(scores))
    total = len(scores)
    low_levels = [level for level in levels if sum(s <= level for s in scores) <= reject * total + 1e-9]
    high_levels = [level for level in levels if sum(s >= level for s in scores) <= accept * total + 1e-9]
    found = quantile_thresholds(scores, solved, reject=reject, accept=accept)
    assert found.low == max(low_levels, default=-math.inf)
    assert found.high == min(high_levels, default=math.inf)
    assert found.rejected <= reject * total + 1e-6
    assert found.accepted <= accept * total + 1e-6


def test_quantiles_of_many_scores_and_bad_shares() -> None:
    scores = np.arange(100.0)
    found = quantile_thresholds(scores, scores > 50, reject=0.2, accept=0.1)
    assert (found.low, found.high, found.rejected, found.accepted) == (19.0, 90.0, 20, 10)
    silent = quantile_thresholds(scores, scores > 50, reject=0.0, accept=0.1)
    assert (silent.low, silent.rejected, silent.reject_precision) == (-math.inf, 0, None)
    for reject, accept in ((0.6, 0.6), (-0.1, 0.1), (0.1, 1.0), (math.nan, 0.1)):
        with pytest.raises(InputError, match="shares are"):
            quantile_thresholds(scores, scores > 50, reject=reject, accept=accept)
