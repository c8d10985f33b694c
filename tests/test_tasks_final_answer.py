"""What complete answers come to: equal for answers of the same meaning, "" where nothing is stated."""

from __future__ import annotations

import pytest

from tokenzero.answer_limits import FreeText, with_limit
from tokenzero.tasks import (
    GAME24,
    AquaConfig,
    AquaTask,
    CountdownTask,
    Gsm8kConfig,
    Gsm8kTask,
    QuestionAnswerConfig,
    QuestionAnswerTask,
    Task,
)

COUNTDOWN = CountdownTask()


def asked(compare: str) -> Task:
    return QuestionAnswerTask(QuestionAnswerConfig(train_files="none.jsonl", compare=compare), "questions")


@pytest.mark.parametrize(
    ("task", "answer", "final"),
    [
        (FreeText(8), "  so it is\n", "so it is"),
        (Gsm8kTask(Gsm8kConfig(train_files="none.jsonl"), "gsm8k"), "3 + 4 is 7\n#### 1,007.50\n", "2015/2"),
        (Gsm8kTask(Gsm8kConfig(train_files="none.jsonl"), "gsm8k"), "I do not know", ""),
        (AquaTask(AquaConfig(train_files="none.jsonl"), "aqua"), "thus 5 > 4\n#### b)", "B"),
        (AquaTask(AquaConfig(train_files="none.jsonl"), "aqua"), "none of them", ""),
        (asked("exact"), "#### New  York.", "New  York."),
        (asked("text"), "#### New  York.", "new york"),
        (asked("number"), "The answer is 2.50.", "5/2"),
        (asked("number"), "some", ""),
        (asked("math"), r"\boxed{\frac{1}{2}}", "1/2"),
        (asked("math"), r"\boxed{x^2}", "x^2"),
        (asked("letter"), "The answer is (C).", "C"),
    ],
)
def test_what_an_answer_comes_to(task: Task, answer: str, final: str) -> None:
    assert task.final_answer(answer) == final
    assert with_limit(task, 5).final_answer(answer) == final


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("4 * 7 28 8 - 2 6 28 - 6 22", "8 - 2 6 7 * 4 28 28 - 6 22 ", True),
        ("1 + 2 3 3 + 4 7", "2 + 1 3 4 + 3 7", True),
        ("8 - 2 6", "2 - 8 6", False),
        ("8 - 2 6", "8 - 2 5", False),  # one of them is wrong
        ("3 + 3 6 6 + 1 7", "3 + 1 4 4 + 3 7", False),  # the same sum by another way
        ("8 - 2", "8 - 2 ", True),  # unfinished: the words as they are
        ("8 - 2", "8 - 2 6", False),
        ("", "  ", True),
    ],
)
def test_countdown_answers_are_the_same_whatever_the_order_of_their_steps(
    one: str, other: str, same: bool
) -> None:
    assert (COUNTDOWN.final_answer(one) == COUNTDOWN.final_answer(other)) == same


def test_countdown_with_equals_signs_reads_the_same() -> None:
    task = CountdownTask(GAME24, "game24")
    assert task.final_answer("8 / 3 = 8/3 3 - 8/3 = 1/3") == "(3 - (8 / 3 = 8/3) = 1/3)"
    assert task.final_answer("") == ""
