"""Whole runs on disk: repeatable, and the same to the last bit however often and wherever they are
interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from tiny import Secret
from tiny_run import AtStage, Countdown, fingerprint, tiny_config, without_time
from transformers import AutoModelForCausalLM

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError
from tokenzero.selfplay import run as module
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.config import EvaluationConfig, TaskConfig
from tokenzero.selfplay.episode import read_episodes
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path, finished_rounds, shard_path
from tokenzero.tasks import Problem


class Interrupted(Exception):
    pass


def interrupt() -> None:
    raise Interrupted


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def heard() -> Countdown:
    return Countdown(10**9, interrupt)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, heard: Countdown) -> Path:
    """The run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    Run(tiny_config(), directory, heard).execute()
    return directory


def resumed(directory: Path, listener: Any = None) -> list[dict[str, Any]]:
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))  # a run must not lean on torch's own generator
    return Run(tiny_config(), directory, listener).execute(resume=True)


# ---- what a run leaves behind


def test_two_runs_of_a_seed_are_equal_to_the_last_bit(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)
    records = Run(tiny_config(), tmp_path / "run").execute()
    assert fingerprint(tmp_path / "run") == fingerprint(finished)
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [without_time(json.loads(line)) for line in lines] == [without_time(record) for record in records]


def test_another_seed_is_another_run(finished: Path, tmp_path: Path) -> None:
    Run(replace(tiny_config(), seed=6, rounds=2), tmp_path / "run").execute()
    one, other = fingerprint(finished), fingerprint(tmp_path / "run")
    for name in ("checkpoints/round-0000/model.safetensors", "episodes/round-0002.parquet"):
        assert one[name] != other[name]


