"""The verb `reward-model` from end to end: train from files and runs, evaluate, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_student
from tiny_reward import plum_preferences, write_run

from tokenzero.cli import main
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.selfplay.episode import Episode
from tokenzero.value.preferences import read_preferences, write_preferences
from tokenzero.value.reward_model import RewardModel

QUICK = ("--epochs", "2", "--lr", "3e-3", "--held-out", "0.2")


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "train.jsonl"
    write_preferences(path, plum_preferences(120))
    return path


@pytest.fixture(scope="module")
def trained(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    words = ["reward-model", "train", "--preferences", str(pairs_file), "--model", "tiny", "--out", str(out)]
    assert main([*words, *QUICK]) == 0
    return out


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["reward-model", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_train_gives_one_object_and_a_model_that_eval_scores(
    pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    words = ("train", "--preferences", str(pairs_file), "--model", "tiny", "--out", str(out), *QUICK)
    said = _json(capsys, *words)
    assert set(said) == {"out", "model", "version", "training"}
    assert said["training"]["held_out"]["accuracy"] > 0.9
    assert said["version"] == RewardModel.load(out).version
    assert _json(capsys, *words) == said  # the same seed, the same model; it may replace its like
    test = tmp_path / "test.csv"
    write_preferences(test, plum_preferences(40, seed=9))
    seen = _json(capsys, "eval", str(out), "--preferences", str(test))
    assert (seen["version"], seen["report"]["pairs"], seen["file"]) == (said["version"], 40, str(test))
    assert seen["report"]["accuracy"] > 0.9
    assert seen["tokens"] > 0


def test_results_go_to_stdout_and_progress_to_stderr(
    pairs_file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preferences", str(pairs_file), "--model", "tiny", "--out", str(tmp_path / "m"), "--seed", "3"]
    assert main(["reward-model", "train", *words, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "held-out accuracy" in out
    assert "epoch" in err
    assert "epoch 1, loss" not in out
    assert main(["reward-model", "eval", str(trained), "--preferences", str(pairs_file)]) == 0
    out, err = capsys.readouterr()
    assert "calibration error" in out
    assert err.strip() == ""


def test_a_language_model_is_a_backbone(
    pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_student().save(tmp_path / "student")
    words = ("--preferences", str(pairs_file), "--model", str(tmp_path / "student"), "--epochs", "1")
    said = _json(capsys, "train", *words, "--out", str(tmp_path / "m"), "--max-tokens", "20")
    model = RewardModel.load(tmp_path / "m")
    assert model.model.config.model_type == "llama"
    assert model.settings.max_tokens == 20
    assert said["training"]["steps"] > 0


def test_pairs_are_mined_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = character_tokenizer("abcdef")
    tokens = tokenizer.convert_tokens_to_ids(["a", "b"])
    episodes = [
        Episode(
            problem=prompt,
            prompt=prompt,
            answer="a",
            tokens=[1, *tokens],
            prompt_len=1,
            parents=[-1, -1],
            positions=[],
            actions=[],
            weights=[],
            root_values=[0.0, 1.0, -1.0],
            attribution=[],
            outcome=1.0,
            forwarded_tokens=0,
            simulations=0,
            policy_version=0,
            seed=0,
        )
        for prompt in ("ab", "cd", "ef", "ba", "dc", "fe", "aa", "bb")
    ]
    run = write_run(tmp_path / "run", tokenizer, [episodes])
    kept = tmp_path / "mined.parquet"
    words = ("train", "--from-run", str(run), "--model", "tiny", "--out", str(tmp_path / "m"), "--gap", "1.5")
    said = _json(capsys, *words, *QUICK[:4], "--held-out", "0", "--write-preferences", str(kept))
    assert said["training"]["train_pairs"] == 8
    assert {(one.chosen, one.rejected) for one in read_preferences(kept)} == {("a", "b")}
    assert main(["reward-model", *words, "--per-problem", "0"]) == 2
    assert "per_problem is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--model", "tiny", "--out", "OUT"], "one of the arguments --preferences --from-run"),
        (["train", "--preferences", "no.jsonl", "--model", "tiny", "--out", "OUT"], "no.jsonl"),
        (["train", "--preferences", "PAIRS", "--model", "./nowhere", "--out", "OUT"], "does not exist"),
        (["train", "--preferences", "PAIRS", "--model", "tiny", "--out", "."], "is no reward model"),
        (["train", "--preferences", "PAIRS", "--model", "tiny", "--out", "OUT", "--gap", "1"], "--from-run"),
        (["train", "--preferences", "PAIRS", "--model", "tiny", "--out", "OUT", "--trainer", "x"], "'x'"),
        (["train", "--from-run", "nowhere", "--model", "tiny", "--out", "OUT"], "keeps no games yet"),
        (["eval", "nowhere/at/all", "--preferences", "PAIRS"], "does not exist"),
        (["eval", "TRAINED", "--preferences", "no.txt"], "unknown kind of file"),
        (["judge"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: list[str],
    message: str,
    pairs_file: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.txt").touch()
    places = {"PAIRS": str(pairs_file), "TRAINED": str(trained), "OUT": str(tmp_path / "out")}
    assert main(["reward-model", *(places.get(word, word) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
