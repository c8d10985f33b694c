"""Warm start: supervised training on (prompt, answer) sequences before self-play begins.

The loop is `training_loop`'s, the batches are `demonstration_batches`'; training on running text is
`train_on_corpus`. It does not search and does not train a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import DemonstrationBatches, Example, with_replacement
from tokenzero.policy.student import Student
from tokenzero.policy.training_loop import TrainingConfig, clone, train

__all__ = ["Example", "PretrainConfig", "clone", "pretrain"]


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """As `TrainingConfig`, on so many of the task's ``demonstrations``."""

    demonstrations: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.demonstrations < 0:
            raise InputError(f"demonstrations is {self.demonstrations}; give at least 0")


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
    optimizer = config.optimizer
    draw = with_replacement(seed, len(examples), optimizer.batch_size)
    batches = DemonstrationBatches(student, examples, draw, optimizer.accumulate)
    return train(student, batches, config, directory=directory, on_step=on_step).loss
