"""AQuA: on made-up rows always, on the published files where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_questions import published, write_jsonl

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import ONGOING, SPLITS, AquaTask, Verdict, get_task

STATED = Verdict(True, None)


def _row(number: int, **changes: Any) -> dict[str, Any]:
    options = [f"{letter}){number + i}" for i, letter in enumerate("ABCDE")]
    row = {
        "question": f"What is {number} + 1?",
        "options": options,
        "rationale": f"One more than {number} is {number + 1}.\nAnswer: B",
        "correct": "B",
    }
    return {**row, **changes}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train_files": write_jsonl(tmp_path / "train.jsonl", [_row(i) for i in range(100, 200)]),
        "test_files": write_jsonl(tmp_path / "test.jsonl", [_row(i) for i in range(10)]),
    }


def test_problems_and_demonstrations(files: dict[str, str]) -> None:
    task = get_task("aqua", **files)
    assert isinstance(task, AquaTask)
    assert task.public_verifier is False
    problem = task.problems("test")[3]
    assert problem.reference == "B"
    assert problem.public.tag == "aqua"
    assert problem.public.prompt == (
        "Question: What is 3 + 1?\nA) 3\nB) 4\nC) 5\nD) 6\nE) 7\n"
        'Reason step by step, and end with a line "#### ANSWER"\nSolution:\n'
    )
    answers = [answer for _, answer in task.demonstrations(3, np.random.default_rng(0))]
    assert all(answer.endswith("Answer: B\n#### B") for answer in answers)


@pytest.mark.parametrize("answer_format", ["hashes", "boxed", "sentence"])
def test_demonstrations_are_right_and_end_the_answer(files: dict[str, str], answer_format: str) -> None:
    task = get_task("aqua", **files, answer_format=answer_format)
    references = {problem.public.prompt: problem for problem in task.problems("train")}
    for prompt, answer in task.demonstrations(30, np.random.default_rng(0)):
        problem = references[prompt]
        assert task.score(problem, answer) == 1.0
        assert task.verdict(problem.public, answer) == ONGOING
        assert task.verdict(problem.public, answer + "\n") == STATED
        assert task.verdict(problem.public, answer.rpartition("\n")[0] + "\n") == ONGOING


def test_a_rationale_that_ends_as_asked_is_not_told_twice(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", [_row(1, rationale="Add.\nThe answer is B."), _row(2, rationale="")]
    )
    task = get_task("aqua", train_files=path, validation_share=0.0, answer_format="sentence")
    answers = {answer for _, answer in task.demonstrations(2, np.random.default_rng(0))}
    assert answers == {"Add.\nThe answer is B.", "The answer is B."}


WRONG_OR_MALFORMED = [
    "",
    "A",
    "4",
    "F",
    "BB",
    "#### A",
    "#### F",
    "#### 4",
    "#### ",
    "#### B or C",
    "#### B, C",
    "#### B) and C)",
    "#### not B",
    "####\nB",
    "##### B",
    "#### B\n#### C",
    "#### B\n####",
    "\\boxed{B",
    "\\boxed{}",
    "\\boxed{BC}",
    "The answer is C.",
    "The answer is not B.",
    "The answer is 4.",
    "I like B best.",
    "A or B or C or D or E",
    "Answer: B. No, answer: D",
]


def test_wrong_and_malformed_answers_are_refused(files: dict[str, str]) -> None:
    task = get_task("aqua", **files)
    problem = task.problems("test")[3]
    assert len(WRONG_OR_MALFORMED) >= 20
    assert [answer for answer in WRONG_OR_MALFORMED if task.score(problem, answer)] == []
    for answer in (
        "B",
        "#### B",
        "#### (B)",
        "#### B) 4",
        "\\boxed{B}",
        "The answer is B.",
        "Answer: A\n#### B",
    ):
        assert task.score(problem, answer) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": "A)1"}, "a.jsonl line 1: field 'options' is 'A\\)1'; give a list of texts"),
        ({"options": []}, "line 1: field 'options'"),
        ({"options": ["1", "2"]}, r"line 1: field 'options' is \['1', '2'\]; write 'A\)...' to 'E\)...'"),
        ({"options": ["A)1", "C)2"]}, "write 'A"),
        ({"correct": "F"}, "line 1: field 'correct' is 'F'; give one letter of ABCDE"),
        ({"correct": "AB"}, "line 1: field 'correct' is 'AB'"),
        ({"rationale": None}, "line 1: field 'rationale' is missing"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [_row(1, **changes)])
    with pytest.raises(InputError, match=message):
        get_task("aqua", train_files=path).problems("train")


def test_a_template_must_show_the_choices() -> None:
    with pytest.raises(InputError, match=r"aqua template shows no choices; write \{options\}"):
        get_task("aqua", template="{question}\n")
    with pytest.raises(InputError, match="aqua answer_format is plain"):
        get_task("aqua", answer_format="plain", template="plain")


def test_every_published_answer_is_read_and_right() -> None:
    files = {"train_files": published("aqua_dev.jsonl"), "test_files": published("aqua_test.jsonl")}
    for answer_format in ("hashes", "boxed", "sentence"):
        task = get_task("aqua", **files, answer_format=answer_format)
        assert isinstance(task, AquaTask)
        assert len(task.problems("test")) == 254
        assert len(task.problems("train")) + len(task.problems("validation")) == 254
        for split in SPLITS:
            for problem, question in zip(task.problems(split), task._own(split), strict=True):
                assert task.score(problem, question.solution) == 1.0
                assert task.verdict(problem.public, question.solution + "\n") == STATED
                wrong = next(letter for letter in "ABCDE" if letter != problem.reference)
                assert task.score(problem, f"{question.solution}\n#### {wrong}") == 0.0
