"""Records of a run for those who watch it: TensorBoard, Weights & Biases, trackio, when they are installed.

Everything goes out through one small face, :class:`Tracker`, after the round is finished and on disk; a run
does not depend on what becomes of it. It computes nothing of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text
from tokenzero.selfplay.listener import Record
from tokenzero.selfplay.manifest import read_json

PROJECT = "tokenzero"
SENT_FILE = "tracking.json"


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """The numbers of round ``step``, by name ("loss/policy")."""
        ...

    def close(self) -> None:
        """Everything was sent."""
        ...


class Tracking:
    """The trackers of a run. ``tracking.json`` holds how many rounds were sent to each, so that a resumed
    run sends the rest; one that is killed between the two sends a round twice.
    """

    def __init__(self, trackers: Mapping[str, Tracker], directory: Path) -> None:
        self._trackers = trackers
        self._path = directory / SENT_FILE

    def send(self, records: Sequence[Record]) -> None:
        """Send what was not sent yet of ``records``, which are those of rounds 0, 1, ..."""
        if not self._trackers:
            return
        sent = read_json(self._path) if self._path.is_file() else {}
        for name, tracker in self._trackers.items():
            for record in records[int(sent.get(name, 0)) :]:
                tracker.log(numbers(record), int(record["round"]))
            sent[name] = len(records)
        write_text(self._path, json.dumps(sent) + "\n")


def installed(names: Sequence[str]) -> dict[str, Any]:
    """The modules behind the trackers ``names``. Raises InputError when one is not installed."""
    return {name: _module(name) for name in names}


@contextmanager
def tracking(modules: Mapping[str, Any], directory: Path, config: Mapping[str, Any]) -> Iterator[Tracking]:
    """The trackers with these ``modules`` for the run in ``directory``, closed when the block ends."""
    trackers: dict[str, Tracker] = {}
    try:
        for name, module in modules.items():
            if name == "tensorboard":
                trackers[name] = TensorBoard(module, directory)
            else:
                trackers[name] = Hosted(module, name, directory, config)
        yield Tracking(trackers, directory)
    finally:
        for tracker in trackers.values():
            tracker.close()


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def __init__(self, module: Any, directory: Path) -> None:
        self._writer = module.SummaryWriter(str(directory / "tensorboard"))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Hosted:
    """Weights & Biases, or trackio, which takes the same calls. A resumed run goes on as the same one: its
    name comes from its config and its place.
    """

    def __init__(self, module: Any, name: str, directory: Path, config: Mapping[str, Any]) -> None:
        identity = json.dumps([str(directory.resolve()), dict(config)], sort_keys=True)
        own = f"{directory.name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        settings: dict[str, Any] = {"project": PROJECT, "name": own, "config": dict(config)}
        if name == "wandb":
            settings |= {"id": own, "dir": str(directory)}
        self._module = module
        module.init(resume="allow", **settings)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """All of them at once."""
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        """End the session there; the run can be resumed."""
        self._module.finish()


def numbers(record: Record, prefix: str = "") -> dict[str, float]:
    """Every number of a record by its path ("loss/policy"); True is 1, texts and missing numbers are left
    out, and a list counts for its length.
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= numbers(dict(value), f"{prefix}{key}/")
        elif isinstance(value, (bool, int, float)):
            found[prefix + key] = float(value)
        elif isinstance(value, (list, tuple)):
            found[prefix + key] = float(len(value))
    return found


def _module(name: str) -> Any:
    needed = "torch.utils.tensorboard" if name == "tensorboard" else name
    try:
        return importlib.import_module(needed)
    except ImportError as error:
        raise InputError(
            f"tracking with {name} needs a package that is not installed; "
            f"pip install 'tokenzero[{name}]', or leave it out of 'tracking'"
        ) from error
