"""What a self-play run in a directory was told and what it has come to, for the verbs that report on it.

It reads the manifest alone and changes nothing; a run that is still at work can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.manifest import MANIFEST_FILE, Manifest
from tokenzero.selfplay.run_directory import finished_records

Record = dict[str, Any]


def read_run(run: Path, *, text: bool = False) -> tuple[Record, list[Record]]:
    """The config of the run in directory ``run`` and the records of its finished rounds, the warm start's
    first. Those of a text game are given only to who takes such (``text``).

    Raises InputError where there is no run, or none of its rounds is finished, or its manifest is damaged, or
    it is a text game that was not asked for.
    """
    if not (run / MANIFEST_FILE).is_file():
        raise InputError(f"{run} holds no run (no {MANIFEST_FILE}); give the --out of tokenzero selfplay")
    config, records = Manifest.read(run).config, finished_records(run)
    if not records:
        raise InputError(f"{run} has no finished round yet; let its warm start end first")
    if is_text(config) and not text:
        raise InputError(f"{run} is a text game, which keeps no games; see tokenzero report {run}")
    return config, records


def is_text(config: Record) -> bool:
    """Whether the config of a run is that of a text game."""
    return config.get("game") == "text"
