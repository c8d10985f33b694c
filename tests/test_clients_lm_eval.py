"""lm-evaluation-harness, unmodified, against a real server: what it measures through HTTP is what the model
itself says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import openai
import pytest
from lm_eval.tasks import TaskManager
from served import NAME, Served, checkpoint, greedy_tokens, log_probabilities, serving

ROWS: list[dict[str, Any]] = [
    {"question": "the quick brown", "answers": [" fox", " dog"]},
    {"question": "10 9 1 1 -> 20 :", "answers": [" 10 + 9 19", " 1 - 1"]},
    {"question": "jumps over", "answers": [" the lazy dog", " 19 + 1 20"]},
    {"question": "a", "answers": [" b", " cc"]},
]
LIKELIHOOD = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: answers
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
GENERATION = """
task: local_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answers[0]}}}}"
generation_kwargs: {{until: ["zzz"], max_gen_toks: 8, do_sample: false, temperature: 0.0}}
metric_list: [{{metric: exact_match}}]
"""
ROLLING = """
task: local_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}{{{{answers[0]}}}}"
metric_list: [{{metric: word_perplexity}}]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskManager:
    """The three tasks above over a local file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return _tasks_over(ROWS, tmp_path)


def _tasks_over(rows: list[dict[str, Any]], directory: Path) -> TaskManager:
    data = directory / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choice", LIKELIHOOD), ("words", GENERATION), ("rolling", ROLLING)):
        (directory / f"{name}.yaml").write_text(text.format(data=data))
    return TaskManager(include_path=str(directory), include_defaults=False)


def _evaluate(server: Served, tasks: TaskManager, task: str, **options: Any) -> list[dict[str, Any]]:
    """What the harness recorded of each row, in order."""
    chat = options.pop("chat", False)
    made = lm_eval.simple_evaluate(
        model="local-chat-completions" if chat else "local-completions",
        model_args={
            "model": NAME,
            "base_url": server.v1 + ("/chat/completions" if chat else "/completions"),
            "max_length": server.student.max_length,
            "max_retries": 1,
            **options,
        },
        tasks=[task],
        task_manager=tasks,
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    assert made is not None
    samples: list[dict[str, Any]] = sorted(made["samples"][task], key=lambda sample: sample["doc_id"])
    return samples


def _own(server: Served, context: str, continuation: str) -> float:
    """log P(continuation | context) by one plain forward of the model, as the harness has it for a causal
    model: tokens of the whole text, those of the context cut off.
    """
    tokenizer = server.student.tokenizer
    whole = list(tokenizer(context + continuation, add_special_tokens=False)["input_ids"])
    known = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    return sum(log_probabilities(server.student, whole)[known - 1 :])


@pytest.mark.parametrize(
    "options",
    [
        {},  # asks the server for its tokenizer
        {"batch_size": 4},
        {"num_concurrent": 4},
        {"tokenizer_backend": "huggingface", "tokenizer": "<checkpoint>"},
        {"tokenizer_backend": "huggingface", "tokenizer": "<checkpoint>", "batch_size": 3},
    ],
    ids=lambda options: " ".join(map(str, options)) or "auto",
)
def test_log_likelihoods_are_the_models_own(
    server: Served, tasks: TaskManager, options: dict[str, Any]
) -> None:
    if "tokenizer" in options:
        options = {**options, "tokenizer": str(checkpoint())}
    samples = _evaluate(server, tasks, "local_choice", **options)
    assert len(samples) == len(ROWS)
    for row, sample in zip(ROWS, samples, strict=True):
        found = [float(response[0][0]) for response in sample["resps"]]
        wanted = [_own(server, row["question"], answer) for answer in row["answers"]]
        assert found == pytest.approx(wanted, abs=1e-4)


def test_rolling_log_likelihoods_are_the_models_own(server: Served, tasks: TaskManager) -> None:
    """The harness conditions the first token on its prefix token, here <bos>."""
    student = server.student
    for row, sample in zip(ROWS, _evaluate(server, tasks, "local_rolling"), strict=True):
        text = row["question"] + row["answers"][0]
        ids = [
            student.tokenizer.bos_token_id,
            *student.tokenizer(text, add_special_tokens=False)["input_ids"],
        ]
        found = sample["resps"][0][0]
        assert float(found) == pytest.approx(sum(log_probabilities(student, ids)), abs=1e-4)


@pytest.mark.usefixtures("tasks")
def test_the_likeliest_continuation_is_called_greedy(server: Served, tmp_path: Path) -> None:
    """A token that is the likeliest, and another: the harness tells them apart by what the server says."""
    tokenizer = server.student.tokenizer
    rows: list[dict[str, Any]] = []
    for question in ("the", "the quick", "10 9", "lazy dog jumps", "over the fox", "19 + 1"):
        prompt = list(tokenizer(question, add_special_tokens=False)["input_ids"])
        likeliest = greedy_tokens(server.student, prompt, 1)
        text = tokenizer.decode(likeliest)
        if list(tokenizer(question + text, add_special_tokens=False)["input_ids"]) == prompt + likeliest:
            rows.append({"question": question, "answers": [text, "Z"]})
    assert rows, "a likeliest token that is text by itself"
    for sample in _evaluate(server, _tasks_over(rows, tmp_path), "local_choice"):
        assert [response[0][1] in (True, "True") for response in sample["resps"]] == [True, False]


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"num_concurrent": 2}], ids=str)
def test_generation_is_greedy_decoding(server: Served, tasks: TaskManager, options: dict[str, Any]) -> None:
    tokenizer = server.student.tokenizer
    for row, sample in zip(ROWS, _evaluate(server, tasks, "local_words", **options), strict=True):
        prompt = list(tokenizer(row["question"], add_special_tokens=False)["input_ids"])
        wanted = tokenizer.decode(greedy_tokens(server.student, prompt, 8), skip_special_tokens=True)
        assert sample["resps"][0][0] == wanted


def test_chat_generation_answers_every_row(server: Served, tasks: TaskManager) -> None:
    samples = _evaluate(server, tasks, "local_words", chat=True)
    with openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0) as client:
        for row, sample in zip(ROWS, samples, strict=True):
            made = client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": row["question"]}],
                max_tokens=8,
                temperature=0,
            )
            assert sample["resps"][0][0] == made.choices[0].message.content
