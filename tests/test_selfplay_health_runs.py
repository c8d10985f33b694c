"""Real runs, spoiled as in `benchmarks/health_alarms.py`: the alarm is in the record of the round."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tokenzero.config import load_config
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.run import Run

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SMALL = (
    "pretrain.steps=250",
    "pretrain.demonstrations=2000",
    "play.games=200",
    "learner.steps=60",
    "evaluation.problems=60",
    "evaluation.search_problems=0",
    "rounds=3",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alarms() -> Any:
    """The benchmark as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module("health_alarms")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def config() -> SelfPlayConfig:
    return load_config("countdown-quick", overrides=SMALL)


@pytest.fixture(scope="module")
def start(config: SelfPlayConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is only a warm start."""
    directory = tmp_path_factory.mktemp("health") / "start"
    Run(replace(config, rounds=0), directory).execute()
    return directory


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ("healthy", set()),
        ("no EMA, lr x20", {"gradient_variance"}),
        ("negative entropy bonus", {"policy_calibration_error", "confidence"}),
        ("value targets shuffled", {"value_explained_variance"}),
        ("one problem repeated", {"duplicate_answers", "policy_calibration_error"}),
        ("few games by heart", {"value_loss_unseen"}),
        ("loss x20 from round 3", {"gradient_norm"}),
    ],
)
def test_a_spoiled_run_raises_its_alarms(
    failure: str, expected: set[str], alarms: Any, config: SelfPlayConfig, start: Path, tmp_path: Path
) -> None:
    records = alarms.spoiled(start, config, alarms.FAILURES[failure], tmp_path / "run")
    found = {alarm["name"] for record in records for alarm in record["alarms"]}
    assert found >= expected
    assert bool(found) == bool(expected)
