"""The directory of a run: who may write, what is there, what is finished, what may go.

A round is finished when ``manifest.json`` names it; its checkpoint and games are on disk before that, and
whatever the manifest no longer names is deleted after it. A process killed anywhere leaves a directory that
the next one puts in order and goes on with. It knows nothing of play and learning.

    RUN/lock                             held by the process at work
    RUN/config.json                      what the run was told
    RUN/manifest.json                    config, records, and SHA-256 of all that is kept: see ``manifest``
    RUN/metrics.jsonl                    the records again, one line a round
    RUN/episodes/round-0001.parquet      the games of a round, of runs that keep games
    RUN/warm-start/                      the warm start while it lasts
    RUN/checkpoints/round-0001/          Hugging Face directory + value head + training state + round.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import PREFIX, OutputError, replace_directory, sweep, write_text
from tokenzero.selfplay.listener import Record
from tokenzero.selfplay.manifest import (
    MANIFEST_FILE,
    Manifest,
    Round,
    damage,
    project_version,
    read_json,
    sums,
)
from tokenzero.selfplay.retention import (
    Reach,
    RetentionConfig,
    kept_checkpoints,
    kept_shards,
    window_start,
)
from tokenzero.selfplay.run_lock import LOCK_FILE, locked

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RECORD_FILE = "round.json"
FREE = ("rounds", "tracking", "keep")
"""Settings that a resumed run may be given anew: nothing that is learnt depends on them."""


class RunConfig(Protocol):
    """The settings of any kind of run: a frozen record that says what is kept."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def keep(self) -> RetentionConfig: ...


def checkpoint_path(run: Path, round_index: int) -> Path:
    """Where the checkpoint of a round lies."""
    return run / "checkpoints" / f"round-{round_index:04d}"


def shard_path(run: Path, round_index: int) -> Path:
    """Where the games of a round lie."""
    return run / "episodes" / f"round-{round_index:04d}.parquet"


def finished_rounds(run: Path) -> int:
    """How many rounds are finished, the warm start (round 0) included; 0 where there is no run.

    Raises InputError for a damaged manifest.
    """
    return _finished(run, Manifest.read(run)) if (run / MANIFEST_FILE).is_file() else 0


def finished_records(run: Path) -> list[Record]:
    """The records of the finished rounds. Raises InputError where there is no run."""
    manifest = Manifest.read(run)
    return [entry.record for entry in manifest.rounds[: _finished(run, manifest)]]


def playing_checkpoint(run: Path) -> Path | None:
    """The checkpoint whose weights play now, the last promoted one; None before the warm start is finished.

    Raises InputError for a damaged manifest.
    """
    if not finished_rounds(run):
        return None
    return checkpoint_path(run, int(finished_records(run)[-1]["incumbent"]))


