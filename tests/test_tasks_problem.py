"""The types that keep references away from test-time search."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from tiny import Mirror

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import FAILED, ONGOING, SOLVED, SPLITS, Problem, PublicProblem, Task, Verdict, get_task
from tokenzero.tasks.problem import check_split


def test_a_public_problem_has_no_place_for_a_reference() -> None:
    assert {field.name: field.type for field in fields(PublicProblem)} == {
        **dict.fromkeys(("id", "prompt", "tag"), "str"),
        "limit": "int | None",
        "stop": "tuple[str, ...]",
        "ids": "tuple[int, ...]",
    }
    problem = PublicProblem("a", "b")
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(problem, "reference", "42")  # slots: not even by force


def test_problems_and_verdicts_are_frozen() -> None:
    problem = Problem(PublicProblem("a", "b"), "gold")
    with pytest.raises(FrozenInstanceError):
        problem.reference = None  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        problem.public.prompt = "c"  # type: ignore[misc]
    assert hash(problem) == hash(Problem(PublicProblem("a", "b"), "gold"))


def test_the_three_verdicts() -> None:
    assert Verdict(False, None) == ONGOING
    assert Verdict(True, 1.0) == SOLVED
    assert Verdict(True, 0.0) == FAILED


def test_unknown_splits_are_refused_by_name() -> None:
    assert [check_split(split) for split in SPLITS] == ["train", "validation", "test"]
    with pytest.raises(InputError, match=r"'dev'.*train, validation, test"):
        check_split("dev")
    with pytest.raises(InputError, match="'dev'"):
        get_task("countdown").problems("dev")


def test_a_prompt_is_its_own_equivalent_unless_a_task_says_otherwise() -> None:
    assert Task.augment(get_task("countdown"), "any text", np.random.default_rng(0)) == "any text"


def test_a_task_has_no_automaton_unless_it_says_so() -> None:
    assert Mirror().automaton(["a", "b"]) is None
