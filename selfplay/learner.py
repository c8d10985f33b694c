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

    ``taught_share`` of each batch are episodes with something to learn for the policy (None: drawn like all
    others), the rest teach the value head alone. Of trees: ``sharpness`` exponent on the targets'
    weights, ``count_exponent`` exponent on the number of solutions below a state, which is its weight in the
    policy loss (0: every state alike), ``value_states`` states without a policy target that are kept of each
    tree (None: all).

    ``reanalyse`` is the share of the present value head's opinion in the value targets of states whose end is
    not known (after Schrittwieser et al., arXiv:2104.06294, values only): it is asked anew before each
    round's steps, for every state in the window, and those tokens are counted.
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
    taught_share: float | None = None
    sharpness: float = 1.0
    count_exponent: float = 1.0
    value_states: int | None = 16
    reanalyse: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.window < 1:
            raise InputError(
                f"learner.steps is {self.steps} and window is {self.window}; give at least 1 of each"
            )
        for name in ("value_warmup", "value_weight", "kl_weight", "entropy_weight", "lost_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"learner.{name} is {getattr(self, name)}; give a number of at least 0")
        if not 0 <= self.reanalyse <= 1:
            raise InputError(f"learner.reanalyse is {self.reanalyse}; give a share from 0 to 1")
        if not 0 <= self.played_share <= 1:
            raise InputError(f"learner.played_share is {self.played_share}; give a number from 0 to 1")
        if self.taught_share is not None and not 0 <= self.taught_share <= 1:
            raise InputError(
                f"learner.taught_share is {self.taught_share}; give a share from 0 to 1, or null"
            )
        if self.sharpness <= 0 or self.count_exponent < 0:
            raise InputError(
                f"learner.sharpness is {self.sharpness} and count_exponent {self.count_exponent}; "
                "give sharpness above 0 and count_exponent of at least 0"
            )
        if self.value_states is not None and self.value_states < 0:
            raise InputError(f"learner.value_states is {self.value_states}; give at least 0, or null for all")
        if not 0 <= self.root_value_mix <= 1:
            raise InputError(f"learner.root_value_mix is {self.root_value_mix}; give a number from 0 to 1")


@dataclass
class Losses:
    """Means over one call of :meth:`Learner.learn`, in nats; ``gradient`` is the mean norm before clipping
    and ``gradient_variance`` the norms' variance over their squared mean. ``cells`` tokens were read in all,
    padding included, and ``reanalysed`` ones to ask the value head anew.
    """

    policy: float = 0.0
    value: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    gradient: float = 0.0
    gradient_variance: float = 0.0
    cells: int = 0
    reanalysed: int = 0


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
        if self._anchor is not None:
            self._forward.share_layouts(self._anchor)
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
            sharpness=config.sharpness,
            count_exponent=config.count_exponent,
            value_states=config.value_states,
            rng=np.random.default_rng([*self._seed, round_index]),
        )
        reanalysed = self._reanalyse(replay) if config.reanalyse else 0
        draw = Draw(replay, config.taught_share)
        sums = np.zeros(5)
        norms = np.zeros(config.steps)
        for step in range(config.steps):
            rng = np.random.default_rng([*self._seed, round_index, step])
            chosen = draw(rng, config.optimizer.batch_size)
            seen: list[np.ndarray[Any, np.dtype[np.float64]]] = []
            norms[step] = self._state.step(self._losses(replay, chosen, rng, seen))
            sums += np.mean(seen, axis=0)
            if on_step is not None:
                on_step(step + 1)
        self.student.weights_changed()
        policy, value, kl, entropy, cells = (sums / config.steps).tolist()
        mean = float(norms.mean())
        variance = float(norms.var()) / mean**2 if mean else 0.0
        return Losses(
            policy,
            value,
            kl,
            entropy,
            mean,
            variance,
            round(cells * config.steps * config.optimizer.accumulate),
            reanalysed,
        )

    @torch.no_grad()
    def _reanalyse(self, replay: Replay) -> int:
        """Mix the present value head's opinion into the value targets; returns how many tokens were read."""
        read, size = 0, self._config.optimizer.batch_size
        for first in range(0, len(replay), size):
            chosen = np.arange(first, min(first + size, len(replay)))
            batch = replay.batch(chosen, None, np.random.default_rng(0), self._forward.pack)
            packed = batch.packed
            hidden = self._forward(packed.ids, packed.positions, batch.cells, packed.mask).hidden
            raw = self._working_head(hidden.index_select(0, batch.value_cells))
            values = self._working_head.value(raw).cpu().numpy()
            replay.mix_values(chosen, values, self._config.reanalyse)
            read += packed.ids.numel()
        return read

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
            batch = replay.batch(part, task, rng, self._forward.pack)
            total, terms = self._loss(batch, totals, parts)
            seen.append(np.asarray([*terms, batch.packed.ids.numel()]))
            yield total

    def _loss(self, batch: Batch, totals: Totals, parts: int) -> tuple[torch.Tensor, list[float]]:
        """Loss of one of ``parts`` parts of a batch, scaled so that their mean is the mean over the whole
        batch.

        A batch without policy targets (only lost games, which count for nothing) has no policy terms.
        """
        config = self._config
        policy_share = parts / totals.importance if totals.importance > 0 else 0.0
        position_share = parts / max(1, totals.positions)
        read = batch.packed
        output = self._forward(read.ids, read.positions, batch.cells, read.mask)
        log_policy = torch.log_softmax(output.logits, dim=-1)
        cross_entropy = -(batch.weights * log_policy.gather(1, batch.actions)).sum(1)
        policy = (batch.importance * cross_entropy).sum() * policy_share
        raw = self._working_head(output.hidden.index_select(0, batch.value_cells))
        value = self._working_head.loss(raw, batch.value_targets).sum() * (parts / totals.values)
        total = policy + config.value_weight * value
        with torch.set_grad_enabled(config.entropy_weight != 0):
            entropy = -(log_policy.exp() * log_policy).sum() * position_share
        if config.entropy_weight:
            total = total - config.entropy_weight * entropy
        kl = torch.zeros(())
        if self._anchor is not None:
            with torch.no_grad():
                logits = self._anchor(read.ids, read.positions, batch.cells, read.mask).logits
            anchor = torch.log_softmax(logits, dim=-1)
            kl = (log_policy.exp() * (log_policy - anchor)).sum() * position_share
            total = total + config.kl_weight * kl
        return total, [float(part.detach()) for part in (policy, value, kl, entropy)]


class Draw:
    """Which episodes a batch takes: any of them, or ``taught_share`` of them with a policy target."""

    def __init__(self, replay: Replay, taught_share: float | None) -> None:
        every = np.arange(len(replay))
        self._taught = every if taught_share is None else replay.taught
        self._others = np.setdiff1d(every, self._taught)
        self._share = taught_share

    def __call__(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Indices i64 [count], with replacement."""
        taught = count if self._share is None else round(self._share * count)
        taught = count if not self._others.size else 0 if not self._taught.size else taught
        first = self._taught[rng.integers(0, max(1, len(self._taught)), size=taught)]
        if taught == count:
            return first
        rest = self._others[rng.integers(0, len(self._others), size=count - taught)]
        return np.concatenate((first, rest))
