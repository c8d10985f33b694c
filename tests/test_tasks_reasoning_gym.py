"""The reasoning-gym adapter: on a stand-in package always, on the real one where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import ONGOING, SPLITS, Problem, PublicProblem, get_task
from tokenzero.tasks.reasoning_gym import (
    MAX_SIZE,
    SEED_BLOCK,
    ReasoningGymConfig,
    ReasoningGymTask,
    _shared_beginning,
)


class Doubling:
    """Item i depends on seed + i alone, as in the package; `span` different questions exist."""

    def __init__(self, seed: int, size: int, span: int = 10**9) -> None:
        if span < 1:
            raise AssertionError("span must be positive")
        self.seed, self.size, self.span = seed, size, span

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert index < self.size
        number = (self.seed + index) % self.span
        return {
            "question": f"{number} + {number} =",
            "answer": str(2 * number),
            "metadata": {"number": number},
        }

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        if answer == "boom":
            raise ValueError(answer)
        return 1.0 if int(answer) == 2 * entry["metadata"]["number"] else 0.3


class Silent(Doubling):
    """A data set without gold answers, only a scorer."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "answer": None}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    kinds = {"doubling": Doubling, "silent": Silent}
    module = ModuleType("reasoning_gym")
    module.factory = SimpleNamespace(DATASETS=kinds)  # type: ignore[attr-defined]
    module.create_dataset = lambda name, **options: kinds[name](**options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)
    return module


def _questions(task: ReasoningGymTask, split: str) -> list[str]:
    return [problem.public.prompt for problem in task.problems(split)]


@pytest.mark.usefixtures("package")
def test_splits_share_no_question_and_repeat() -> None:
    task = ReasoningGymTask("doubling")
    assert [len(task.problems(split)) for split in SPLITS] == [1000, 100, 200]
    every = [question for split in SPLITS for question in _questions(task, split)]
    assert len(set(every)) == 1300
    assert ReasoningGymTask("doubling").problems("train") == task.problems("train")
    other = ReasoningGymTask("doubling", ReasoningGymConfig(seed=1))
    assert not set(every) & {question for split in SPLITS for question in _questions(other, split)}
    ids = [problem.public.id for split in SPLITS for problem in task.problems(split)]
    assert len(set(ids)) == 1300


@pytest.mark.usefixtures("package")
def test_repeated_questions_are_passed_over_and_test_is_served_first() -> None:
    task = ReasoningGymTask("doubling", ReasoningGymConfig(settings={"span": 250}))
    assert [len(task.problems(split)) for split in ("test", "validation", "train")] == [200, 50, 0]
    assert len({question for split in SPLITS for question in _questions(task, split)}) == 250


def test_seed_blocks_are_further_apart_than_any_split_draws() -> None:
    assert 20 * MAX_SIZE + 100 < SEED_BLOCK
    assert (3 * 1400 + 3) * SEED_BLOCK < 2**32


@pytest.mark.usefixtures("package")
def test_scores_are_all_or_nothing_unless_partial_is_asked_for() -> None:
    task = ReasoningGymTask("doubling")
    problem = task.problems("test")[3]
    assert problem.reference is not None
    assert task.score(problem, f" {problem.reference}\n") == 1.0
    assert task.score(problem, "-1") == 0.0
    partial = ReasoningGymTask("doubling", ReasoningGymConfig(partial=True))
    assert partial.score(problem, "-1") == 0.3
    assert partial.score(problem, problem.reference) == 1.0


@pytest.mark.usefixtures("package")
def test_a_scorer_that_raises_scores_nothing_and_is_counted() -> None:
    task = ReasoningGymTask("doubling")
    problem = task.problems("test")[0]
    assert [task.score(problem, answer) for answer in ("boom", "x", "", "-1")] == [0.0] * 4
    assert task.scorer_failures == 2


@pytest.mark.usefixtures("package")
def test_gold_stays_out_of_reach_of_a_public_problem() -> None:
    task = ReasoningGymTask("doubling")
    assert task.public_verifier is False
    problem = task.problems("test")[0]
    assert task.verdict(problem.public, str(problem.reference)) == ONGOING
    for forged in (
        Problem(problem.public),
        replace(problem, reference="?"),
        Problem(PublicProblem("x", "1 + 1 ="), "2"),
    ):
        with pytest.raises(InputError, match="with its reference"):
            task.score(forged, "2")


@pytest.mark.usefixtures("package")
def test_demonstrations_are_training_answers_each_used_once_first() -> None:
    task = ReasoningGymTask("doubling", ReasoningGymConfig(train=20))
    training = {(p.public.prompt, p.reference) for p in task.problems("train")}
    pairs = task.demonstrations(20, np.random.default_rng(0))
    assert set(pairs) == training
    assert pairs == task.demonstrations(20, np.random.default_rng(0))
    assert pairs != task.demonstrations(20, np.random.default_rng(1))
    assert len(task.demonstrations(50, np.random.default_rng(0))) == 50


@pytest.mark.usefixtures("package")
def test_a_data_set_without_answers_scores_but_does_not_demonstrate() -> None:
    task = ReasoningGymTask("silent")
    problem = task.problems("test")[0]
    assert problem.reference is not None
    assert problem.reference.startswith('{"number": ')
    assert task.score(problem, str(2 * int(problem.public.prompt.split(" ")[0]))) == 1.0
    with pytest.raises(InputError, match="no training answers"):
        task.demonstrations(1, np.random.default_rng(0))