class RunDirectory:
    """Owned by one run while it is :meth:`opened`. ``records`` are those of the finished rounds."""

    def __init__(self, path: Path, config: RunConfig, reach: Reach) -> None:
        self.path = path
        self.records: list[Record] = []
        self._config = config
        self._told: Record = json.loads(json.dumps(asdict(config)))
        self._reach = reach
        self._manifest = Manifest(self._told, version=project_version())

    @property
    def warm_start(self) -> Path:
        """Where an unfinished warm start keeps its state; deleted once round 0 is finished."""
        return self.path / "warm-start"

    @contextmanager
    def opened(self, resume: bool) -> Iterator[None]:
        """Lock the directory, made when missing, and put it in order; ``records`` then tells what is done.

        Raises:
            InputError: it holds something else, a run that ``resume`` was not asked to continue, a run of
            another config or version, or a file that is not what was written; or another process is at work.
            OutputError: it cannot be written.
        """
        self._refuse_strangers()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {self.path}: {error.strerror}; choose a place you may write to"
            ) from error
        with locked(self.path):
            self._refuse_strangers()
            for folder in (self.path, self.path / "checkpoints", self.path / "episodes"):
                if folder.is_dir():
                    sweep(folder)
            if (self.path / CONFIG_FILE).is_file():
                self._continue(resume)
            write_text(self.path / CONFIG_FILE, json.dumps(self._told, indent=2, sort_keys=True) + "\n")
            self._manifest.write(self.path)
            self.records = [entry.record for entry in self._manifest.rounds]
            self._tidy()
            yield

    def commit(self, record: Record, fill: Callable[[Path], None]) -> None:
        """Finish a round: ``fill`` an empty directory with its checkpoint, then name it in the manifest; what
        is no longer needed goes. Raises OutputError; the round is then not finished.
        """
        index = int(record["round"])
        with replace_directory(checkpoint_path(self.path, index)) as directory:
            fill(directory)
            (directory / RECORD_FILE).write_text(json.dumps(record) + "\n")
        shard = shard_path(self.path, index)
        entry = Round(
            record,
            checkpoint=sums(self.path, checkpoint_path(self.path, index)),
            shard=sums(self.path, shard) if index else {},
        )
        rounds = [*self._manifest.rounds, entry]
        records = [entry.record for entry in rounds]
        checkpoints = kept_checkpoints(records, self._config.keep, self._reach)
        shards = kept_shards(len(rounds), self._config.keep, self._reach)
        self._manifest.rounds = [
            Round(
                entry.record,
                entry.checkpoint if number in checkpoints else {},
                entry.shard if number in shards else {},
            )
            for number, entry in enumerate(rounds)
        ]
        self._manifest.write(self.path)
        self.records = records
        self._tidy()

    def _refuse_strangers(self) -> None:
        if (self.path / CONFIG_FILE).is_file() or not self.path.is_dir():
            return
        ours = (LOCK_FILE,)
        if any(p.name not in ours and not p.name.startswith(PREFIX) for p in self.path.iterdir()):
            raise InputError(f"{self.path} is not empty and holds no run; choose another --out")

    def _begun(self) -> bool:
        """Whether anything was done here that a new start would throw away."""
        return (
            self.warm_start.exists() or (self.path / "checkpoints").exists() or finished_rounds(self.path) > 0
        )

    def _continue(self, resume: bool) -> None:
        """Take over what is there, as far as it is finished and whole."""
        if not resume and not self._begun():
            return  # a start that failed: there is nothing to lose
        if not resume:
            raise InputError(
                f"{self.path} already holds a run; continue it with --resume or choose another --out"
            )
        self._refuse_other_config(read_json(self.path / CONFIG_FILE))
        if not (self.path / MANIFEST_FILE).is_file():
            if (self.path / "checkpoints").exists():
                raise InputError(
                    f"{self.path} has checkpoints and no {MANIFEST_FILE}: restore that file, use the version "
                    "of tokenzero that made the run, or choose another --out"
                )
            return  # killed before its first step
        found = Manifest.read(self.path)
        self._refuse_other_config(found.config)
        if found.version != self._manifest.version:
            raise InputError(
                f"{self.path} was started with tokenzero {found.version}, this is {self._manifest.version}; "
                "a run stays with its version: install that one, or choose another --out"
            )
        rounds = found.rounds[: _finished(self.path, found)]
        for number, entry in enumerate(rounds):
            wrong = damage(self.path, {**entry.checkpoint, **entry.shard})
            if wrong is not None:
                raise InputError(f"{wrong}; {self._way_out(rounds, number)}")
        self._manifest.rounds = rounds

    def _refuse_other_config(self, before: Record) -> None:
        old, now = _flat(before), _flat(self._told)
        keys = sorted(
            key for key in {*old, *now} if key.split(".")[0] not in FREE and old.get(key) != now.get(key)
        )
        if keys:
            first = f"{keys[0]} (it was {old.get(keys[0])!r}, now {now.get(keys[0])!r})"
            raise InputError(
                f"{self.path} was started with another {', '.join([first, *keys[1:]])}; "
                "resume with the same config or choose another --out"
            )

    def _way_out(self, rounds: list[Round], damaged: int) -> str:
        """How to go on without a file of round ``damaged``."""
        for end in range(damaged - 1, -1, -1):
            needed = range(window_start(end + 1, self._reach.window), end + 1)
            whole = all(
                rounds[r].shard and damage(self.path, rounds[r].shard) is None for r in needed if r <= end
            )
            if whole and rounds[end].checkpoint and damage(self.path, rounds[end].checkpoint) is None:
                return (
                    f"restore the file, or remove every checkpoint after {checkpoint_path(self.path, end)} "
                    "and --resume plays those rounds again, to the same result"
                )
        return "restore the file or choose another --out"

    def _tidy(self) -> None:
        """Write the metrics and delete what the manifest no longer names. Doing it twice does no harm."""
        text = "".join(json.dumps(record) + "\n" for record in self.records)
        write_text(self.path / METRICS_FILE, text)
        gone = [self.warm_start] if self.records else []
        for number, entry in enumerate(self._manifest.rounds):
            gone += [] if entry.checkpoint else [checkpoint_path(self.path, number)]
            gone += [] if entry.shard else [shard_path(self.path, number)]
        for path in gone:
            _delete(path)


def _delete(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot delete {path}: {error.strerror}; check who owns it, then run again with --resume"
        ) from error


def _finished(run: Path, manifest: Manifest) -> int:
    """How many rounds of the manifest count: a checkpoint that is gone without having been deleted by the
    run takes its round, and those after the last one before it, back.
    """
    last = -1
    for number, entry in enumerate(manifest.rounds):
        if not entry.checkpoint:
            continue
        if not (checkpoint_path(run, number) / RECORD_FILE).is_file():
            return last + 1
        last = number
    return last + 1


def _flat(record: Record, prefix: str = "") -> dict[str, Any]:
    """The record with nested keys joined by dots, as ``--set`` writes them."""
    flat: Record = {}
    for key, value in record.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
