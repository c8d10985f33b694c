"""The verb `sft`: rows as prompts and targets, loss on the target alone, resume, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES

from tokenzero.checkpoint import DEFAULTS_FILE, open_model
from tokenzero.cli import main
from tokenzero.commands import sft as command
from tokenzero.config import Layer
from tokenzero.fine_tuning import (
    FineTuningConfig,
    RowsConfig,
    fine_tune,
    load_fine_tuning,
    prompt_and_target,
    read_rows,
)
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import character_tokenizer, train_bpe
from tokenzero.tasks.prompt_templates import open_template
from tokenzero.tasks.text_rows import Row
from tokenzero.value import ValueConfig, ValueHead

LLAMA = {**FAMILIES["llama-mha"], "max_position_embeddings": 64, "initializer_range": 0.1}
ALPHABET = "\n !#+.:=0123456789QAabcdefghijklmnopqrstuvwxyz"
SUMS = [{"prompt": f"{a}+{b}=", "answer": a + b} for a in range(4) for b in range(4)]
QUICK = ("--set", "training.optimizer.lr=1e-2", "--set", "threads=1")


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def student(**options: Any) -> Student:
    return Student.from_config({**LLAMA, **options}, character_tokenizer(ALPHABET), seed=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    student().save(tmp_path / "model")
    return tmp_path / "model"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sft(capsys: pytest.CaptureFixture[str], model: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["sft", str(model), "--data", str(data), "--out", str(out), *QUICK, *more, "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def texts(fields: dict[str, Any], **options: Any) -> tuple[str, str]:
    config = RowsConfig(**options)
    template = open_template(config.template, config.answer_format)
    return prompt_and_target(Row(fields, "x.jsonl line 3"), config, template)


def test_a_row_becomes_a_prompt_and_a_target() -> None:
    assert texts({"prompt": "1+1=", "answer": "2"}) == ("1+1=", "2")
    assert texts({"prompt": " a:\n", "answer": " 2 "}) == (" a:\n", "2"), "a prompt is taken as it is"
    assert texts({"question": "q", "answer": "2"}) == ("Question: q\nAnswer:\n", "2")
    traced = {"question": "q", "answer": "2", "trace": "one more\n"}
    assert texts(traced)[1] == "one more\n2"
    assert texts(traced, separator=" => ")[1] == "one more => 2"
    assert texts(traced, answer_format="hashes")[1] == "one more\n#### 2"
    stated = {"question": "q", "answer": "2", "reasoning": "one more\n#### 2", "trace": "not me"}
    assert texts(stated, answer_format="hashes")[1] == "one more\n#### 2", "once"
    ending = {"question": "q", "answer": "2", "reasoning": "1+1=2"}
    assert texts(ending)[1] == "1+1=2\n2", "what only ends like the answer is kept"
    assert texts({"question": "q", "answer": "2", "reasoning": " "})[1] == "2"
    named = {"ask": "q", "out": "2", "why": "so"}
    assert texts(named, prompt="ask", answer="out", reasoning=("why",)) == ("q", "so\n2")
    assert texts({"question": "q", "answer": "2"}, template="step-by-step")[0].startswith("Q: q\nA: Let's")


def test_the_loss_is_on_the_target_and_the_end_mark_alone(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "1+2=", "answer": "3", "reasoning": "ab"}])
    tiny = student()
    rows = read_rows([str(data)], tiny, load_fine_tuning([Layer("x", {"held_out": 0.0})]))
    example = rows.trained[0]
    encode = tiny.tokenizer.convert_tokens_to_ids
    assert example.tokens == [1, *encode(list("1+2=")), *encode(["a", "b", "\n", "3"]), tiny.eos_id]
    assert example.prompt_length == 5


def test_what_was_learnt_is_written_without_special_tokens(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traced = [{**row, "reasoning": f"so {row['answer']}"} for row in SUMS]
    data = write_rows(tmp_path / "d.jsonl", traced)
    out = tmp_path / "out"
    said = sft(capsys, model, data, out, "--set", "epochs=40", "--set", "held_out=0")
    assert set(said) == {"out", "model", "rows", "steps", "scores"}
    assert (said["rows"], said["steps"]) == ({"trained": 16, "held_out": 0, "skipped": 0}, 40)
    assert [set(score) for score in said["scores"]] == [{"step", "loss"}] * 40
    assert said["scores"][-1]["loss"] < 0.1
    for prompt, answer in (("1+2=", "so 3\n3"), ("3+3=", "so 6\n6")):
        words = ["generate", str(out), "--prompt", prompt, "--method", "greedy", "--json"]
        assert main([*words, "--max-new-tokens", "20"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["text"], found["end"]) == (answer, "ended")


def test_byte_level_bpe_spells_what_it_was_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "Où est Zürich ?", "answer": "En Suisse, à 世界 <b>"}]
    tokenizer = train_bpe([row["question"] + row["answer"] for row in rows], 300)
    Student.from_config(LLAMA | {"max_position_embeddings": 128}, tokenizer, seed=1).save(tmp_path / "model")
    data = write_rows(tmp_path / "d.jsonl", rows)
    sft(capsys, tmp_path / "model", data, tmp_path / "out", "--set", "epochs=40")
    prompt = "Question: Où est Zürich ?\nAnswer:\n"
    words = ["generate", str(tmp_path / "out"), "--prompt", prompt, "--method", "greedy", "--json"]
    assert main([*words, "--max-new-tokens", "40"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == rows[0]["answer"]


def test_held_out_prompts_are_scored_and_never_trained_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "d.jsonl", [*SUMS, *SUMS])
    config = load_fine_tuning([Layer("x", {"held_out": 0.4})])
    rows = read_rows([str(data), str(data)], student(), config)
    heads = [{tuple(e.tokens[: e.prompt_length]) for e in part} for part in (rows.trained, rows.held_out)]
    assert heads[0] & heads[1] == set(), "equal prompts are on the same side"
    assert len(heads[0] | heads[1]) == 16
    assert heads[1]
    assert len(rows.trained) + len(rows.held_out) == 64
    said = sft(capsys, model, data, tmp_path / "out", "--set", "epochs=2", "--set", "held_out=0.4")
    assert said["rows"]["held_out"] == len(rows.held_out) // 2
    assert set(said["scores"][-1]) == {"step", "loss", "nats_per_token", "perplexity", "accuracy"}
    few = read_rows([str(write_rows(tmp_path / "few.jsonl", SUMS[:2]))], student(), FineTuningConfig())
    assert (len(few.trained), len(few.held_out)) == (1, 1), "few rows are not left unscored"


def test_an_interrupted_training_ends_with_the_same_bits(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "d.jsonl", SUMS)
    more = ("--set", "training.checkpoint_every=2", "--set", "training.optimizer.batch_size=4", "--seed", "5")
    expected = sft(capsys, model, data, tmp_path / "whole", *more)

    def stop_at_five(*given: Any, **options: Any) -> Any:
        def step(number: int, loss: float) -> None:
            if number == 5:
                raise KeyboardInterrupt

        return fine_tune(*given, **{**options, "on_step": step})

    out = tmp_path / "out"
    begun = ["sft", str(model), "--data", str(data), "--out", str(out)]
    monkeypatch.setattr(command, "fine_tune", stop_at_five)
    assert main([*begun, *QUICK, *more]) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(command, "fine_tune", fine_tune)
    assert main([*begun, "--resume", "--json"]) == 0  # its settings were kept
    assert json.loads(capsys.readouterr().out)["scores"] == expected["scores"]
    first, second = (Student.load(place).model.state_dict() for place in (tmp_path / "whole", out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = write_rows(tmp_path / "other.jsonl", SUMS[:9])
    assert main(["sft", str(model), "--data", str(other), "--out", str(out), "--resume"]) == 2
    assert "begun on other data" in capsys.readouterr().err
    assert main(begun) == 2
    assert "go on with it by --resume" in capsys.readouterr().err


def test_the_task_goes_along_and_the_value_head_does_not(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ValueHead(student().hidden_size, ValueConfig()).save(model)
    (model / DEFAULTS_FILE).write_text(json.dumps({"task": {"name": "arithmetic", "options": {"digits": 2}}}))
    data = write_rows(tmp_path / "d.jsonl", SUMS[:4])
    words = ["sft", str(model), "--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    assert main(words) == 0
    assert f"the value head of {model} stays behind" in capsys.readouterr().err
    opened = open_model(tmp_path / "out")
    assert opened.parts.value_head is None
    assert opened.parts.task.name == "arithmetic"


def test_long_rows_are_refused_by_line_or_skipped_and_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*SUMS[:3], {"prompt": "1+1=", "answer": "a" * 70}, SUMS[3]]
    data = write_rows(tmp_path / "d.jsonl", rows)
    words = ["sft", str(model), "--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert f"{data} line 4: 76 tokens with prompt and end mark, the limit is 64" in err
    assert len(err.splitlines()) == 1
    said = sft(capsys, model, data, tmp_path / "out", "--set", "rows.too_long=skip")
    assert said["rows"]["skipped"] == 1
    assert said["rows"]["trained"] + said["rows"]["held_out"] == 4
    strict = ("--set", "rows.max_tokens=6", "--set", "rows.too_long=skip")
    assert main([*words[:-1], "threads=1", *strict, "--out", str(tmp_path / "none")]) == 2
    assert "no rows are left to train on (5 were too long)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "2"}, "neither 'prompt' nor 'question' is there; the fields here are answer"),
        ({"prompt": "1+1="}, "field 'answer' is missing"),
        ({"prompt": "1+1=", "answer": ""}, "field 'answer' is empty"),
        ({"prompt": ["1"], "answer": "2"}, "field 'prompt' is ['1']"),
        ({"prompt": "é", "answer": "2"}, "'é' is not among the"),
        ({"prompt": "1", "answer": "é"}, "'é' is not among the"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], message: str
) -> None:
    data = write_rows(tmp_path / "d.jsonl", [SUMS[0], row])
    assert main(["sft", str(model), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert f"{data} line 2: " in err
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"rows": {"answer_format": "stars"}}, "answer_format is 'stars'"),
        ({"rows": {"answer": "prompt"}}, "answer is field 'prompt'"),
        ({"rows": {"max_tokens": 1}}, "max_tokens is 1"),
        ({"rows": {"template": "plane"}}, "did you mean 'plain'"),
        ({"rows": {"too_long": "cut"}}, "rows.too_long"),
        ({"training": {"step": 3}}, "did you mean 'training.steps'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_fine_tuning([Layer("--set", values)])


def test_one_changed_rate_leaves_the_other_defaults_as_they_are() -> None:
    config = load_fine_tuning([Layer("x", {"training": {"optimizer": {"lr": 1e-3}}})])
    default = FineTuningConfig().training.optimizer
    assert config.training.optimizer.lr == 1e-3
    assert config.training.optimizer.min_lr == default.min_lr == 1e-5
    assert config.training.optimizer.ema == default.ema == 0.0
