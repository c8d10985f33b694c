"""What tasks say of steps: how many an answer has, and which actions are legal after it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tiny import Mirror

from tokenzero.answer_limits import with_limit
from tokenzero.tasks import PublicProblem, Task
from tokenzero.tasks.countdown import CountdownConfig, CountdownTask
from tokenzero.tasks.maze import MazeConfig, MazeTask

COUNTDOWN = {
    "words": CountdownConfig(numbers=3, train=20, validation=5, test=5),
    "equals": CountdownConfig(numbers=3, equals=True, train=20, validation=5, test=5),
    "fractions": CountdownConfig(
        numbers=3, fractions=True, granularity="characters", train=20, validation=5, test=5
    ),
    "characters": CountdownConfig(numbers=3, granularity="characters", train=20, validation=5, test=5),
}


def all_answers(task: Task, problem: PublicProblem, glue: str = "") -> list[str]:
    """Every answer that taking named actions leads to."""
    done, open_ended = [], [""]
    while open_ended:
        answer = open_ended.pop()
        actions = task.actions(problem, answer)
        assert actions is not None
        assert len(set(actions)) == len(actions)
        if actions:
            open_ended += [answer + action + glue for action in actions]
        else:
            done.append(answer)
    return done


@pytest.mark.parametrize("variant", COUNTDOWN)
@pytest.mark.parametrize("glue", ["", " "])
def test_actions_of_countdown_are_all_legal_steps_and_lead_to_whole_answers(variant: str, glue: str) -> None:
    task = CountdownTask(COUNTDOWN[variant])
    problem = task.problems("test")[0].public
    found = all_answers(task, problem, glue)
    assert all(task.verdict(problem, answer).done for answer in found)
    assert any(task.verdict(problem, answer).score == 1.0 for answer in found)
    for _, answer in task.demonstrations(300, np.random.default_rng(0)):
        width = 5 if variant == "equals" else 4
        assert task.steps(answer) == len(answer.split()) // width - 1, "the last word may still grow"
        assert task.steps(answer + " ") == len(answer.split()) // width
    drawn = {task._random_answer(problem.prompt, np.random.default_rng(seed)) for seed in range(300)}
    assert drawn <= {answer.strip() for answer in found}


def test_a_step_that_was_begun_is_finished() -> None:
    task = CountdownTask()
    problem = PublicProblem("p", "4 7 8 10 -> 24 :")
    assert task.actions(problem, "8 - ") == ["4 4", "7 1"]
    assert task.actions(problem, "8 - 4 4") == task.actions(problem, "8 - 4 4 ")[:0] + [
        f" {step}" for step in task.actions(problem, "8 - 4 4 ")
    ]
    assert task.actions(problem, "8 - 9") == []
    assert "4 + 7 11" in task.actions(problem, "")


@pytest.mark.parametrize("glue", ["", " "])
def test_actions_of_a_maze_are_the_legal_moves(glue: str) -> None:
    task = MazeTask(MazeConfig(size=4, train=50, validation=5, test=5))
    for problem in [problem.public for problem in task.problems("test")]:
        found = all_answers(task, problem, glue)
        assert all(task.verdict(problem, answer).done for answer in found)
        assert any(task.verdict(problem, answer).score == 1.0 for answer in found)
        names = sorted(task._numbers)
        legal = [name for name in names if task.verdict(problem, name).score != 0.0]
        first = task.actions(problem, "")
        stuck = [name for name in first if name not in legal]  # a dead end is legal, and lost
        assert sorted({*first} - {*stuck}) == legal
        for name in first:
            assert task.steps(name) == 1
            if not task.verdict(problem, name).done:
                assert name[1] in task.actions(problem, name[0])
    answers = [answer for _, answer in task.demonstrations(50, np.random.default_rng(0))]
    assert all(task.steps(answer) == len(answer.split()) for answer in answers)


def test_other_tasks_count_lines_and_name_nothing() -> None:
    task = Mirror()
    assert task.actions(PublicProblem("p", "abc"), "") is None
    assert [task.steps(text) for text in ("", "a", "a\n", "a\nb", "a\n\n")] == [0, 0, 1, 1, 2]


def test_a_task_with_another_limit_is_still_the_task() -> None:
    task = CountdownTask(COUNTDOWN["words"])
    problem = task.problems("test")[0].public
    limited = with_limit(task, 5)
    for answer in itertools.chain([""], task.actions(problem, "")):
        assert limited.actions(problem, answer) == task.actions(problem, answer)
        assert limited.steps(answer + " ") == task.steps(answer + " ")
