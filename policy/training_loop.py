"""The one training loop of language models: steps, checkpoints, held-out scores, resume to the same bits.

Batches come from demonstrations (`demonstration_batches`) or from a corpus (`train_on_corpus`); the loss is
the cross-entropy of the tokens they name. The last weights are kept, not those of the lowest held-out loss:
the moving average stands in for picking a checkpoint, and nothing is chosen on held-out text. It does not
search and does not train a value.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import nn

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory, sweep
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import STATE_FILE, OptimizerConfig, TrainState
from tokenzero.policy.training_forward import TrainingForward

PROGRESS_FILE = "training.json"
METRICS_FILE = "metrics.jsonl"
Record = dict[str, Any]


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how. ``checkpoint_every`` steps a checkpoint is written (0: only at the end).

    ``precision`` of the products in the forward: weights, optimiser and loss stay float32. "auto" is bfloat16
    on CUDA and float32 on the CPU.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    steps: int = 500
    checkpoint_every: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 0")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"precision is {self.precision!r}; use auto, float32 or bfloat16")


class Batch(NamedTuple):
    """``ids`` i64 [R, W]; ``positions`` i64 [R, W], None when each row holds one sequence; ``cells`` i64 [P]
    after which a token is learnt, as indices into the R * W tokens; those tokens, ``targets`` i64 [P].
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    cells: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch there."""
        positions = None if self.positions is None else self.positions.to(device)
        return Batch(self.ids.to(device), positions, self.cells.to(device), self.targets.to(device))


class Batches(Protocol):
    """Where the batches of a training come from."""

    def parts(self, step: int, forward: TrainingForward) -> Sequence[Batch]:
        """The batch of the 0-based ``step``, in as many parts as gradients are accumulated over.

        It depends on the step alone, so that a resumed training sees what an unbroken one would have.
        """
        ...


class Scoring(NamedTuple):
    """``score`` gives figures of the weights as they are; it is told whether it is asked for the last time.
    ``every`` steps (0: at the end alone) it is asked, and ``report`` hears each record.
    """

    score: Callable[[bool], Mapping[str, float]]
    every: int = 0
    report: Callable[[Record], None] | None = None


@dataclass
class Progress:
    """What a training has come to: the last step's ``loss`` in nats per token, the sum and count of those
    since the last record, and the ``records`` {"step", "loss" (their mean), and the scores}. ``source`` tells
    the data of one training from another's.
    """

    source: str = ""
    loss: float = float("nan")
    summed: float = 0.0
    counted: int = 0
    records: list[Record] = field(default_factory=list)

    def add(self, loss: float) -> None:
        """One step's loss."""
        self.loss = loss
        self.summed += loss
        self.counted += 1

    def record(self, step: int, scores: Mapping[str, float]) -> Record:
        """Close the span since the last record. Raises InputError for a score that is not finite."""
        made: Record = {"step": step, "loss": self.summed / self.counted, **scores}
        for name, score in scores.items():
            if isinstance(score, float) and not math.isfinite(score):
                raise InputError(
                    f"the held-out {name} of step {step} is {score}, the training diverged; "
                    "lower optimizer.lr or optimizer.clip"
                )
        self.summed, self.counted = 0.0, 0
        self.records.append(made)
        return made


def train(
    student: Student,
    batches: Batches,
    config: TrainingConfig,
    *,
    directory: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    scoring: Scoring | None = None,
    source: str = "",
    write: Callable[[Path], None] | None = None,
) -> Progress:
    """Train ``student`` in place; its weights end, and are scored, as the moving average.

    With ``directory``, checkpoints go there: a Hugging Face directory with the training's state and
    ``metrics.jsonl`` (one record a line) beside the weights, and what ``write`` puts there. An unfinished
    training found there is continued: on the CPU, with the same number of threads, to the same bits; on a
    GPU as far as its kernels are deterministic. ``source`` is a digest of the data, with which alone it is.

    Raises:
        InputError: the loss diverged, or the checkpoint is damaged, another model's or of another ``source``.
        OutputError: a checkpoint could not be written.
    """
    working = clone(student)
    forward = TrainingForward(working, autocast=_autocast(config.precision, student.device))
    state = TrainState([working.model], [student.model], config.optimizer, config.steps)
    progress = Progress(source) if directory is None else _resumed(directory, state, student, source)
    while state.steps < config.steps:
        losses: list[float] = []
        state.step(part_losses(forward, batches.parts(state.steps, forward), losses))
        progress.add(sum(losses) / len(losses))
        last = state.steps == config.steps
        if on_step is not None:
            on_step(state.steps, progress.loss)
        if scoring is not None and (last or _due(scoring.every, state.steps)):
            record = progress.record(state.steps, scoring.score(last))
            if scoring.report is not None:
                scoring.report(record)
        if directory is not None and (last or _due(config.checkpoint_every, state.steps)):
            with replace_directory(directory) as temporary:
                student.save(temporary)
                state.save(temporary)
                _write_progress(temporary, progress)
                if write is not None:
                    write(temporary)
    student.weights_changed()
    return progress


def part_losses(
    forward: TrainingForward, parts: Sequence[Batch], seen: list[float]
) -> Iterator[torch.Tensor]:
    """The loss of each part, such that their mean is the mean over all targets of the batch: parts may hold
    different numbers of them. What they came to is added to ``seen``.
    """
    tokens = sum(len(part.targets) for part in parts)
    for part in parts:
        here = part.to(forward.device)
        logits = forward(here.ids, here.positions, here.cells).logits
        loss = nn.functional.cross_entropy(logits, here.targets, reduction="sum") * (len(parts) / tokens)
        seen.append(float(loss.detach()))
        yield loss


def clone(student: Student) -> Student:
    """A second student with equal weights, sharing nothing but the tokenizer.

    It stays in evaluation mode, also while it is trained: dropout would draw from torch's global generator,
    and the policy that is trained would not be the one that plays.
    """
    with torch.random.fork_rng(
        devices=[]
    ):  # the random start is overwritten; the caller's draws must not move
        # Its own config: how attention is computed is written there, and must not change for both.
        twin = type(student.model)(copy.deepcopy(student.model.config))
    twin.load_state_dict(student.model.state_dict())
    return Student(twin.to(student.device).eval(), student.tokenizer)  # type: ignore[arg-type]


def _autocast(precision: str, device: torch.device) -> torch.dtype | None:
    half = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else None


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _resumed(directory: Path, state: TrainState, student: Student, source: str) -> Progress:
    """Take up the training in ``directory``, where there is one."""
    if directory.parent.is_dir():
        sweep(directory.parent)
    if not (directory / STATE_FILE).is_file():
        return Progress(source)
    progress = _read_progress(directory)
    if progress.source != source:
        raise InputError(
            f"the training in {directory} was begun on other data; give the data it began with, or train "
            "anew in another directory"
        )
    state.load(directory)
    student.model.load_state_dict(Student.load(directory).model.state_dict())
    return progress


def _write_progress(directory: Path, progress: Progress) -> None:
    (directory / PROGRESS_FILE).write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")
    if progress.records:
        lines = "".join(json.dumps(record) + "\n" for record in progress.records)
        (directory / METRICS_FILE).write_text(lines, encoding="utf-8")


def _read_progress(directory: Path) -> Progress:
    path = directory / PROGRESS_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Progress(
            source=str(values["source"]),
            loss=float(values["loss"]),
            summed=float(values["summed"]),
            counted=int(values["counted"]),
            records=list(values["records"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {path} ({error}); restore the file, or remove {directory} to train anew"
        ) from error
