"""`tokenzero selfplay` on a text game: the preset on a made-up corpus, its table, page and checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_text_run import write_corpus

import tokenzero
from tokenzero.cli import main
from tokenzero.run_kinds import with_corpus
from tokenzero.selfplay.run_directory import checkpoint_path

SMALL = [
    "model.architecture.num_hidden_layers=1",
    "model.architecture.hidden_size=16",
    "model.architecture.intermediate_size=24",
    "learner.steps=4",
    "learner.context=16",
    "learner.optimizer.batch_size=4",
    "learner.optimizer.warmup_steps=2",
    "referee.order=3",
    "matches.every=2",
    "matches.prompts=4",
    "matches.tokens=6",
    "monitors.every=2",
    "monitors.windows=4",
    "evaluated=200",
    "threads=1",
    "rounds=2",
]


def changes(directory: Path) -> list[str]:
    return [*SMALL, f"corpus.path={write_corpus(directory)}", f"corpus.cache={directory / 'cache'}"]


def played(directory: Path, *more: str) -> int:
    """The command itself, into ``directory``/run."""
    words = [word for change in changes(directory) for word in ("--set", change)]
    preset = ["--preset", "shakespeare-char-quick"]
    return main(["selfplay", *preset, *words, "--out", str(directory / "run"), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("text")
    assert played(directory) == 0
    return directory / "run"


def test_the_table_tells_each_round(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["selfplay", "--out", str(finished), "--resume"]) == 0  # told nothing again, plays nothing
    out = capfd.readouterr().out
    columns = "round step nats/char accuracy calibration confidence alarms forwarded seconds"
    assert re.search(r"\s*[┃|]\s*".join(columns.split()), out)
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert f"{record['nats_per_character']:.3f}" in out
        assert f"{record['forwarded']:,}" in out
    assert [record["step"] for record in records] == [0, 4, 8]


def test_json_is_the_records_and_nothing_else(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["selfplay", "--out", str(finished), "--resume", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert [record["round"] for record in said["rounds"]] == [0, 1, 2]


def test_without_a_corpus_and_offline_it_says_which_file_to_put_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    words = ["selfplay", "--preset", "shakespeare-char-quick", "--set", f"corpus.cache={cache}"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert str(cache / "tinyshakespeare.txt") in said
    assert "corpus.path" in said
    assert not (tmp_path / "run").exists()


def test_a_corpus_that_is_named_stays(tmp_path: Path) -> None:
    config: Any = tokenzero.load_config("shakespeare-char", overrides=["corpus.path=some.txt"])
    assert with_corpus(config) is config


def test_the_python_interface_takes_a_text_game(finished: Path, tmp_path: Path) -> None:
    config = tokenzero.load_config("shakespeare-char-quick", overrides=changes(tmp_path))
    records = tokenzero.selfplay(config, tmp_path / "again")
    before = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["nats_per_token"] for r in records] == [r["nats_per_token"] for r in before]


def test_the_checkpoint_goes_on_with_a_prompt(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = str(checkpoint_path(finished, 2))
    words = ["--prompt", "the cat ", "--method", "sample", "--max-new-tokens", "5", "--json"]
    assert main(["generate", model, *words]) == 0
    free = json.loads(capfd.readouterr().out)
    assert main(["generate", str(finished), *words]) == 0
    assert json.loads(capfd.readouterr().out)["text"] == free["text"]
    assert 0 < free["ledger"]["decode_tokens"] <= 5


def test_the_report_is_a_page_of_curves_and_alarms(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(finished), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    page = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert said["nats_per_character"] == records[-1]["nats_per_character"]
    assert said["steps"] == 8
    assert [(a["name"], a["step"]) for a in said["alarms"]] == [
        (alarm["name"], alarm["step"]) for record in records for alarm in record["alarms"]
    ]
    for name in ("nats per character", "calibration error", "overconfidence", "Elo", "Ledger"):
        assert name in page
    assert "<script" not in page
    assert "http" not in page


@pytest.mark.parametrize("verb", ["audit", "teachers", "view"])
def test_verbs_about_games_say_that_there_are_none(
    finished: Path, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    more = ["--out", str(finished.parent / "x.html")] if verb == "view" else []
    assert main([verb, str(finished), *more]) == 2
    assert "is a text game, which keeps no games" in capfd.readouterr().err


def test_a_comparison_of_arms_on_problems_refuses_a_text_game(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--preset", "shakespeare-char", "--out", str(tmp_path / "c")]) == 2
    assert "the settings of a text game" in capfd.readouterr().err
