"""Functions as judges, read strictly, and a judge that is wrong as often as it was told to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.value.function_judge import FunctionJudge, NoisyJudge


def by_length(prompt: str, partial: str) -> int:
    return len(partial) % 3 - 1


def test_verdicts_are_read_strictly() -> None:
    said: dict[str, Any] = {
        "a": 1, "b": -1, "c": 0, "d": True, "e": False, "f": np.int8(-1), "g": np.True_,
        "h": 1.0, "i": None, "j": 2, "k": "1", "l": np.array([1]),
    }  # fmt: skip

    def function(prompt: str, partial: str) -> int:
        return said[partial]  # KeyError for anything else

    judge = FunctionJudge("truth", function, "1")
    letters = [*said, "m"]
    verdicts = judge.judge(["p"] * len(letters), letters)
    assert verdicts.dtype == np.int8
    assert verdicts.tolist() == [1, -1, 0, 1, -1, -1, 1, 0, 0, 0, 0, 0, 0]
    assert judge.failures == 6
    with pytest.raises(InputError, match="1 prompts and 0"):
        judge.judge(["p"], [])


def test_name_and_version_are_the_caller_s_promise() -> None:
    assert FunctionJudge("a", by_length, "1").version == FunctionJudge("a", by_length, "1").version
    assert FunctionJudge("a", by_length, "1").version != FunctionJudge("a", by_length, "2").version
    for name, version in (("", "1"), ("a", "")):
        with pytest.raises(InputError, match="give both"):
            FunctionJudge(name, by_length, version)


PROMPTS = [f"problem {i % 7}" for i in range(4000)]
ANSWERS = [f"{'x' * (i % 3)}{i:04d}" for i in range(4000)]


@pytest.mark.parametrize("right", [0.0, 0.5, 0.8, 1.0])
def test_the_noisy_judge_is_right_as_often_as_it_was_told(right: float) -> None:
    inner = FunctionJudge("truth", by_length, "1")
    true = inner.judge(PROMPTS, ANSWERS)
    noisy = NoisyJudge(inner, right).judge(PROMPTS, ANSWERS)
    assert noisy.dtype == np.int8
    speaks = true != 0
    assert (noisy[~speaks] == 0).all()
    assert set(np.unique(noisy[speaks] * true[speaks]).tolist()) <= {-1, 1}
    share = float((noisy[speaks] == true[speaks]).mean())
    error = math.sqrt(right * (1 - right) / speaks.sum())
    assert abs(share - right) <= 4 * error
    for verdict in (-1, 1):  # neither side is favoured
        assert abs(float((noisy == true)[true == verdict].mean()) - right) <= 6 * error


def test_noise_depends_on_the_pair_and_the_seed_alone() -> None:
    inner = FunctionJudge("truth", by_length, "1")
    judge = NoisyJudge(inner, 0.5, seed=1)
    whole = judge.judge(PROMPTS[:200], ANSWERS[:200])
    order = np.random.default_rng(0).permutation(200)
    shuffled = NoisyJudge(inner, 0.5, seed=1).judge([PROMPTS[i] for i in order], [ANSWERS[i] for i in order])
    assert shuffled.tolist() == whole[order].tolist()
    other = NoisyJudge(inner, 0.5, seed=2).judge(PROMPTS[:200], ANSWERS[:200])
    speaks = by_length_array(200) != 0
    assert 0.3 < float((other == whole)[speaks].mean()) < 0.7
    split = [NoisyJudge(FunctionJudge("one", lambda prompt, partial: 1, "1"), 0.5, seed=s) for s in range(60)]
    borders = [(j.judge(["ab"], ["c"])[0], j.judge(["a"], ["bc"])[0]) for j in split]
    assert len({first == second for first, second in borders}) == 2, "where the prompt ends matters"


def by_length_array(count: int) -> np.ndarray:
    return np.array([by_length(p, a) for p, a in zip(PROMPTS[:count], ANSWERS[:count], strict=True)])


def test_noise_is_the_same_on_every_machine() -> None:
    always = FunctionJudge("one", lambda prompt, partial: 1, "1")
    verdicts = NoisyJudge(always, 0.5, seed=7).judge(["p"] * 12, [str(i) for i in range(12)])
    assert verdicts.tolist() == [1, 1, -1, 1, 1, -1, 1, 1, 1, 1, 1, -1]


def test_the_noisy_judge_passes_on_failures_and_follows_versions() -> None:
    inner = FunctionJudge("truth", lambda prompt, partial: 1 // len(partial), "1")
    judge = NoisyJudge(inner, 0.9)
    assert judge.judge(["p"], [""]).tolist() == [0]
    assert (judge.failures, judge.tokens) == (1, 0)
    versions = {
        NoisyJudge(inner, 0.9).version,
        NoisyJudge(inner, 0.8).version,
        NoisyJudge(inner, 0.9, seed=1).version,
        NoisyJudge(FunctionJudge("truth", by_length, "2"), 0.9).version,
    }
    assert len(versions) == 4
    for right in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="from 0 to 1"):
            NoisyJudge(inner, right)