@pytest.mark.usefixtures("package")
def test_vocabulary_and_length_limit_come_from_training_text() -> None:
    task = ReasoningGymTask("doubling")
    assert task.tokenizer_spec() == {"kind": "characters", "alphabet": " +0123456789="}
    longest = max(len(str(problem.reference)) for problem in task.problems("train"))
    assert task.max_answer_tokens == 2 * longest + 1
    assert ReasoningGymTask("doubling", ReasoningGymConfig(max_answer_tokens=5)).max_answer_tokens == 5


@pytest.mark.usefixtures("package")
def test_short_prompts_leave_out_what_all_training_questions_say() -> None:
    task = ReasoningGymTask("doubling", ReasoningGymConfig(short=True))
    whole = ReasoningGymTask("doubling")
    assert task._frame == ("", " =")
    for split in SPLITS:
        assert _questions(task, split) == [q.removesuffix(" =") + " :" for q in _questions(whole, split)]
    assert task.tokenizer_spec() == {"kind": "characters", "alphabet": " +0123456789:"}
    prompts = {prompt for prompt, _ in task.demonstrations(50, np.random.default_rng(0))}
    assert prompts <= set(_questions(task, "train"))
    problem = task.problems("test")[0]
    assert task.score(problem, str(problem.reference)) == 1.0


@pytest.mark.parametrize(
    ("texts", "shared"),
    [
        (["Add 12 and 3", "Add 14 and 5"], "Add "),
        (["Add: 1", "Add: 2"], "Add: "),
        (["Grid:\n1 2", "Grid:\n1 3"], "Grid:\n1 "),
        (["Add 1", "Sum 1"], ""),
        (["a", "b"], ""),
        ([], ""),
    ],
)
def test_what_texts_share_ends_with_a_whole_word(texts: list[str], shared: str) -> None:
    assert _shared_beginning(texts) == shared


@pytest.mark.usefixtures("package")
def test_shuffled_demonstrations_are_answers_of_other_training_problems() -> None:
    task = ReasoningGymTask("doubling", ReasoningGymConfig(train=200, shuffled=True))
    references = {problem.public.prompt: problem.reference for problem in task.problems("train")}
    pairs = task.demonstrations(200, np.random.default_rng(0))
    assert {prompt for prompt, _ in pairs} == set(references)
    assert {answer for _, answer in pairs} <= set(references.values())
    assert sum(references[prompt] == answer for prompt, answer in pairs) < 10
    assert pairs == task.demonstrations(200, np.random.default_rng(0))


@pytest.mark.usefixtures("package")
def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="no data set 'dubling'; did you mean 'doubling'"):
        get_task("reasoning-gym:dubling")
    with pytest.raises(InputError, match="no data set 'zzz'; use one of doubling, silent"):
        get_task("reasoning-gym:zzz")
    with pytest.raises(InputError, match=r"doubling refuses settings .*span must be positive"):
        get_task("reasoning-gym:doubling", settings={"span": 0}).problems("test")
    with pytest.raises(InputError, match="refuses settings"):
        get_task("reasoning-gym:doubling", settings={"spam": 1}).problems("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train is -1; use 0 to 40000"),
        ({"seed": 1401}, "seed is 1401; use 0 to 1400"),
        ({"max_answer_tokens": -1}, "max_answer_tokens is -1"),
        ({"settings": {"seed": 3}}, "settings hold 'seed'"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReasoningGymConfig(**options)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match="pip install reasoning-gym"):
        get_task("reasoning-gym:chain_sum")


def _needs_package() -> None:
    if importlib.util.find_spec("reasoning_gym") is None:
        pytest.skip("reasoning-gym is not installed")


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "puzzle24", "countdown", "simple_integration", "n_queens", "prime_factorization"]
)
def test_the_real_package(dataset: str) -> None:
    _needs_package()
    task = get_task(f"reasoning-gym:{dataset}", train=6, validation=3, test=3)
    assert isinstance(task, ReasoningGymTask)
    assert [len(task.problems(split)) for split in SPLITS] == [6, 3, 3]
    assert len({question for split in SPLITS for question in _questions(task, split)}) == 12
    for problem in task.problems("test"):
        assert task.score(problem, str(problem.reference)) == 1.0
        assert task.score(problem, "certainly not ( this") == 0.0
    assert task.scorer_failures == (3 if dataset == "prime_factorization" else 0)


def test_small_sudokus_are_short_and_partly_right_answers_earn_something() -> None:
    _needs_package()
    options = {"train": 200, "validation": 3, "test": 30, "short": True, "shuffled": True, "partial": True}
    task = get_task("reasoning-gym:mini_sudoku", **options)
    assert isinstance(task, ReasoningGymTask)
    assert {len(prompt) for prompt in _questions(task, "train")} == {33}
    assert set(task.tokenizer_spec()["alphabet"]) == set("1234_ \n:")
    answers = [answer for _, answer in task.demonstrations(30, np.random.default_rng(0))]
    scores = [task.score(p, answer) for p, answer in zip(task.problems("test"), answers, strict=True)]
    assert 0.1 < np.mean(scores) < 0.4
