"""Warm start: supervised training on (prompt, answer) sequences, with checkpoints and resume.

The loss covers answer tokens and the end mark, never the prompt. It does not search and does not train a
value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory, sweep
from tokenzero.policy.sequence_packing import place
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import STATE_FILE, OptimizerConfig, TrainState
from tokenzero.policy.training_forward import TrainingForward

LOSS_FILE = "pretrain.json"


@dataclass(frozen=True)
class PretrainConfig:
    """How long and how. ``checkpoint_every`` steps a checkpoint is written (0: only at the end)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    steps: int = 500
    demonstrations: int = 10_000
    checkpoint_every: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.demonstrations < 0 or self.checkpoint_every < 0:
            raise InputError("pretrain.steps, demonstrations and checkpoint_every must not be negative")


class Example(NamedTuple):
    """Token ids of a whole sequence and how many of them are the prompt."""

    tokens: list[int]
    prompt_length: int


def pretrain(
    student: Student,
    examples: Sequence[Example],
    config: PretrainConfig,
    seed: int,
    *,
    directory: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Train ``student`` in place; its weights end as the moving average. Returns the last step's loss in nats
    per token.

    With ``directory``, checkpoints go there and an unfinished training found there is continued to the same
    result: each step's batch depends on (seed, step) alone.

    Raises:
        InputError: no examples, or one longer than the model's positions.
        OutputError: a checkpoint could not be written.
    """
    _check(student, examples)
    working = clone(student)
    forward = TrainingForward(working)
    state = TrainState([working.model], [student.model], config.optimizer, config.steps)
    loss = float("nan")
    if directory is not None:
        if directory.parent.is_dir():
            sweep(directory.parent)
        if (directory / STATE_FILE).is_file():
            state.load(directory)
            student.model.load_state_dict(Student.load(directory).model.state_dict())
            if state.steps >= config.steps:
                loss = _read_loss(directory)
    while state.steps < config.steps:
        rng = np.random.default_rng([seed, state.steps])
        batch = rng.integers(0, len(examples), size=config.optimizer.batch_size)
        parts = np.split(batch, config.optimizer.accumulate)
        losses: list[float] = []
        state.step(
            _losses(forward, working, [[examples[i] for i in part.tolist()] for part in parts], losses)
        )
        loss = sum(losses) / len(losses)
        if on_step is not None:
            on_step(state.steps, loss)
        due = config.checkpoint_every and state.steps % config.checkpoint_every == 0
        if directory is not None and (due or state.steps == config.steps):
            with replace_directory(directory) as temporary:
                student.save(temporary)
                state.save(temporary)
                (temporary / LOSS_FILE).write_text(json.dumps({"loss": loss}) + "\n", encoding="utf-8")
    student.weights_changed()
    return loss


def _read_loss(directory: Path) -> float:
    path = directory / LOSS_FILE
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["loss"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {path} ({error}); restore the file, or remove {directory} to warm-start again"
        ) from error


def _losses(
    forward: TrainingForward, student: Student, parts: Sequence[Sequence[Example]], seen: list[float]
) -> Iterator[torch.Tensor]:
    # Parts differ in length: dividing by the mean token count makes their mean the mean over the whole batch.
    tokens = sum(len(example.tokens) - example.prompt_length for part in parts for example in part)
    for part in parts:
        batch = _collate(part, student, forward)
        logits = forward(batch.ids, batch.positions, batch.cells).logits
        loss = nn.functional.cross_entropy(logits, batch.targets, reduction="sum") * (len(parts) / tokens)
        seen.append(float(loss.detach()))
        yield loss


class _Batch(NamedTuple):
    """``ids`` i64 [R, W]; ``positions`` i64 [R, W], None when each row holds one sequence; ``cells`` i64 [P]
    after which a token is learnt, as indices into the R * W tokens; those tokens, ``targets`` i64 [P].
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    cells: torch.Tensor
    targets: torch.Tensor


def _collate(examples: Sequence[Example], student: Student, forward: TrainingForward) -> _Batch:
    layout = forward.layout(np.asarray([len(example.tokens) for example in examples]))
    ids, positions = place([example.tokens for example in examples], layout, student.pad_id)
    cells = np.concatenate(
        [
            np.arange(start + prompt - 1, start + len(tokens) - 1)
            for start, (tokens, prompt) in zip(layout.starts.tolist(), examples, strict=True)
        ]
    )
    arrays = (ids, positions, cells, ids.ravel()[cells + 1])
    batch = _Batch(*(torch.from_numpy(array).to(student.device) for array in arrays))
    return batch if layout.packed else batch._replace(positions=None)


def _check(student: Student, examples: Sequence[Example]) -> None:
    if not examples:
        raise InputError("there are no examples to train on; give at least one (prompt, answer) pair")
    for index, (tokens, prompt) in enumerate(examples):
        if not 1 <= prompt < len(tokens):
            raise InputError(
                f"example {index} has {len(tokens)} tokens of which {prompt} are the prompt; "
                "give at least one token of each, prompt and answer"
            )
    longest = max(len(example.tokens) for example in examples)
    if longest > student.max_length:
        raise InputError(
            f"an example has {longest} tokens, the model takes {student.max_length}; "
            "raise max_position_embeddings"
        )


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
