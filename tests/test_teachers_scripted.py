"""Scripts: what they see, what becomes of their weights, and that their faults are counted, not raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.teachers.base import Continuation, Teacher
from tokenzero.teachers.scripted import Script, ScriptedConfig, ScriptedTeacher

CHARACTERS = character_tokenizer("abc+=")
A, B, C = 4, 5, 6
EOS = 2


def copies_the_prompt(prompt: str, partial: str) -> Mapping[str, float]:
    """A script that tests import by name."""
    return {prompt[len(partial) :]: 1.0}


def made(function: Any) -> ScriptedTeacher:
    script: Script = function
    return ScriptedTeacher("rule", script, CHARACTERS)


def test_sees_prompt_and_answer_apart() -> None:
    seen: list[tuple[str, str]] = []

    def record(prompt: str, partial: str) -> Mapping[str, float]:
        seen.append((prompt, partial))
        return {}

    teacher: Teacher = made(record)
    proposal = teacher.propose([[1, A, B, C], [1, A]], 2, [3, 2])
    teacher.propose([[1, A, B]], 2)
    assert seen == [("ab", "c"), ("a", ""), ("ab", "")]
    assert (proposal.actions == -1).all()
    assert proposal.tokens == 0
    assert made(record).propose([], 2).actions.shape == (0, 2)


def test_weights_are_brought_to_one_and_texts_are_continuations() -> None:
    teacher = made(lambda prompt, partial: {"bc": 3, "ba": 1.0, "": 4})
    proposal = teacher.propose([[1, A]], 3, [2])
    assert proposal.actions.tolist() == [[EOS, B, -1]]
    assert proposal.probs.tolist() == [[0.5, 0.5, 0.0]]
    assert proposal.continuations[0] == (
        Continuation((EOS,), 0.5),
        Continuation((B, C), 0.375),
        Continuation((B, A), 0.125),
    )
    assert not teacher.failures


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        "text",
        {"a": -1.0},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 0.0},
        {"a": "much"},
        {3: 1.0},
        [("a", 1.0)],
    ],
)
def test_nonsense_is_counted_and_proposes_nothing(nonsense: Any) -> None:
    teacher = made(lambda prompt, partial: nonsense if partial == "b" else {"c": 1.0})
    proposal = teacher.propose([[1, A, B], [1, A, C]], 2, [2, 2])
    assert teacher.failures.total() == 1
    assert proposal.actions.tolist() == [[-1, -1], [C, -1]]


def test_a_script_that_raises_is_counted() -> None:
    def broken(prompt: str, partial: str) -> Mapping[str, float]:
        raise RuntimeError("out of rules")

    teacher = made(broken)
    assert (teacher.propose([[1, A], [1, B]], 2).actions == -1).all()
    assert teacher.failures.total() == 2


def test_a_script_by_name() -> None:
    config = ScriptedConfig(function="test_teachers_scripted:copies_the_prompt")
    teacher = ScriptedTeacher.open(config, CHARACTERS)
    assert teacher.name == "copies_the_prompt"
    assert teacher.propose([[1, A, B, C, A]], 1, [4]).continuations[0] == (Continuation((B, C), 1.0),)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no_such_module_anywhere:f", "'no_such_module_anywhere:f' cannot be imported"),
        ("math:no_such_name", "'math' has no function 'no_such_name'"),
        ("math:pi", "'math' has no function 'pi'"),
        ("math", "write package.module:name"),
        (":f", "write package.module:name"),
        ("math:", "write package.module:name"),
    ],
)
def test_a_script_that_is_not_there(function: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ScriptedTeacher.open(ScriptedConfig(function=function), character_tokenizer("ab"))
