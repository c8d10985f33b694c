"""A run's settings: what is refused, and with which words."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
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
    TeacherConfig,
)
from tokenzero.selfplay.evaluator import LeafConfig
from tokenzero.selfplay.learner import LearnerConfig

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
        (TeacherConfig, {"kind": "oracle"}, "ngram or checkpoint"),
        (TeacherConfig, {"kind": "checkpoint", "lag": 0}, "lag is 0"),
        (TeacherConfig, {"order": 7}, "order is 7"),
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
    judged = replace(
        tiny_config(), play=PlayConfig(leaf=LeafConfig(judge_eta=0.2)), judge={"contains:x": -1}, teachers=[]
    )
    with pytest.raises(InputError, match="root_value_mix"):
        replace(judged, learner=LearnerConfig(root_value_mix=0.1))
    replace(judged, learner=LearnerConfig(root_value_mix=0.1), judge={})
    replace(judged, learner=LearnerConfig(root_value_mix=0.1), play=PlayConfig())


def test_teachers_need_something_to_learn_from_and_a_voice_of_their_own() -> None:
    nothing = PretrainConfig(steps=0, demonstrations=0)
    with pytest.raises(InputError, match="demonstrations"):
        SelfPlayConfig(model=LLAMA, pretrain=nothing, teachers=[TeacherConfig("ngram")])
    SelfPlayConfig(model=LLAMA, pretrain=nothing, teachers=[TeacherConfig("checkpoint")])
    with pytest.raises(InputError, match="twice"):
        SelfPlayConfig(model=LLAMA, teachers=[TeacherConfig("ngram"), TeacherConfig("ngram", lag=2)])
    SelfPlayConfig(model=LLAMA, teachers=[TeacherConfig("ngram", order=2), TeacherConfig("ngram", order=3)])


def test_every_record_is_frozen_refuses_unknown_keys_and_goes_through_json() -> None:
    pending: list[Any] = [tiny_config()]
    while pending:
        record = pending.pop()
        assert record.__pydantic_config__ == {"extra": "forbid"}
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, None)
        pending += [value for value in vars(record).values() if is_dataclass(value)]
    assert json.loads(json.dumps(asdict(tiny_config())))["play"]["search"]["simulations"] == 8
