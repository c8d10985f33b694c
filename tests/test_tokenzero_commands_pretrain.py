"""The verb `pretrain` from end to end: presets, resume, tables and JSON, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tokenzero.cli import main
from tokenzero.commands import pretrain as command
from tokenzero.config import Layer
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.policy.train_on_corpus import pretrain_on_corpus
from tokenzero.pretraining import SETTINGS_FILE, load_pretraining, pretraining_presets

TINY = {
    "model.shape": "0.8m",
    "model.architecture": "{model_type: llama, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, "
    "num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 24, tie_word_embeddings: true}",
    "training.steps": "8",
    "training.context": "12",
    "training.evaluate_every": "4",
    "training.checkpoint_every": "4",
    "training.evaluated": "50",
    "training.optimizer.lr": "1e-2",
    "training.optimizer.warmup_steps": "2",
    "threads": "1",
}


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("ROMEO: o me, what fray was here?\n" * 50, encoding="utf-8")
    return tmp_path / "text.txt"


def words(text: Path, out: Path, **changes: str) -> list[str]:
    settings = [word for name, value in {**TINY, **changes}.items() for word in ("--set", f"{name}={value}")]
    return ["pretrain", "--corpus", str(text), "--out", str(out), *settings]


def test_json_is_one_object_and_the_directory_is_hugging_faces(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main([*words(text, out), "--json"]) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert set(said) == {"out", "parameters", "corpus", "steps", "tokens", "scores"}
    assert (said["steps"], said["tokens"]) == (8, 8 * 12 * 12)
    assert said["corpus"]["characters"] == {"train": 1485, "validation": 165, "test": 0}
    assert [score["step"] for score in said["scores"]] == [4, 8]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == said["scores"]
    assert "nats/character" in printed.err
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.num_parameters() == said["parameters"]
    tokenizer = load_tokenizer(out)
    assert len(tokenizer) == said["corpus"]["vocab_size"]
    assert tokenizer("ROMEO")["input_ids"] == tokenizer("ROMEO", add_special_tokens=False)["input_ids"], (
        "nothing is put before a text, as in training"
    )


def test_the_model_writes_on(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(text, tmp_path / "model")) == 0
    table = capsys.readouterr().out
    assert "perplexity" in table
    assert "train loss" in table
    generate = ["generate", str(tmp_path / "model"), "--prompt", "ROMEO: é", "--method", "greedy", "--json"]
    assert main([*generate, "--max-new-tokens", "5"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 5


def test_an_interrupted_training_is_resumed_as_it_was_begun(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*words(text, whole, seed="7"), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["scores"]
    for stop in (3, 6):  # before the first checkpoint, and after it

        def interrupted(*given: Any, stop: int = stop, **options: Any) -> Any:
            on_step = options["on_step"]

            def step(number: int, loss: float) -> None:
                on_step(number, loss)
                if number == stop:
                    raise KeyboardInterrupt

            return pretrain_on_corpus(*given, **{**options, "on_step": step})

        monkeypatch.setattr(command, "pretrain_on_corpus", interrupted)
        begun = words(text, out, seed="7") if stop == 3 else ["pretrain", "--out", str(out), "--resume"]
        assert main(begun) == 130
        assert f"tokenzero pretrain --out {out} --resume" in capsys.readouterr().err
    monkeypatch.setattr(command, "pretrain_on_corpus", pretrain_on_corpus)
    assert main(["pretrain", "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == expected
    first, second = (Student.load(place).model.state_dict() for place in (whole, out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main(["pretrain", "--out", str(out), "--resume", "--json"]) == 0  # finished: nothing is trained
    assert json.loads(capsys.readouterr().out)["scores"] == expected


def test_a_given_model_goes_on_with_its_own_tokenizer(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(text, tmp_path / "first"), "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["scores"][-1]
    text.write_text("ROMEO: o me, what fray was here? ü\n" * 50, encoding="utf-8")
    more = words(text, tmp_path / "second", **{"model.load": str(tmp_path / "first")})
    assert main([*more, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["scores"][0]["loss"] < before["loss"]
    assert said["corpus"]["vocab_size"] == len(load_tokenizer(tmp_path / "first"))


def test_every_preset_is_a_config_and_one_may_build_on_another(tmp_path: Path) -> None:
    configs = {name: load_pretraining(name) for name in pretraining_presets()}
    assert set(configs) == {"shakespeare-char", "shakespeare-bpe", "124m"}
    char, bpe, large = configs["shakespeare-char"], configs["shakespeare-bpe"], configs["124m"]
    assert (char.training.context, char.training.optimizer.batch_size, char.training.steps) == (64, 12, 2000)
    assert bpe.training == char.training
    assert (bpe.corpus.tokenizer.kind, char.corpus.tokenizer.kind) == ("bpe", "characters")
    assert large.model.shape == "124m"
    assert large.corpus.tokenizer.vocab_size == 50_257
    (tmp_path / "mine.yaml").write_text("preset: shakespeare-bpe\nseed: 4\n")
    mine = load_pretraining(path=tmp_path / "mine.yaml", changes=[Layer("x", {"threads": 1})])
    assert (mine.seed, mine.threads, mine.corpus.tokenizer) == (4, 1, bpe.corpus.tokenizer)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--preset", "shakespear-char"], "did you mean 'shakespeare-char'"),
        (["--set", "training.step=3"], "training.step is not an option; did you mean 'training.steps'"),
        (["--set", "training.precision=half"], "training.precision"),
        (["--set", "training.context=25"], "context is 25, the model takes 24 tokens"),
        (["--set", "model.shape=1m"], "model shape '1m' does not exist"),
        (["--set", "device=tpu"], "device is 'tpu'"),
        (["--seed", "-1"], "seed -1"),
        (["--config", "none.yaml"], "config none.yaml cannot be read"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_mistakes_are_one_line(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert main([*words(text, tmp_path / "m"), *extra]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.splitlines()[-1].startswith("tokenzero: error:")
    assert "Traceback" not in err
    assert not (tmp_path / "m" / "model.safetensors").exists()
    assert main([*words(text, tmp_path / "m"), "--set", "training.steps=1"]) == 0, "the place is still free"


def test_a_directory_that_holds_something_is_never_overwritten(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    assert main(words(text, out)) == 0
    assert main(words(text, out)) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    (out / SETTINGS_FILE).unlink()
    for resume in ([], ["--resume"]):
        assert main([*words(text, out), *resume]) == 2
        assert "holds no such training" in capsys.readouterr().err


def test_without_a_corpus_offline_one_line_says_what_to_do(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m")
    assert main(["pretrain", "--out", out]) == 2
    err = capsys.readouterr().err
    assert "tinyshakespeare.txt" in err
    assert len(err.splitlines()) == 1
    assert main(["pretrain", "--preset", "124m", "--out", out]) == 2
    assert "no corpus is named; give --corpus PATH" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenzero.pretraining import device_of

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    with pytest.raises(InputError, match="torch finds no GPU"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == "cuda"
