"""GSM8K: on made-up rows always, on the published files where they are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from text_questions import published, write_jsonl

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt, from_spec
from tokenzero.tasks import ONGOING, SPLITS, Gsm8kConfig, Gsm8kTask, Verdict, get_task
from tokenzero.tasks.text_task import TextTask

STATED = Verdict(True, None)


def _rows(count: int, first: int = 0) -> list[dict[str, str]]:
    return [
        {
            "question": f"Ann has {i} pears and buys {i}. How many has she?",
            "answer": f"{i} + {i} = <<{i}+{i}={2 * i}>>{2 * i:,} pears.\nDone.\n#### {2 * i:,}",
        }
        for i in range(first, first + count)
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train_files": write_jsonl(tmp_path / "train.jsonl", _rows(200, 500)),
        "test_files": write_jsonl(tmp_path / "test.jsonl", _rows(20)),
    }


def _task(files: dict[str, str], **options: Any) -> Gsm8kTask:
    task = get_task("gsm8k", **files, **options)
    assert isinstance(task, Gsm8kTask)
    return task


def _prompts(task: TextTask, split: str) -> list[str]:
    return [problem.public.prompt for problem in task.problems(split)]


def test_problems_references_and_demonstrations(files: dict[str, str]) -> None:
    task = _task(files)
    assert task.public_verifier is False
    problem = task.problems("test")[7]
    assert problem.reference == "14"
    assert problem.public.tag == "gsm8k"
    assert problem.public.prompt == (
        "Question: Ann has 7 pears and buys 7. How many has she?\n"
        'Reason step by step, and end with a line "#### ANSWER"\nSolution:\n'
    )
    shown = dict(task.demonstrations(300, np.random.default_rng(0)))
    assert set(shown) == set(_prompts(task, "train"))
    answer = shown[next(prompt for prompt in shown if "has 500 pears" in prompt)]
    assert answer == "500 + 500 = 1,000 pears.\nDone.\n#### 1,000"
    again = task.demonstrations(50, np.random.default_rng(1))
    assert again == task.demonstrations(50, np.random.default_rng(1))
    assert len({prompt for prompt, _ in again}) == 50


def test_annotations_are_kept_on_request(files: dict[str, str]) -> None:
    answers = [a for _, a in _task(files, annotations=True).demonstrations(9, np.random.default_rng(0))]
    assert all("<<" in answer for answer in answers)
    assert "<" not in _task(files).tokenizer_spec()["alphabet"]


@pytest.mark.parametrize("answer_format", ["hashes", "boxed", "sentence"])
def test_demonstrations_are_right_and_end_the_answer(files: dict[str, str], answer_format: str) -> None:
    task = _task(files, answer_format=answer_format)
    references = {problem.public.prompt: problem for problem in task.problems("train")}
    for prompt, answer in task.demonstrations(30, np.random.default_rng(0)):
        problem = references[prompt]
        assert task.score(problem, answer) == 1.0
        assert task.verdict(problem.public, answer) == ONGOING
        assert task.verdict(problem.public, answer + "\n") == STATED
        assert task.verdict(problem.public, answer.rpartition("\n")[0] + "\n") == ONGOING


def test_validation_is_cut_from_training_by_the_question_alone(tmp_path: Path) -> None:
    rows = _rows(400)
    one = get_task("gsm8k", train_files=write_jsonl(tmp_path / "a.jsonl", rows), validation_share=0.2)
    half = write_jsonl(tmp_path / "b.jsonl", rows[:200]), write_jsonl(tmp_path / "c.jsonl", rows[200:])
    two = get_task("gsm8k", train_files=half[::-1], validation_share=0.2)
    for split in ("train", "validation"):
        assert set(one.problems(split)) == set(two.problems(split))
    assert 50 < len(one.problems("validation")) < 110  # 80, and 8 a standard deviation
    assert len(one.problems("train")) + len(one.problems("validation")) == 400
    other = get_task("gsm8k", train_files=half, validation_share=0.2, seed=1)
    assert set(other.problems("validation")) != set(one.problems("validation"))
    fewer = get_task("gsm8k", train_files=half[0], validation_share=0.2)
    assert set(fewer.problems("train")) <= set(one.problems("train"))  # rows that are added move none


def test_a_question_is_in_one_split_only(tmp_path: Path) -> None:
    train = _rows(50) + [{**row, "question": row["question"].upper() + " "} for row in _rows(50)]
    task = get_task(
        "gsm8k",
        train_files=write_jsonl(tmp_path / "train.jsonl", train),
        validation_files=write_jsonl(tmp_path / "validation.jsonl", _rows(20, 35)),
        test_files=write_jsonl(tmp_path / "test.jsonl", _rows(20, 45)),
    )
    assert [len(task.problems(split)) for split in SPLITS] == [35, 10, 20]
    ids = [problem.public.id for split in SPLITS for problem in task.problems(split)]
    assert len(set(ids)) == len(ids)


def test_worked_examples_come_from_training_and_leave_it(files: dict[str, str]) -> None:
    bare, task = _task(files), _task(files, examples=3)
    prompts = _prompts(task, "test")
    before = prompts[0].removesuffix(_prompts(bare, "test")[0])
    assert all(prompt.startswith(before) for prompt in prompts + _prompts(task, "train"))
    assert before.count("#### 1,") == 3
    shown = [prompt for prompt in _prompts(bare, "train") if prompt in before]
    assert len(shown) == 3
    assert len(task.problems("train")) == len(bare.problems("train")) - 3
    assert not any(prompt.removeprefix(before) in shown for prompt in _prompts(task, "train"))
    assert len(task.problems("validation")) == len(bare.problems("validation"))
    few = write_jsonl(Path(files["train_files"]).with_name("few.jsonl"), _rows(2, 900))
    with pytest.raises(InputError, match="examples is 3 and there are 2 training questions"):
        _task({"train_files": few}, examples=3, validation_share=0.0).problems("train")


def test_sizes_templates_and_vocabulary(files: dict[str, str]) -> None:
    task = _task(files, train=5, validation=2, test=3, template="Q {question}\n")
    assert [len(task.problems(split)) for split in SPLITS] == [5, 2, 3]
    assert _prompts(task, "test")[0] == "Q Ann has 0 pears and buys 0. How many has she?\n"
    tokenizer = from_spec(task.tokenizer_spec())
    for split in SPLITS:
        for prompt in _prompts(task, split):
            assert tokenizer.decode(encode_prompt(tokenizer, prompt), skip_special_tokens=True) == prompt
    longest = max(len(answer) for _, answer in task.demonstrations(5, np.random.default_rng(0)))
    assert task.max_answer_tokens == longest + 1
    assert _task(files, max_answer_tokens=99).max_answer_tokens == 99


def test_test_problems_alone_are_enough_to_evaluate(files: dict[str, str]) -> None:
    task = _task({"test_files": files["test_files"]})
    assert len(task.problems("test")) == 20
    assert task.max_answer_tokens > 1000
    assert "?" in task.tokenizer_spec()["alphabet"]
    with pytest.raises(InputError, match="gsm8k has no train problems; set train_files"):
        task.demonstrations(1, np.random.default_rng(0))


WRONG_OR_MALFORMED = [
    "",
    " ",
    "14",  # this one alone is right: see below
    "15",
    "#### 15",
    "#### -14",
    "#### 14.5",
    "#### 1,4",
    "#### 14 or 15",
    "#### 14 million",
    "#### fourteen",
    "#### ",
    "####",
    "##### 14",
    "####\n14",
    "#### 14\n#### 15",
    "#### 14\n\\boxed{}",
    "\\boxed{14",
    "\\boxed{1}{4}",
    "7 + 7 = 14",
    "She has 14 pears.",
    "The answer is not 14.",
    "The answer is 7 + 7.",
    "#### 14 14",
    "#### 0x0e",
]


def test_wrong_and_malformed_answers_are_refused(files: dict[str, str]) -> None:
    problem, task = _task(files).problems("test")[7], _task(files)
    right = [answer for answer in WRONG_OR_MALFORMED if task.score(problem, answer) == 1.0]
    assert right == ["14"]
    assert len(WRONG_OR_MALFORMED) - len(right) >= 20
    for answer in ("#### 14", "#### 14.00", "#### $14", "14 pears", "\\boxed{14}", "The answer is 28/2."):
        assert task.score(problem, answer) == 1.0


def test_gold_stays_out_of_reach(files: dict[str, str]) -> None:
    task = _task(files)
    problem = task.problems("test")[7]
    for answer in ("#### 14\n", "#### 15\n"):
        assert task.verdict(problem.public, answer) == STATED
    with pytest.raises(InputError, match="without its reference"):
        task.score(replace(problem, reference=None), "#### 14")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q", "answer": "14"}, r"train.jsonl line 2: field 'answer' ends in '14'"),
        ({"question": "Q", "answer": "#### many"}, "line 2: field 'answer' ends in"),
        ({"question": "Q"}, "line 2: field 'answer' is missing; the fields here are question"),
        ({"question": " ", "answer": "#### 1"}, "line 2: field 'question' is empty"),
        ({"question": ["Q"], "answer": "#### 1"}, r"line 2: field 'question' is \['Q'\]"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [*_rows(1), row])
    with pytest.raises(InputError, match=message):
        get_task("gsm8k", train_files=path).problems("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer_format": "plain"}, "gsm8k answer_format is plain"),
        ({"answer_format": "xml"}, "gsm8k answer_format is xml; use one of hashes, boxed, sentence"),
        ({"examples": -1}, "gsm8k examples is -1; use 0 or more"),
        ({"examples": "3"}, "gsm8k examples is 3; give a value of type int"),
        ({"train": 0}, "gsm8k train is 0; use 1 or more"),
        ({"train_files": 3}, "gsm8k train_files is 3; give a path or a list of paths"),
        ({"validation_share": 1.0}, "validation_share is 1.0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"template": "zzz"}, "template 'zzz' does not exist"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gsm8kConfig(**options)


def test_missing_files_are_named() -> None:
    with pytest.raises(InputError, match=r"gsm8k train_files 'nowhere.jsonl' does not exist; give the path"):
        get_task("gsm8k", train_files="nowhere.jsonl").problems("train")
    with pytest.raises(InputError, match="gsm8k has no questions; set train_files"):
        get_task("gsm8k", dataset="").problems("train")


def test_a_data_set_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def load_dataset(name: str, subset: str | None) -> dict[str, list[dict[str, str]]]:
        asked.append((name, subset))
        return {"train": _rows(100, 500), "test": _rows(7)}

    package = ModuleType("datasets")
    package.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", package)
    task = get_task("gsm8k")
    assert asked == []  # nothing is fetched before it is needed
    assert len(task.problems("test")) == 7
    assert len(task.problems("train")) + len(task.problems("validation")) == 100
    assert asked == [("openai/gsm8k", "main")]

    def refuse(name: str, subset: str | None) -> None:
        raise ConnectionError(f"no way\nto {name}")

    package.load_dataset = refuse  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"'openai/gsm8k' cannot be opened \(no way to openai/gsm8k\); give"):
        get_task("gsm8k").problems("test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="needs the package datasets; run pip install datasets"):
        get_task("gsm8k").problems("test")


def test_every_published_answer_is_read_and_right() -> None:
    files = {"train_files": published("gsm8k_train_head.jsonl"), "test_files": published("gsm8k_test.jsonl")}
    for options in ({}, {"annotations": True}, {"answer_format": "boxed"}, {"answer_format": "sentence"}):
        task = _task(files, **options)
        assert len(task.problems("test")) == 1319
        assert len(task.problems("train")) + len(task.problems("validation")) == 1500
        for split in SPLITS:
            for problem, question in zip(task.problems(split), task._own(split), strict=True):
                assert task.score(problem, question.solution) == 1.0
                assert task.verdict(problem.public, question.solution + "\n") == STATED
                assert task.score(problem, f"#### {problem.reference}1") == 0.0
