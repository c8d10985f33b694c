"""Every record goes out once, in order, to whoever was asked for; what is not installed is named."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.tracking import installed, numbers, tracking

RECORDS = [
    {"round": r, "loss": {"policy": 1.0 / (r + 1)}, "promoted": True, "alarms": [], "greedy_accuracy": None}
    for r in range(3)
]


class Recorder(ModuleType):
    """What wandb and trackio look like from here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[Any] = []

    def init(self, **settings: Any) -> None:
        self.calls.append(("init", settings))

    def log(self, told: dict[str, float], step: int) -> None:
        self.calls.append((step, told))

    def finish(self) -> None:
        self.calls.append("finish")


class EventFiles(ModuleType):
    """What torch.utils.tensorboard looks like from here."""

    def __init__(self) -> None:
        super().__init__("torch.utils.tensorboard")
        self.scalars: list[tuple[str, float, int]] = []
        self.directories: list[str] = []
        self.closed = False

    def SummaryWriter(self, directory: str) -> EventFiles:
        self.directories.append(directory)
        return self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_the_numbers_of_a_record() -> None:
    record = {
        "round": 2,
        "promoted": False,
        "loss": {"policy": 0.5, "kl": None},
        "alarms": [{"name": "entropy"}],
        "arena": {"raw": {"reason": "evidence", "wins": 3, "ci95": [0.1, 0.2]}},
    }
    assert numbers(record) == {
        "round": 2.0,
        "promoted": 0.0,
        "loss/policy": 0.5,
        "alarms": 1.0,
        "arena/raw/wins": 3.0,
        "arena/raw/ci95": 2.0,
    }


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_sends_the_rest_under_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    with tracking(installed([name]), tmp_path, {"seed": 1}) as first:
        first.send(RECORDS[:1])
        first.send(RECORDS[:2])
    with tracking(installed([name]), tmp_path, {"seed": 1}) as second:
        second.send(RECORDS)
        second.send(RECORDS)
    steps = [call[0] for call in module.calls if call != "finish"]
    assert steps == ["init", 0, 1, "init", 2]
    opened = [call[1] for call in module.calls if call[0] == "init"]
    assert opened[0] == opened[1]
    assert opened[0]["resume"] == "allow"
    assert ("id" in opened[0]) == (name == "wandb")
    assert module.calls[-1] == "finish"
    assert module.calls[1][1]["loss/policy"] == 1.0


def test_event_files_lie_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = EventFiles()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with tracking(installed(["tensorboard"]), tmp_path, {}) as sent:
        sent.send(RECORDS)
    assert module.directories == [str(tmp_path / "tensorboard")]
    assert ("loss/policy", 0.5, 1) in module.scalars
    assert module.closed


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb needs a package.*pip install 'tokenzero\[wandb\]'"):
        installed(["wandb"])


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with tracking({}, tmp_path, {}) as nobody:
        nobody.send(RECORDS)
    assert list(tmp_path.iterdir()) == []