def test_the_records_say_what_the_games_were(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    for record in records[2:]:  # of round 1 only the record was kept
        episodes = read_episodes(shard_path(finished, record["round"]))
        assert record["games"] == len(episodes) == 16
        assert record["solved"] == sum(episode.outcome == 1.0 for episode in episodes)
        ledger, before = record["ledger"], records[record["round"] - 1]
        spent = ledger["prefill_tokens"] + ledger["decode_tokens"] + ledger["value_tokens"]
        alone = sum(episode.forwarded_tokens for episode in episodes)
        prompts = sum(episode.prompt_len for episode in episodes)
        assert spent < alone, "prompts share what they begin with"
        assert alone - spent == prompts - ledger["prefill_tokens"]
        assert ledger["simulations"] == sum(episode.simulations for episode in episodes)
        assert ledger["teacher_tokens"] > 0
        assert ledger["judge_calls"] > 0
        distinct = len({(episode.problem, episode.answer) for episode in episodes})
        assert record["health"]["duplicate_answers"] == pytest.approx(1 - distinct / 16)
        assert set(record["teacher_weights"]) == {"3-gram", "lag1"}
        assert sum(record["teacher_weights"].values()) == pytest.approx(1.0)
        known = before["teachers"][""] if before["teachers"] else {}
        assert record["teacher_weights"] == {
            name: known[name]["weight"] if known else 0.5 for name in ("3-gram", "lag1")
        }
        assert record["consulted"]["lag1"]["tokens"] == ledger["teacher_tokens"]
        assert all(set(episode.rewards) == {"verifier", "length"} for episode in episodes)
        assert {episode.policy_version for episode in episodes} == {before["incumbent"]}
        assert record["spent"] == sum(episode.forwarded_tokens for episode in episodes)
        assert 0 <= record["greedy_accuracy"] <= 1
        assert 0 <= record["search_accuracy"] <= 1
        assert set(record["loss"]) >= {"policy", "value"}
        assert all(np.isfinite(list(record["loss"].values())))
    assert sum(record["solved"] for record in records) > 0, (
        "the run is only a test if something is learnt from"
    )


def test_outcomes_are_what_the_task_says_of_the_answers(finished: Path) -> None:
    task = Run(tiny_config(), finished).task
    for episode in read_episodes(shard_path(finished, 2)):
        problem = next(p for p in task.problems("train") if p.public.id == episode.problem)
        shown = replace(problem, public=replace(problem.public, prompt=episode.prompt))
        assert sorted(episode.prompt.split()) == sorted(problem.public.prompt.split())
        assert episode.outcome == 2 * task.score(shown, episode.answer) - 1


def test_a_checkpoint_is_a_hugging_face_directory_that_knows_its_task(finished: Path) -> None:
    directory = checkpoint_path(finished, 3)
    AutoModelForCausalLM.from_pretrained(directory)
    defaults = json.loads((directory / "tokenzero.json").read_text())
    assert defaults["task"]["name"] == "countdown"
    assert defaults["search"]["simulations"] == 8
    assert not [path for path in finished.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


# ---- interrupted inside


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.7, 0.85])
def test_a_run_interrupted_at_any_event_ends_the_same(
    finished: Path, heard: Countdown, tmp_path: Path, share: float
) -> None:
    event = max(1, round(share * (10**9 - heard.left)))
    with pytest.raises(Interrupted):
        Run(tiny_config(), tmp_path, Countdown(event, interrupt)).execute()
    resumed(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(finished)


@pytest.mark.parametrize(
    ("place", "call", "after"),
    [
        ("pretrain", 1, True),
        ("write_episodes", 2, True),
        ("Learner.learn", 3, True),
        ("Learner.save", 3, True),
        ("play_round", 2, True),
        ("Examiner.bout", 2, True),
        ("RunDirectory.commit", 1, False),
        ("RunDirectory.commit", 3, True),
        ("RunDirectory._tidy", 2, False),  # the manifest has its name, the metrics are those of before
    ],
)
def test_a_run_interrupted_at_a_boundary_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, call: int, after: bool
) -> None:
    home: Any = module
    *owner, name = place.split(".")
    if owner:
        home = getattr(module, owner[0])
    inner, calls = getattr(home, name), []

    def breaking(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call and not after:
            raise Interrupted
        result = inner(*arguments, **options)
        if len(calls) == call:
            raise Interrupted
        return result

    with monkeypatch.context() as patch:
        patch.setattr(home, name, breaking)
        with pytest.raises(Interrupted):
            Run(tiny_config(), tmp_path).execute()
    resumed(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(finished)


def test_many_interruptions_of_one_run_end_the_same(finished: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        try:
            resumed(tmp_path, Countdown(int(rng.integers(5, 60)), interrupt))
        except Interrupted:
            continue
    resumed(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(finished)


@pytest.mark.parametrize(("event", "n"), [("step", 80), ("file", 90), ("file", 171)])
def test_a_killed_process_leaves_a_run_that_ends_the_same(
    finished: Path, tmp_path: Path, event: str, n: int
) -> None:
    command = [sys.executable, tiny_run.__file__, str(tmp_path), event, str(n)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert finished_rounds(tmp_path) < 4
    resumed(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(finished)


# ---- a disk that is full


@pytest.mark.parametrize("allowed", [0, 40, 90])
def test_a_full_disk_keeps_what_was_finished(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    whole, calls, inner = fingerprint(finished), [], os.fsync

    def filling(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inner(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            Run(tiny_config(), tmp_path).execute()
    done = finished_rounds(tmp_path)
    for name, digest in fingerprint(tmp_path).items():
        if name.startswith("checkpoints/") and name in whole:  # some would have been deleted later
            assert digest == whole[name]
    for number in range(done):
        assert (checkpoint_path(tmp_path, number) / "model.safetensors").is_file()
    resumed(tmp_path)
    assert fingerprint(tmp_path) == whole


def test_a_disk_that_takes_no_bytes_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"config\.json"):
        Run(tiny_config(), tmp_path / "run").execute()


# ---- what --resume finds


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "half"
    with pytest.raises(Interrupted):
        Run(tiny_config(), directory, AtStage("learn", 3, interrupt)).execute()
    assert finished_rounds(directory) == 3
    return directory


@pytest.fixture
def half(original: Path, tmp_path: Path) -> Path:
    """A run with its first two rounds finished, interrupted in the third."""
    return Path(shutil.copytree(original, tmp_path / "half"))


def test_metrics_are_repaired(half: Path, finished: Path) -> None:
    whole = (half / "metrics.jsonl").read_text()
    (half / "metrics.jsonl").write_text(whole[: len(whole) // 2])
    with pytest.raises(Interrupted):
        resumed(half, Countdown(1, interrupt))
    assert (half / "metrics.jsonl").read_text() == whole
    (half / "metrics.jsonl").unlink()
    resumed(half)
    assert fingerprint(half) == fingerprint(finished)


def test_a_finished_run_is_left_as_it_is(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    records = resumed(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    assert [record["round"] for record in records] == [0, 1, 2, 3]


def test_a_finished_run_can_be_given_more_rounds(half: Path, finished: Path) -> None:
    records = Run(replace(tiny_config(), rounds=2), half).execute(resume=True)
    assert len(records) == 3
    resumed(half)
    assert fingerprint(half) == fingerprint(finished), "the rounds are told apart by nothing but their number"


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_shard_is_named(half: Path, damage: str) -> None:
    path = shard_path(half, 2)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"nonsense")
    with pytest.raises(InputError, match=r"round-0002\.parquet"):
        resumed(half)


def test_the_advice_for_a_damaged_shard_works(half: Path, finished: Path) -> None:
    shard_path(half, 2).write_bytes(b"")
    for path in checkpoint_path(half, 2).iterdir():
        path.unlink()
    resumed(half)
    assert fingerprint(half) == fingerprint(finished)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "train_state.safetensors", "value_head.safetensors", "config.json"]
)
def test_a_damaged_checkpoint_is_an_input_error(half: Path, name: str) -> None:
    path = checkpoint_path(half, 2) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        resumed(half)


@pytest.mark.parametrize("name", ["config.json", "checkpoints/round-0001/round.json"])
def test_damaged_records_are_named(half: Path, name: str) -> None:
    (half / name).write_text("{")
    with pytest.raises(InputError, match=Path(name).name):
        resumed(half)


def test_another_config_is_refused_by_its_key(finished: Path) -> None:
    before = fingerprint(finished)
    config = tiny_config()
    other = replace(config, learner=replace(config.learner, steps=5), seed=6)
    with pytest.raises(
        InputError, match=r"another learner\.steps \(it was 4, now 5\), seed; resume"
    ) as caught:
        Run(other, finished).execute(resume=True)
    assert "play" not in str(caught.value)
    assert fingerprint(finished) == before


def test_a_run_is_never_started_over_another_or_into_a_strangers_folder(
    finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        Run(tiny_config(), finished).execute()
    (tmp_path / "thesis.txt").write_text("do not touch")
    for resume in (False, True):
        with pytest.raises(InputError, match="not empty and holds no run"):
            Run(tiny_config(), tmp_path).execute(resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_process_killed_while_it_wrote_its_first_file_does_not_block_the_run(tmp_path: Path) -> None:
    (tmp_path / ".tmp-999999999-0-new-config.json").write_text("{")
    with pytest.raises(Interrupted):
        Run(tiny_config(), tmp_path, Countdown(1, interrupt)).execute(resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "manifest.json",
        "metrics.jsonl",
        "lock",
    }


# ---- other shapes of a run


def test_evaluation_can_be_turned_off(tmp_path: Path) -> None:
    config = replace(tiny_config(), evaluation=EvaluationConfig(problems=0), rounds=0)
    (record,) = Run(config, tmp_path / "run").execute()
    assert (record["greedy_accuracy"], record["search_accuracy"]) == (None, None)
    raw = replace(tiny_config(), evaluation=EvaluationConfig(problems=4, simulations=0), rounds=0)
    (record,) = Run(raw, tmp_path / "raw").execute()
    assert record["greedy_accuracy"] is not None
    assert record["search_accuracy"] is None


def test_a_run_without_a_warm_start_begins_with_random_weights(tmp_path: Path) -> None:
    config = tiny_config()
    config = replace(
        config, pretrain=replace(config.pretrain, steps=0, demonstrations=0), teachers=[], rounds=1
    )
    records = Run(config, tmp_path / "run").execute()
    assert records[0]["loss"]["policy"] == 0.0
    assert records[1]["games"] == 16
    assert not (tmp_path / "run" / "warm-start").exists()


def test_a_run_can_begin_from_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    config = tiny_config()
    loaded = replace(
        config,
        model=replace(config.model, load=str(checkpoint_path(finished, 0)), architecture={}),
        pretrain=replace(config.pretrain, steps=0),
        learner=replace(config.learner, value_warmup=0),
        rounds=0,
    )
    Run(loaded, tmp_path / "run").execute()
    name = "model.safetensors"
    assert (checkpoint_path(tmp_path / "run", 0) / name).read_bytes() == (
        checkpoint_path(finished, 0) / name
    ).read_bytes()


def test_gold_scores_training_games_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gold verifier, self-play scores its leaves; evaluation scores nothing before its games are
    over.
    """
    scored: list[str] = []

    class Gold(Secret):
        def problems(self, split: str) -> list[Problem]:  # type: ignore[override]
            return [Problem(p.public, p.public.prompt[::-1]) for p in super().problems(split)]

        def score(self, problem: Problem, answer: str) -> float:
            scored.append(problem.public.id.split(":")[0])
            return super().score(problem, answer)

    monkeypatch.setattr(module, "get_task", lambda name, **options: Gold())
    config = tiny_config()
    config = replace(config, task=TaskConfig("secret"), rounds=1, teachers=[], judge=None)
    config = replace(config, rewards=[], arena=ArenaConfig())
    (start, first) = Run(config, tmp_path / "run").execute()
    shown = scored.index("validation")
    assert set(scored[:shown]) == {"train"}, "demonstrations are on training problems"
    start_answers = scored[shown : shown + 15]
    assert start_answers == ["validation"] * 15, "the warm start's greedy and search answers, once each"
    assert set(scored[shown + 15 : -15]) == {"train"}
    assert scored[-15:] == ["validation"] * 15
    assert first["games"] == 16
    assert start["round"] == 0


def test_a_task_without_training_problems_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    options = {**config.task.options, "train": 0}
    with pytest.raises(InputError, match="no training problems"):
        Run(replace(config, task=TaskConfig("countdown", options)), tmp_path / "run")
