"""Runs with promotions, refusals, resets, roll-backs and changed learning rates, interrupted anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from tiny_run import Countdown, fingerprint, tiny_config

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay import examiner
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.episode import read_episodes
from tokenzero.selfplay.health import Alarm, HealthConfig
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path, shard_path
from tokenzero.value import ValueHead

# What happens after each round, from round 1 on: does the candidate win, and what do alarms ask for?
STORY: list[tuple[bool, tuple[str, ...]]] = [
    (True, ()),
    (False, ("lower_lr",)),
    (False, ()),  # the second refusal in a row: the learner goes back to round 1
    (True, ("roll_back",)),
    (True, ("raise_entropy",)),
]


class Interrupted(Exception):
    pass


def interrupt() -> None:
    raise Interrupted


def config() -> SelfPlayConfig:
    base = tiny_config()
    return replace(
        base,
        play=replace(base.play, games=6),
        arena=replace(base.arena, after_losses="reset", patience=2, simulations=0),
        keep=RetentionConfig(best=0, last=9, shards="all"),
        rounds=len(STORY),
    )


@pytest.fixture(autouse=True, scope="module")
def _story() -> Iterator[None]:
    """The arena and the alarms say what the story says; matches and measures are made all the same."""
    threads = torch.get_num_threads()
    told: dict[str, Any] = {"round": 0}

    def check(measures: Any, history: Any, config: HealthConfig) -> list[Alarm]:
        told["round"] = len(history) + 1
        return [Alarm("entropy", 0.0, 1.0, action, action) for action in STORY[len(history)][1]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examiner, "check", check)
        patch.setattr(examiner, "should_promote", lambda raw, searched: STORY[told["round"] - 1][0])
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def heard() -> Countdown:
    return Countdown(10**9, interrupt)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, heard: Countdown) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "whole"
    Run(config(), directory, heard).execute()
    return directory


def steps(directory: Path, number: int) -> int:
    state = load_file(checkpoint_path(directory, number) / "train_state.safetensors")
    return next(int(value) for name, value in state.items() if name.startswith("step/"))


def test_the_records_tell_the_story(finished: Path) -> None:
    records = Run(config(), finished).execute(resume=True)
    assert [r["promoted"] for r in records] == [True, True, False, False, False, True]
    assert [r["incumbent"] for r in records] == [0, 1, 1, 1, 1, 5]
    assert [r["learner"]["from"] for r in records] == [0, 1, 2, 1, 1, 5]
    assert [r["learner"]["lr_factor"] for r in records] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    bonus = HealthConfig().entropy_bonus
    assert [r["learner"]["entropy_bonus"] for r in records] == [0.0] * 5 + [bonus]
    assert [r["arena"] and r["arena"]["against"] for r in records] == [None, 0, 1, 1, 1, 1]
    for number in range(1, 6):
        versions = {e.policy_version for e in read_episodes(shard_path(finished, number))}
        assert versions == {records[number - 1]["incumbent"]}


def test_the_learner_goes_on_from_where_the_story_says(finished: Path) -> None:
    each = config().learner.steps
    assert [steps(finished, r) for r in range(1, 6)] == [each, 2 * each, 3 * each, 2 * each, 2 * each]


@pytest.mark.parametrize("share", [0.35, 0.5, 0.62, 0.74, 0.9, 0.97])
def test_interrupted_anywhere_it_ends_the_same(
    finished: Path, heard: Countdown, tmp_path: Path, share: float
) -> None:
    event = max(1, round(share * (10**9 - heard.left)))
    with pytest.raises(Interrupted):
        Run(config(), tmp_path, Countdown(event, interrupt)).execute()
    Run(config(), tmp_path).execute(resume=True)
    assert fingerprint(tmp_path) == fingerprint(finished)


def test_an_alarm_can_stop_the_run_and_it_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        examiner, "check", lambda *_: [Alarm("not_finite", float("nan"), float("inf"), "stop", "diverged")]
    )
    quick = replace(config(), arena=ArenaConfig())
    records = Run(quick, tmp_path).execute()
    assert len(records) == 2
    assert records[1]["stopped"]
    assert not records[1]["promoted"]
    assert records[1]["alarms"][0]["value"] is None, "JSON has no NaN"
    before = fingerprint(tmp_path)
    assert Run(quick, tmp_path).execute(resume=True) == records
    assert fingerprint(tmp_path) == before


def test_without_an_arena_a_roll_back_plays_on_with_the_healthy_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(measures: Any, history: Any, config: HealthConfig) -> list[Alarm]:
        return [Alarm("entropy", 0.0, 1.0, "roll_back", "")] if len(history) == 1 else []

    monkeypatch.setattr(examiner, "check", check)
    quick = replace(config(), arena=ArenaConfig(), rounds=3)
    records = Run(quick, tmp_path).execute()
    assert [r["incumbent"] for r in records] == [0, 1, 1, 3]
    assert {e.policy_version for e in read_episodes(shard_path(tmp_path, 3))} == {1}
    assert steps(tmp_path, 3) == steps(tmp_path, 2)


def test_a_run_can_begin_from_a_checkpoint_with_its_value_head(finished: Path, tmp_path: Path) -> None:
    start = checkpoint_path(finished, 1)
    base = config()
    loaded = replace(
        base,
        model=replace(base.model, load=str(start), architecture={}),
        pretrain=replace(base.pretrain, steps=0, demonstrations=0),
        teachers=[],
        arena=ArenaConfig(),
        rounds=1,
    )
    Run(loaded, tmp_path / "run").execute()
    own, given = ValueHead.load(checkpoint_path(tmp_path / "run", 0)), ValueHead.load(start)
    for name, tensor in given.state_dict().items():
        assert torch.equal(own.state_dict()[name], tensor)
    head = start / "value_head.json"
    text = head.read_text()
    head.write_text(text.replace('"hidden_size": 32', '"hidden_size": 16'))
    try:
        with pytest.raises(InputError):
            Run(loaded, tmp_path / "other").execute()
    finally:
        head.write_text(text)


def test_records_go_to_the_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("trackio")
    logged: list[int] = []
    module.init = lambda **settings: None
    module.log = lambda numbers, step: logged.append(step)
    module.finish = lambda: logged.append(-1)
    monkeypatch.setitem(sys.modules, "trackio", module)
    quick = replace(config(), tracking=["trackio"], rounds=0)
    Run(quick, tmp_path / "run").execute()
    assert logged == [0, -1]
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match="trackio"):
        Run(quick, tmp_path / "other").execute()
    assert not (tmp_path / "other").exists()


def test_a_second_run_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    class Second:
        def stage(self, name: str, total: int) -> None:
            if not refused:
                with pytest.raises(InputError, match="in use by process") as told:
                    Run(config(), tmp_path).execute(resume=True)
                refused.append(str(told.value))

        def advance(self, count: int) -> None: ...

        def record(self, record: dict[str, Any]) -> None: ...

    Run(replace(config(), rounds=0), tmp_path, Second()).execute()
    assert len(refused) == 1
