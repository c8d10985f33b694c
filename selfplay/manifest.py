"""The manifest of a run: its config, its finished rounds with their records, and what is on disk for each.

``manifest.json`` is the truth about a run: a round is finished when the manifest that names it has its name.
Sizes and SHA-256 sums of every file that is kept tell whether it is still what was written. It reads and
writes that one file and deletes nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text
from tokenzero.selfplay.listener import Record

MANIFEST_FILE = "manifest.json"
FORMAT = 1
"""Changes when a run directory of an older version can no longer be gone on with."""

Sums = dict[str, dict[str, Any]]
"""Files by path below the run directory, each with its "bytes" and "sha256"."""


@dataclass
class Round:
    """A finished round. ``checkpoint`` and ``shard`` are empty once they were deleted (round 0 has no
    games).
    """

    record: Record
    checkpoint: Sums = field(default_factory=dict)
    shard: Sums = field(default_factory=dict)


@dataclass
class Manifest:
    """What a run was told and what it has come to, round by round from the warm start."""

    config: Record
    rounds: list[Round] = field(default_factory=list)
    version: str = ""

    def write(self, directory: Path) -> None:
        """Write ``manifest.json``, whole or not at all. Raises OutputError."""
        content = {
            "format": FORMAT,
            "version": self.version,
            "config": self.config,
            "rounds": [vars(entry) for entry in self.rounds],
        }
        text = json.dumps({**content, "sha256": _sum_of(content)}, indent=1)
        write_text(directory / MANIFEST_FILE, text + "\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read it back. Raises InputError when it is missing, damaged, or of another format."""
        path = directory / MANIFEST_FILE
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise InputError(
                f"{directory} holds a run of format {content.get('format')!r}, this version reads format "
                f"{FORMAT}; use the version of tokenzero that made it, or choose another --out"
            )
        said = content.pop("sha256", None)
        if said != _sum_of(content):
            raise InputError(
                f"{path} is damaged: its content is not what its own SHA-256 says; "
                "restore the file or choose another --out"
            )
        rounds = [Round(**entry) for entry in content["rounds"]]
        return cls(content["config"], rounds, content["version"])


def sums(root: Path, *paths: Path) -> Sums:
    """Size and SHA-256 of files, and of every file below directories, named as seen from ``root``."""
    files = [f for path in paths for f in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {str(f.relative_to(root)): _measure(f) for f in files if f.is_file()}


def damage(root: Path, expected: Sums) -> str | None:
    """What is wrong with the first file that is not as ``expected``, or None."""
    for name, said in expected.items():
        path = root / name
        try:
            found = _measure(path)
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        if found["bytes"] != said["bytes"]:
            return f"{path} has {found['bytes']:,} bytes and was written with {said['bytes']:,}"
        if found["sha256"] != said["sha256"]:
            return f"{path} is damaged: its SHA-256 is not the one it was written with"
    return None


def project_version() -> str:
    """The installed version of the project."""
    try:
        return importlib.metadata.version("tokenzero")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def read_json(path: Path) -> Record:
    """A JSON object from a file of the run. Raises InputError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); restore the file or choose another --out") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; restore the file or choose another --out")
    return content


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sum_of(content: Record) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
