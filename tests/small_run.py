"""A finished self-play run small enough for tests of the front door, made from YAML once a session."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from tokenzero.config import load_config
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.run import Run

CONFIG = """
preset: countdown-quick
task:
  options: {train: 60, validation: 12, test: 20}
model:
  architecture: {hidden_size: 32, intermediate_size: 64}
pretrain: {steps: 120, demonstrations: 800}
play: {games: 24, games_in_flight: 16, search: {simulations: 4}}
learner: {steps: 6}
evaluation: {problems: 8, search_problems: 4, simulations: 4}
rounds: 2
threads: 1
"""


def write_config(directory: Path) -> Path:
    """The small configuration as a YAML file."""
    path = directory / "small.yaml"
    path.write_text(CONFIG)
    return path


def small_config() -> SelfPlayConfig:
    """The small configuration."""
    with tempfile.TemporaryDirectory() as directory:
        return load_config(path=write_config(Path(directory)))


@cache
def _finished() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    owner = tempfile.TemporaryDirectory()
    run = Path(owner.name) / "run"
    Run(small_config(), run).execute()
    return owner, run


def finished_run() -> Path:
    """A finished run to read; tests that write copy it (``copied_run``)."""
    return _finished()[1]


def copied_run(directory: Path) -> Path:
    """A copy of the finished run to damage."""
    target = directory / "run"
    shutil.copytree(finished_run(), target)
    return target
