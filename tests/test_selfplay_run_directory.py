"""A run's directory through every interruption: the rounds here write a few bytes, and no model."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_run import fingerprint, tiny_config

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError, write_bytes
from tokenzero.selfplay import manifest
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.manifest import Manifest
from tokenzero.selfplay.retention import Reach, RetentionConfig
from tokenzero.selfplay.run_directory import (
    RunDirectory,
    checkpoint_path,
    finished_records,
    finished_rounds,
    playing_checkpoint,
    shard_path,
)

ROUNDS = 6
CONFIG = replace(tiny_config(), keep=RetentionConfig(best=1, last=2))


class Killed(BaseException):
    """Not an Exception: nobody may catch it on the way."""


def played(directory: Path, config: SelfPlayConfig = CONFIG, rounds: int = ROUNDS) -> RunDirectory:
    """Play on to ``rounds`` rounds, each of which depends on what the one before left behind."""
    store = RunDirectory(directory, config, Reach(window=2))
    with store.opened(resume=True):
        for number in range(len(store.records), rounds):
            before = ""
            if number:
                before = (checkpoint_path(directory, number - 1) / "model.safetensors").read_text()
                write_bytes(shard_path(directory, number), f"games of {number}".encode())
            record = {
                "round": number,
                "promoted": number != 4,
                "incumbent": number if number != 4 else 3,
                "learner": {"from": number},
                "greedy_accuracy": 0.5 if number == 1 else 0.1 * number / 10,
            }
            store.commit(record, filled(f"{before}{number},"))
    return store


def filled(text: str) -> Callable[[Path], None]:
    def fill(directory: Path) -> None:
        (directory / "model.safetensors").write_text(text)
        (directory / "config.json").write_text("{}")

    return fill


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    played(tmp_path / "whole")
    return tmp_path / "whole"


def test_what_is_kept_and_what_is_deleted(whole: Path) -> None:
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["round-0000", "round-0001", "round-0003", "round-0004", "round-0005"]
    assert sorted(path.name for path in (whole / "episodes").iterdir()) == [
        "round-0004.parquet",
        "round-0005.parquet",
    ]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in lines] == list(range(ROUNDS))
    assert lines == finished_records(whole)
    assert finished_rounds(whole) == ROUNDS
    assert playing_checkpoint(whole) == checkpoint_path(whole, 5)


def test_killed_at_any_change_of_the_disk_it_ends_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename, removal and flush is a place to die, before and after it is done."""
    changes = ("replace", "rename", "unlink", "rmdir", "fsync", "ftruncate")
    state = {"left": 0}

    def tick() -> None:
        state["left"] -= 1
        if state["left"] == 0:
            raise Killed

    def deadly(inner: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            tick()
            result = inner(*arguments, **options)
            tick()
            return result

        return change

    expected, deaths = fingerprint(whole), 0
    for moment in range(1, 2000, 7):
        directory = tmp_path / f"{moment}"
        with monkeypatch.context() as patch:
            for name in changes:
                patch.setattr(os, name, deadly(getattr(os, name)))
            state["left"] = moment
            try:
                played(directory)
            except Killed:
                deaths += 1
            else:
                break
        for path in directory.rglob(".tmp-*"):  # the process lives, so that it would not sweep its own
            path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", "-999999999-")))
        played(directory)
        assert fingerprint(directory) == expected, moment
        shutil.rmtree(directory)
    else:
        pytest.fail("the run never ended")
    assert deaths > 30


@pytest.mark.parametrize(
    ("name", "back_to"),
    [
        ("checkpoints/round-0005/model.safetensors", 4),
        ("episodes/round-0005.parquet", 4),
        ("checkpoints/round-0003/model.safetensors", 0),  # the games that round 3 learnt from are gone
        ("episodes/round-0004.parquet", 0),
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_file_is_named_and_the_way_out_works(
    whole: Path, name: str, back_to: int, damage: str
) -> None:
    expected = fingerprint(whole)
    path = whole / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(content[:2] + bytes([content[2] ^ 1]) + content[3:])
    with pytest.raises(InputError, match=rf"{name}.*remove every checkpoint after \S+round-000{back_to} and"):
        played(whole)
    for number in range(back_to + 1, ROUNDS):
        shutil.rmtree(checkpoint_path(whole, number), ignore_errors=True)
    played(whole)
    assert fingerprint(whole) == expected


def test_a_damaged_warm_start_has_no_way_out_but_its_copy(whole: Path) -> None:
    (checkpoint_path(whole, 0) / "model.safetensors").write_text("nonsense")
    with pytest.raises(InputError, match=r"round-0000.*; restore the file or choose another --out"):
        played(whole)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_damaged_papers_are_named(whole: Path, name: str) -> None:
    path = whole / name
    path.write_text("{")
    with pytest.raises(InputError, match=name):
        played(whole)


def test_a_number_changed_in_the_manifest_is_seen(whole: Path) -> None:
    path = whole / "manifest.json"
    path.write_text(path.read_text().replace('"greedy_accuracy": 0.5', '"greedy_accuracy": 0.9'))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        played(whole)


def test_a_checkpoint_that_was_taken_away_takes_its_round_back(whole: Path) -> None:
    expected = fingerprint(whole)
    shutil.rmtree(checkpoint_path(whole, 5))
    assert finished_rounds(whole) == 5
    assert playing_checkpoint(whole) == checkpoint_path(whole, 3)
    played(whole)
    assert fingerprint(whole) == expected


def test_another_config_format_or_version_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(whole)
    with pytest.raises(InputError, match=r"another seed \(it was 5, now 6\)"):
        played(whole, replace(CONFIG, seed=6))
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 2)
        with pytest.raises(InputError, match="a run of format 1, this version reads format 2"):
            played(whole)
    monkeypatch.setattr("tokenzero.selfplay.run_directory.project_version", lambda: "9.9")
    with pytest.raises(InputError, match=r"was started with tokenzero \S+, this is 9\.9"):
        played(whole)
    assert fingerprint(whole) == before


def test_what_is_kept_may_be_changed_on_the_way(whole: Path) -> None:
    config = replace(CONFIG, keep=RetentionConfig(best=0, last=1), tracking=[], rounds=50)
    played(whole, config, ROUNDS + 1)
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["round-0000", "round-0006"]
    assert len(finished_records(whole)) == ROUNDS + 1
    assert Manifest.read(whole).config["keep"]["last"] == 1


def test_a_run_of_before_there_was_a_manifest_is_refused(whole: Path) -> None:
    (whole / "manifest.json").unlink()
    assert finished_rounds(whole) == 0
    with pytest.raises(InputError, match=r"has checkpoints and no manifest\.json"):
        played(whole)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for place in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(OutputError, match=r"cannot make .*; choose a place you may write to"):
            played(place)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fills_loses_the_unfinished_round_alone(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    expected = fingerprint(whole)
    played(tmp_path / "run", rounds=4)
    before = finished_records(tmp_path / "run")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OutputError, match="No space left on device; free some space") as told:
            played(tmp_path / "run")
        assert "\n" not in str(told.value)
    assert finished_records(tmp_path / "run") == before
    played(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == expected


def test_a_directory_that_may_not_be_written_is_named(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(whole)
    inner = os.open

    def readonly(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return inner(path, flags, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", readonly)
        with pytest.raises(OutputError, match="lock: Read-only file system; choose a place"):
            played(whole)
    assert fingerprint(whole) == before
    if os.geteuid() == 0:
        return  # root may write anywhere
    whole.chmod(0o500)
    try:
        with suppress(InputError), pytest.raises(OutputError, match="may write to"):
            played(whole)
    finally:
        whole.chmod(0o700)


def test_what_cannot_be_deleted_is_named(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(OutputError, match=r"cannot delete .*round-0003"):
            played(whole, rounds=ROUNDS + 1)
    assert finished_rounds(whole) == ROUNDS + 1, "the round was finished before"
    played(whole, rounds=ROUNDS + 1)
    assert not checkpoint_path(whole, 3).exists()
