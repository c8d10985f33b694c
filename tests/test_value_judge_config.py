"""Settings of judges: each kind from YAML-like values to verdicts, nesting, and mistakes in one line."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tiny import FAMILIES, make_student

from tokenzero.mcts.errors import InputError
from tokenzero.policy.named_function import named_function
from tokenzero.policy.student import Student
from tokenzero.value.cached_judge import CachedJudge
from tokenzero.value.function_judge import FunctionJudge
from tokenzero.value.judge import Judge
from tokenzero.value.judge_combination import JudgeCombination
from tokenzero.value.judge_config import (
    CombinationJudgeConfig,
    ConstitutionJudgeConfig,
    FunctionJudgeConfig,
    JudgeConfig,
    ModelJudgeConfig,
    NoisyJudgeConfig,
    RewardModelJudgeConfig,
    RulesJudgeConfig,
    build_judge,
)
from tokenzero.value.label_judge import LabelJudge

MODEL: dict[str, Any] = {"kind": "model", "labels": {"a": 1, "b": -1}, "template": "{prompt}{answer}"}


def read(values: dict[str, Any]) -> Any:
    """As the front door reads settings."""
    return TypeAdapter(JudgeConfig).validate_json(json.dumps(values), strict=True)


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        read(values)
    return str(caught.value.errors(include_url=False)[0])


def is_even(prompt: str, partial: str) -> bool:
    """Named in the settings below."""
    return len(partial) % 2 == 0


def test_rules_and_constitutions(tmp_path: Path) -> None:
    judge = build_judge(read({"kind": "rules", "rules": {"too_long:3": -1}}))
    assert (judge.name, judge.judge(["", ""], ["abcd", "a"]).tolist()) == ("rules", [-1, 0])
    path = tmp_path / "constitution.yaml"
    path.write_text("articles: [{name: a, rule: 'contains:a', verdict: accept}]", encoding="utf-8")
    named = build_judge(read({"kind": "constitution", "path": str(path), "name": "law"}))
    assert (named.name, named.judge(["", ""], ["abcd", "b"]).tolist()) == ("law", [1, 0])
    with pytest.raises(InputError, match="cannot be read"):
        build_judge(ConstitutionJudgeConfig(path=str(tmp_path / "none.yaml")))


def test_functions_and_noise() -> None:
    function = {"kind": "function", "function": f"{__name__}:is_even"}
    truth = build_judge(read(function))
    assert isinstance(truth, CachedJudge)
    assert truth.judge([""] * 3, ["", "a", "ab"]).tolist() == [1, -1, 1]
    texts = [str(number) for number in range(100)]
    noisy = build_judge(read({"kind": "noisy", "right": 0.8, "seed": 3, "inner": function}))
    true = truth.judge([""] * 100, texts)
    assert 0.6 < float((noisy.judge([""] * 100, texts) == true).mean()) < 0.95


def test_models(tmp_path: Path) -> None:
    student = make_student()
    with pytest.raises(InputError, match="there is no student"):
        build_judge(read(MODEL))
    own = build_judge(read(MODEL), student=student)
    assert isinstance(own, CachedJudge)
    plain = LabelJudge(student, template="{prompt}{answer}", labels={"a": 1, "b": -1})
    prompts, answers = ["abc", "fed", "c"], ["", "a", "d"]
    assert own.judge(prompts, answers).tolist() == plain.judge(prompts, answers).tolist()
    assert own.tokens == plain.tokens > 0
    student.save(tmp_path / "model")
    other = Student.from_config(FAMILIES["gpt2"], student.tokenizer, seed=1)
    loaded = build_judge(read(MODEL | {"load": str(tmp_path / "model")}), student=other)
    assert loaded.version == own.version, "load wins, and the same weights are the same judge"
    with pytest.raises(InputError, match="does not exist"):
        build_judge(read(MODEL | {"load": str(tmp_path / "none")}))


def test_a_model_reads_the_constitution(tmp_path: Path) -> None:
    path = tmp_path / "constitution.yaml"
    path.write_text("articles: [{name: a, text: ab, verdict: accept}]", encoding="utf-8")
    tokenizer = make_student(spec={"kind": "characters", "alphabet": "abcdeptf-: \n"}).tokenizer
    student = Student.from_config(FAMILIES["llama-gqa"], tokenizer, seed=1)
    settings = MODEL | {"constitution": str(path), "template": "{constitution}{prompt}{answer}"}
    judge = build_judge(read(settings), student=student)
    assert isinstance(judge, CachedJudge)
    assert isinstance(judge.inner, LabelJudge)
    assert judge.inner.template.constitution == "- accept: ab"
    judge.judge(["a"], ["b"])
    assert judge.failures == 0


def test_reward_models(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenzero.value import reward_model

    class Lengths:
        version = "1"

        def score(self, prompts: list[str], answers: list[str]) -> np.ndarray:
            return np.array([len(answer) for answer in answers], np.float32)

    opened: list[str] = []
    monkeypatch.setattr(
        reward_model.RewardModel, "load", classmethod(lambda cls, name: opened.append(name) or Lengths())
    )
    judge = build_judge(read({"kind": "reward_model", "load": "somewhere", "low": 1, "high": 2.5}))
    assert opened == ["somewhere"]
    assert isinstance(judge, CachedJudge)
    assert judge.judge([""] * 3, ["a", "ab", "abc"]).tolist() == [-1, 0, 1]


def test_remote_judges_are_built_without_asking_anyone() -> None:
    server = {"url": "http://127.0.0.1:9/v1", "model": "m"}
    judge = build_judge(read({"kind": "remote", "server": server}))
    assert (judge.name, judge.failures) == ("remote", 0)
    assert isinstance(judge, CachedJudge)
    judge.close()


def test_combinations_nest_and_cost_what_their_members_cost() -> None:
    inner = {
        "kind": "combination",
        "name": "inner",
        "how": "majority",
        "members": [{"kind": "function", "function": f"{__name__}:is_even"}, MODEL],
    }
    values = {
        "kind": "combination",
        "how": "first_that_speaks",
        "members": [{"kind": "rules", "rules": {"too_long:3": -1}}, inner],
    }
    config = read(values)
    assert isinstance(config, CombinationJudgeConfig)
    assert isinstance(config.members[1], CombinationJudgeConfig)
    judge = build_judge(config, student=make_student())
    assert isinstance(judge, JudgeCombination)
    assert judge.judge(["", ""], ["abcd", ""])[0] == -1
    assert list(judge.verdicts_by_member) == ["rules", "inner"]
    assert judge.tokens > 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "rule"}, ["rule", "rules"]),
        ({"kind": "rules", "rules": {"too_lang:3": -1}}, ["did you mean 'too_long'"]),
        ({"kind": "rules", "rules": {}}, ["at least one rule"]),
        ({"kind": "rules", "rules": {"too_long:3": 2}}, ["verdict 2"]),
        ({"kind": "rules", "rules": {"too_long:3": True}}, ["int"]),
        ({"kind": "rules", "rules": {"too_long:3": -1}, "nam": "x"}, ["nam", "unexpected"]),
        (MODEL | {"template": "{prompt}"}, ["no {answer}"]),
        (MODEL | {"labels": {"a": 1}}, ["leave no choice"]),
        (MODEL | {"margin": -1}, ["margin is -1"]),
        (MODEL | {"constitution": "x.yaml"}, ["no {constitution}"]),
        ({"kind": "reward_model", "load": "x", "low": 1, "high": 1}, ["low must be below high"]),
        ({"kind": "function", "function": "math.sqrt"}, ["package.module:name"]),
        ({"kind": "function", "function": "a-b:c"}, ["package.module:name"]),
        ({"kind": "function", "function": "a:b", "version": ""}, ["empty version"]),
        ({"kind": "noisy", "right": 1.2, "inner": MODEL}, ["from 0 to 1"]),
        ({"kind": "noisy", "right": 0.8, "inner": {"kind": "x"}}, ["inner"]),
        ({"kind": "combination", "how": "vote", "members": [MODEL]}, ["choose one of veto"]),
        ({"kind": "combination", "how": "veto", "members": []}, ["no members"]),
        (
            {"kind": "combination", "how": "veto", "members": [MODEL, MODEL]},
            ["two members are named 'model'"],
        ),
        (
            {"kind": "combination", "how": "veto", "members": [MODEL | {"labels": {"a": 1}}]},
            ["'members', 0, 'model'", "leave no choice"],
        ),
    ],
)
def test_mistakes_in_settings_are_named(values: dict[str, Any], words: list[str]) -> None:
    text = message(values)
    assert [word for word in words if word not in text] == []


def test_functions_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('half way')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name, words in (
        ("no_such_package.module:name", "No module named"),
        ("math:no_such_name", "no_such_name"),
        ("math:pi", "has no function 'pi'"),
        ("broken_module:name", "half way"),
    ):
        with pytest.raises(InputError, match=words):
            named_function(name, "judge function")
    assert named_function("math:sqrt", "judge function") is math.sqrt
    assert "broken_module" not in sys.modules


def test_records_are_frozen_and_their_types_can_be_resolved() -> None:
    for kind in (NoisyJudgeConfig, CombinationJudgeConfig):
        assert get_type_hints(kind)
    config = RulesJudgeConfig(rules={"too_long:3": -1})
    with pytest.raises(AttributeError):
        config.name = "x"  # type: ignore[misc]
    RewardModelJudgeConfig(load="x", low=-math.inf, high=0.0)
    judge: Judge = FunctionJudge(FunctionJudgeConfig("a:b").name, is_even, "1")
    assert judge.name == "function"
    assert ModelJudgeConfig().labels == {" good": 1, " bad": -1, " unsure": 0}
