"""A run's settings: what is refused, and with which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_run import tiny_config

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import PretrainConfig
from tokenzero.selfplay.config import (
    EvaluationConfig,
    ModelConfig,
    PlayConfig,
    SelfPlayConfig,
)
from tokenzero.selfplay.evaluator import LeafConfig
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.teachers.checkpoint import CheckpointConfig
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.value.judge_config import RulesJudgeConfig

LLAMA = ModelConfig(architecture={"model_type": "llama"})


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (ModelConfig, {}, "exactly one"),
        (ModelConfig, {"load": "x", "architecture": {"model_type": "llama"}}, "exactly one"),
        (PlayConfig, {"games": 0}, "games is 0"),
        (PlayConfig, {"games_in_flight": 0}, "games_in_flight 0"),
        (PlayConfig, {"fast_simulations": -1}, "fast_simulations is -1"),
        (PlayConfig, {"fast_simulations": 16, "full_share": 0.5}, "fast_simulations is 16"),
        (PlayConfig, {"fast_simulations": 4, "full_share": 0.0}, "full_share is 0"),
        (PlayConfig, {"fast_simulations": 4, "full_share": 1.5}, "full_share is 1.5"),
        (PlayConfig, {"full_share": 0.5}, "give both or neither"),
        (CheckpointConfig, {"lag": 0}, "lag is 0"),
        (NgramConfig, {"order": 7}, "order is 7"),
        (LeafConfig, {"judge_rounds": -1}, "judge_rounds is -1"),
        (EvaluationConfig, {"split": "train"}, "split is 'train'"),
        (EvaluationConfig, {"problems": -1}, "problems"),
        (SelfPlayConfig, {"model": LLAMA, "rounds": -1}, "rounds is -1"),
        (SelfPlayConfig, {"model": LLAMA, "threads": 0}, "threads 0"),
        (SelfPlayConfig, {"model": LLAMA, "seed": -1}, "seed -1"),
        (SelfPlayConfig, {"model": LLAMA, "tracking": ["mlflow"]}, "tracking lists 'mlflow'"),
        (SelfPlayConfig, {"model": LLAMA, "tracking": ["wandb", "wandb"]}, "at most once"),
        (
            SelfPlayConfig,
            {"model": LLAMA, "pretrain": PretrainConfig(demonstrations=0)},
            "demonstrations is 0",
        ),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**wrong)


def test_the_judge_must_not_reach_the_value_target() -> None:
    judge = RulesJudgeConfig(rules={"contains:x": -1})
    judged = replace(tiny_config(), play=PlayConfig(leaf=LeafConfig(judge_eta=0.2)), judge=judge, teachers=[])
    with pytest.raises(InputError, match="root_value_mix"):
        replace(judged, learner=LearnerConfig(root_value_mix=0.1))
    with pytest.raises(InputError, match=r"play\.targets"):
        replace(judged, play=replace(judged.play, targets="tree"))
    replace(judged, learner=LearnerConfig(root_value_mix=0.1), judge=None)
    replace(judged, learner=LearnerConfig(root_value_mix=0.1), play=PlayConfig())


def test_the_judge_loses_its_say_over_the_rounds() -> None:
    leaf = LeafConfig(judge_eta=0.4, judge_rounds=4)
    shares = [leaf.in_round(number).judge_eta for number in (1, 2, 4, 5, 9)]
    assert shares == pytest.approx([0.4, 0.3, 0.1, 0.0, 0.0])
    assert LeafConfig(judge_eta=0.4).in_round(9).judge_eta == 0.4


def test_teachers_need_something_to_learn_from_and_a_name_of_their_own() -> None:
    nothing = PretrainConfig(steps=0, demonstrations=0)
    with pytest.raises(InputError, match="demonstrations"):
        SelfPlayConfig(model=LLAMA, pretrain=nothing, teachers=[NgramConfig()])
    SelfPlayConfig(model=LLAMA, pretrain=nothing, teachers=[CheckpointConfig()])
    with pytest.raises(InputError, match="3-gram"):
        SelfPlayConfig(model=LLAMA, teachers=[NgramConfig(), NgramConfig()])
    SelfPlayConfig(model=LLAMA, teachers=[NgramConfig(order=2), NgramConfig(order=3)])
