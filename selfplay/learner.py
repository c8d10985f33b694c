"""The learner: visit distributions into the policy, outcomes into the value head.

Loss = CE(visit distribution, policy) at every searched position + value loss + KL anchor to a reference +
entropy bonus; each part is reported apart. Batches depend on (seed, round, step) alone, so a round that is
interrupted can be learnt again to the same weights. It does not play and does not decide about promotion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import clone
from tokenzero.policy.sequence_packing import Layout, pad
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig, TrainState
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.replay import Batch, Replay, Totals
from tokenzero.tasks import Task
from tokenzero.value import ValueHead

ON_STEP = Callable[[int], None]


@dataclass(frozen=True)
class LearnerConfig:
    """What is minimised and for how long.

    ``steps`` per round over a replay ``window`` of rounds; ``value_warmup`` steps on the demonstrations'
    outcomes before round 1; ``value_weight``, ``kl_weight`` (anchor to the warm start), ``entropy_weight``
    (bonus), ``lost_weight`` (policy loss of lost games); ``root_value_mix`` share of the root value in the
    value target; ``played_share`` share of the move that was played in the policy target of won games (0:
    visits alone, 1: expert iteration); ``augment`` replaces each prompt by an equivalent one.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    steps: int = 500
    window: int = 4
    value_warmup: int = 300
    value_weight: float = 1.0
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    lost_weight: float = 1.0
    played_share: float = 0.0
    root_value_mix: float = 0.0
    augment: bool = True
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.window < 1:
            raise InputError(
                f"learner.steps is {self.steps} and window is {self.window}; give at least 1 of each"
            )
        for name in ("value_warmup", "value_weight", "kl_weight", "entropy_weight", "lost_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"learner.{name} is {getattr(self, name)}; give a number of at least 0")
        if not 0 <= self.played_share <= 1:
            raise InputError(f"learner.played_share is {self.played_share}; give a number from 0 to 1")
        if not 0 <= self.root_value_mix <= 1:
            raise InputError(f"learner.root_value_mix is {self.root_value_mix}; give a number from 0 to 1")


@dataclass
class Losses:
    """Means over one call of :meth:`Learner.learn`, in nats; ``gradient`` is the mean norm before
    clipping.
    """

    policy: float = 0.0
    value: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    gradient: float = 0.0


class Learner:
    """Trains a copy of the student; ``student`` and ``value_head`` themselves are the moving average that
    plays.
    """

    def __init__(
        self,
        student: Student,
        value_head: ValueHead,
        task: Task,
        config: LearnerConfig,
        *,
        total_steps: int,
        seed: Sequence[int],
        reference: Student | None = None,
    ) -> None:
        self.student = student
        self.value_head = value_head
        self._task = task
        self._config = config
        self._seed = tuple(seed)
        if config.kl_weight > 0 and reference is None:
            raise InputError(
                "learner.kl_weight is above 0 but there is no reference model; give one or set it to 0"
            )
        working = clone(student)
        self._forward = TrainingForward(working)
        self._anchor = TrainingForward(reference) if config.kl_weight > 0 and reference is not None else None
        self._working_head = ValueHead(student.hidden_size, value_head.config)
        self._working_head.load_state_dict(value_head.state_dict())
        trained = [working.model, self._working_head]
        self._state = TrainState(trained, [student.model, value_head], config.optimizer, total_steps)

    def learn(self, episodes: Sequence[Episode], round_index: int, on_step: ON_STEP | None = None) -> Losses:
        """``steps`` optimiser steps on ``episodes``; afterwards the student plays with the new average."""
        config = self._config
        replay = Replay(
            episodes,
            self.student,
            lost_weight=config.lost_weight,
            root_value_mix=config.root_value_mix,
            played_share=config.played_share,
        )
        sums = np.zeros(4)
        gradient = 0.0
        for step in range(config.steps):
            rng = np.random.default_rng([*self._seed, round_index, step])
            chosen = rng.integers(0, len(replay), size=config.optimizer.batch_size)
            seen: list[np.ndarray[Any, np.dtype[np.float64]]] = []
            gradient += self._state.step(self._losses(replay, chosen, rng, seen))
            sums += np.mean(seen, axis=0)
            if on_step is not None:
                on_step(step + 1)
        self.student.weights_changed()
        policy, value, kl, entropy = (sums / config.steps).tolist()
        return Losses(policy, value, kl, entropy, gradient / config.steps)

    def save(self, directory: Path) -> None:
        """Write what resuming needs besides the student and the value head. The caller makes it atomic."""
        self._state.save(directory)

    def load(self, directory: Path) -> None:
        """Restore :meth:`save`. Raises InputError for a broken file."""
        self._state.load(directory)

    def _losses(
        self, replay: Replay, chosen: Any, rng: np.random.Generator, seen: list[Any]
    ) -> Iterator[torch.Tensor]:
        parts, totals = self._config.optimizer.accumulate, replay.totals(chosen)
        for part in np.split(chosen, parts):
            task = self._task if self._config.augment else None
            batch = replay.batch(part, task, rng, self._layout)
            total, terms = self._loss(batch, totals, parts)
            seen.append(np.asarray(terms))
            yield total

    def _loss(self, batch: Batch, totals: Totals, parts: int) -> tuple[torch.Tensor, list[float]]:
        """Loss of one of ``parts`` parts of a batch, scaled so that their mean is the mean over the whole
        batch.

        A batch without policy targets (only lost games, which count for nothing) has no policy terms.
        """
        config = self._config
        policy_share = parts / totals.importance if totals.importance > 0 else 0.0
        position_share = parts / max(1, totals.positions)
        output = self._forward(batch.ids, batch.positions, batch.cells)
        log_policy = torch.log_softmax(output.logits, dim=-1)
        cross_entropy = -(batch.weights * log_policy.gather(1, batch.actions)).sum(1)
        policy = (batch.importance * cross_entropy).sum() * policy_share
        raw = self._working_head(output.hidden.index_select(0, batch.value_cells))
        value = self._working_head.loss(raw, batch.value_targets).sum() * (parts / totals.values)
        total = policy + config.value_weight * value
        with torch.set_grad_enabled(config.entropy_weight > 0):
            entropy = -(log_policy.exp() * log_policy).sum() * position_share
        if config.entropy_weight:
            total = total - config.entropy_weight * entropy
        kl = torch.zeros(())
        if self._anchor is not None:
            with torch.no_grad():
                logits = self._anchor(batch.ids, batch.positions, batch.cells).logits
            anchor = torch.log_softmax(logits, dim=-1)
            kl = (log_policy.exp() * (log_policy - anchor)).sum() * position_share
            total = total + config.kl_weight * kl
        return total, [float(part.detach()) for part in (policy, value, kl, entropy)]

    def _layout(self, lengths: npt.NDArray[np.int64]) -> Layout:
        """The layout that suits both the student and the reference."""
        right = self._anchor is None or self._anchor.packs
        return self._forward.layout(lengths) if right else pad(lengths)
