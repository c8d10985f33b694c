"""Questions and answers of the user's own: files, fields, comparisons, splits."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from text_questions import write_jsonl

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import from_spec
from tokenzero.tasks import (
    ONGOING,
    SPLITS,
    Problem,
    PublicProblem,
    QuestionAnswerConfig,
    QuestionAnswerTask,
    Verdict,
    get_task,
)
from tokenzero.tasks.question_answer import normalised

ROWS = [{"question": f"What is {i} times 2?", "answer": str(2 * i)} for i in range(60)]


def _task(**options: Any) -> QuestionAnswerTask:
    task = get_task("question-answer", **options)
    assert isinstance(task, QuestionAnswerTask)
    return task


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        write_jsonl(path, rows)
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_three_kinds_of_files_hold_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"q": f'Say "{i}",\nplease: \u2028\u00e9', "a": 0.1 * i, "kind": "even" if i % 2 else "odd"}
        for i in range(9)
    ]
    options = {"question": "q", "answer": "a", "tag": "kind", "compare": "number", "validation_share": 0.0}
    task = _task(test_files=_write(tmp_path / f"rows{suffix}", rows), **options)
    problems = task.problems("test")
    assert len(problems) == 9
    assert problems[3].public.prompt == 'Question: Say "3",\nplease: \u2028\u00e9\nAnswer:\n'
    assert problems[3].public.tag == "even"
    assert problems[3].reference == str(0.1 * 3)
    assert task.score(problems[2], "0.2") == 1.0
    assert task.score(problems[2], "0.3") == 0.0


def test_splits_are_cut_by_hash_and_share_no_question(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS * 2)
    task = _task(train_files=path, test_share=0.2, validation_share=0.2)
    ids = {split: {problem.public.id for problem in task.problems(split)} for split in SPLITS}
    assert sum(len(own) for own in ids.values()) == len(set().union(*ids.values())) == 60
    assert min(len(own) for own in ids.values()) >= 4
    assert [p.public.id for p in task.problems("test")] == [
        p.public.id for p in _task(train_files=path, test_share=0.2, validation_share=0.2).problems("test")
    ]
    backwards = write_jsonl(tmp_path / "b.jsonl", ROWS[::-1])
    other = _task(train_files=backwards, test_share=0.2, validation_share=0.2)
    assert {problem.public.id for problem in other.problems("test")} == ids["test"]
    given = _task(train_files=path, test_files=write_jsonl(tmp_path / "t.jsonl", ROWS[:10]))
    assert len(given.problems("test")) == 10
    assert {p.public.prompt for p in given.problems("test")}.isdisjoint(
        p.public.prompt for p in given.problems("train")
    )


def test_demonstrations_and_the_vocabulary(tmp_path: Path) -> None:
    task = _task(train_files=write_jsonl(tmp_path / "a.jsonl", ROWS))
    pairs = dict(task.demonstrations(100, np.random.default_rng(0)))
    assert pairs == {p.public.prompt: p.reference for p in task.problems("train")}
    tokenizer = from_spec(task.tokenizer_spec())
    for prompt, answer in pairs.items():
        assert (
            tokenizer.decode(tokenizer.encode(prompt + answer), skip_special_tokens=True) == prompt + answer
        )
    marked = _task(
        train_files=write_jsonl(tmp_path / "b.jsonl", ROWS),
        compare="number",
        answer_format="hashes",
        template="chain-of-thought",
    )
    prompt, answer = marked.demonstrations(1, np.random.default_rng(0))[0]
    assert 'end with a line "#### ANSWER"' in prompt
    assert answer.startswith("#### ")
    assert marked.verdict(PublicProblem("", prompt), answer + "\n") == Verdict(True, None)
    assert marked.verdict(PublicProblem("", prompt), answer) == ONGOING


@pytest.mark.parametrize(
    ("compare", "reference", "right", "wrong"),
    [
        (
            "exact",
            "New York",
            ["New York", " New York\n", "So:\n#### New York"],
            ["new york", "New  York", ""],
        ),
        (
            "text",
            "New York",
            ["new york", "New  York.", '"New York"', "The answer is New York.", "\\boxed{New York}"],
            ["York", "New York City", "", "#### ", "Newyork"],
        ),
        ("text", "-5", ["-5", "-5."], ["5", "+5", "- 5"]),
        ("text", "caf\u00e9", ["cafe\u0301", "CAF\u00c9"], ["cafe"]),
        ("contains", "York", ["It is York.", "york", "New York!"], ["Yorkshire", "", "yor k"]),
        ("contains", "5", ["5", "it is 5.", "(5)"], ["15", "-5", "5.1", "0.5", "50", "5,000", "1/5x5"]),
        (
            "number",
            "1,000",
            ["1000", "#### 1,000", "$1000.00", "2000/2"],
            ["1001", "one thousand", "", "1000 or 1"],
        ),
        ("number", "12 + 30 = 42\n#### 42", ["42", "The answer is 42."], ["12", "30"]),
        ("letter", "(C)", ["C", "#### C", "The answer is (C)."], ["c or d", "A", "", "#### D"]),
        ("math", "\\frac{1}{2}", ["0.5", "\\boxed{\\frac{2}{4}}", "1/2"], ["0.49", "2", ""]),
    ],
)
def test_comparisons(
    tmp_path: Path, compare: str, reference: str, right: list[str], wrong: list[str]
) -> None:
    if compare == "math":
        pytest.importorskip("math_verify")
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Q?", "answer": reference}])
    task = _task(test_files=path, compare=compare)
    problem = task.problems("test")[0]
    assert task.score(problem, reference) == 1.0
    assert [answer for answer in right if task.score(problem, answer) != 1.0] == []
    assert [answer for answer in wrong if task.score(problem, answer) != 0.0] == []


def test_numbers_may_differ_by_the_tolerance_and_no_more(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Q?", "answer": "0.1"}])
    problem = _task(test_files=path, compare="number").problems("test")[0]
    exact, near = (_task(test_files=path, compare="number", tolerance=t) for t in (0.0, 0.3))
    answers = ["0.1", "0.4", "-0.2", "0.4000000000000000001", "0.1000001"]
    assert [exact.score(problem, answer) for answer in answers] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [near.score(problem, answer) for answer in answers] == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_a_public_reference_is_shown_and_gold_is_not(tmp_path: Path) -> None:
    rows = [{"question": f"Q{i}?", "answer": f"gold{i}", "hint": f"hint{i}"} for i in range(5)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    task = _task(test_files=path, public_reference="hint")
    assert [task.public_reference(problem.public) for problem in task.problems("test")] == [
        f"hint{i}" for i in range(5)
    ]
    assert task.public_reference(PublicProblem("x", "y")) == ""
    assert _task(test_files=path).public_reference(task.problems("test")[0].public) == ""
    shown = json.dumps([[p.public.id, p.public.prompt, p.public.tag] for p in task.problems("test")])
    assert "gold" not in shown
    for leak in (
        {"public_reference": "answer"},
        {"tag": "answer"},
        {"question": "answer"},
        {"options": "answer"},
    ):
        with pytest.raises(InputError, match="answer is field 'answer', which another option shows"):
            _task(test_files=path, **leak)
    with pytest.raises(InputError, match="without its reference"):
        task.score(Problem(task.problems("test")[0].public), "gold0")


def test_reasoning_stands_in_demonstrations_and_references_and_only_the_answer_is_compared(
    tmp_path: Path,
) -> None:
    rows = [
        {"question": "Ann's river?", "steps": "Ann lives in Orm. Orm lies on the Tay.", "answer": "Tay"},
        {"question": "Bob's river?", "steps": "It is known.\nThe answer is Ure.", "answer": "Ure"},
        {"question": "Eve's river?", "steps": "", "answer": "The answer is Wye."},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    task = _task(
        train_files=path, validation_share=0.0, test_share=0.0, reasoning="steps", answer_format="sentence"
    )
    told = [
        "Ann lives in Orm. Orm lies on the Tay.\nThe answer is Tay.",
        "It is known.\nThe answer is Ure.",
        "The answer is Wye.",
    ]
    problems = task.problems("train")
    assert [problem.reference for problem in problems] == told
    assert dict(task.demonstrations(3, np.random.default_rng(0))) == {
        problem.public.prompt: problem.reference for problem in problems
    }
    assert [task.score(problems[0], text) for text in (told[0], "tay", "So what?\nThe answer is Tay.")] == [
        1.0
    ] * 3
    assert [
        task.score(problems[0], text) for text in (told[1], "Ann lives in Orm. Orm lies on the Tay.")
    ] == [0.0] * 2
    with pytest.raises(InputError, match="answer_format 'plain', which does not mark the answer"):
        _task(train_files=path, reasoning="steps")
    with pytest.raises(InputError, match="reasoning is field 'steps', which another option shows"):
        _task(train_files=path, reasoning="steps", answer_format="sentence", tag="steps")


def test_choices_have_a_field(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "answer": "B", "choices": ["A) x", "B) y"]},
        {"question": "2?", "answer": "A", "choices": "A) p\nB) q"},
    ]
    task = _task(test_files=write_jsonl(tmp_path / "a.jsonl", rows), options="choices", compare="letter")
    prompts = [problem.public.prompt for problem in task.problems("test")]
    assert prompts == ["Question: Which?\nA) x\nB) y\nAnswer:\n", "Question: 2?\nA) p\nB) q\nAnswer:\n"]
    with pytest.raises(InputError, match=r"options is 'choices'; write \{options\}"):
        _task(options="choices", template="{question}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "Q", "answer": "1"}\n{"question": \n', r"a.jsonl line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", r"a.jsonl line 1 is no object but '\[1\]'"),
        ("a.jsonl", b'\n\n{"question": "Q"}\n', "a.jsonl line 3: field 'answer' is missing"),
        ("a.jsonl", b'{"question": "Q", "answer": true}\n', "line 1: field 'answer' is True; give text"),
        ("a.jsonl", b'{"question": "Q", "answer": NaN}\n', "line 1: field 'answer' is nan"),
        ("a.jsonl", b'{"question": "Q", "answer": "\xff"}\n', "a.jsonl is not UTF-8 at byte"),
        ("a.csv", b"question,answer\nQ,1\nQ,1,2\n", "a.csv line 3 has more fields than the heading"),
        ("a.csv", b"question,answer\nQ\n", "a.csv line 2: field 'answer' is missing"),
        ("a.csv", b'question,answer\n"Q"x,1\n', "a.csv line 2 is not CSV"),
        (
            "a.csv",
            b"frage,answer\nQ,1\n",
            "a.csv line 2: field 'question' is missing; the fields here are answer, frage",
        ),
        ("a.parquet", b"PAR", "a.parquet is not Parquet"),
        ("a.txt", b"Q", "is of no known kind; use one of .jsonl"),
        ("a.jsonl", b"", "question-answer has no test problems; set test_files or raise test_share"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        _task(test_files=str(path)).problems("test")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("compare", "answer"), [("number", "many"), ("letter", "the third"), ("text", '""')])
def test_references_that_nothing_could_equal_are_refused(tmp_path: Path, compare: str, answer: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Q", "answer": answer}])
    with pytest.raises(InputError, match=rf"line 1: field 'answer' is .* to compare as {compare}"):
        _task(test_files=path, compare=compare).problems("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compare": "fuzzy"}, "question-answer compare is fuzzy; use one of exact, text"),
        ({"tolerance": -0.1, "compare": "number"}, "tolerance is -0.1"),
        ({"tolerance": 0.1}, "tolerance is 0.1 and compare 'text'"),
        ({"template": "chain-of-thought"}, "answer_format is 'plain'"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuestionAnswerConfig(**options)


def test_without_math_verify_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(InputError, match="pip install math-verify"):
        _task(compare="math")


def test_normalised_text() -> None:
    assert normalised(' "The  Big\tApple!" ') == "the big apple"
    assert normalised("-5.") == "-5"
    assert normalised(".5") == ".5"
    assert normalised("...") == ""


def test_numbers_in_json_keep_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"question": "Q", "answer": 1.50}\n{"question": "R", "answer": 12345678901234567890.1}\n'
    )
    problems = _task(test_files=str(path), compare="number").problems("test")
    assert [problem.reference for problem in problems] == ["1.50", "12345678901234567890.1"]
