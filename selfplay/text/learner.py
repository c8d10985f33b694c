"""The learner of the text game: windows of a corpus, and what rewards, a referee or search say of them.

At the beginning of every ``refresh`` steps the policy as it then is plays the next ``refresh`` batches, where
the objective wants that: it draws actions, or it is searched. Batches depend on (seed, round, step) alone and
are the same for every objective. It scores nothing and knows no rounds but the one it is told to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.windows import windows
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pretrain import clone
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import TrainState
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.selfplay.text import objectives
from tokenzero.selfplay.text.config import TextGameConfig
from tokenzero.value import ValueHead
from tokenzero.value.text_rewards import action_rewards, product_of_experts, taught

if TYPE_CHECKING:
    from tokenzero.selfplay.text.context_search import ContextSearch
    from tokenzero.teachers.referee import Referee

Ids = npt.NDArray[np.int64]
DRAWN = ("clipped", "group-relative")
"""The objectives that draw actions from the policy of up to ``refresh`` steps ago."""
REWARDED = ("expected-reward", *DRAWN)
_PLAY = 1  # keeps the random streams of play apart from those of the batches


@dataclass
class TextLosses:
    """Means over one call of :meth:`TextLearner.learn`, losses, ``entropy`` and ``kl`` in nats. ``reward`` is
    the policy's expected reward, without the referee's share where the objective does not ask it; ``kl`` is 0
    there. ``taught`` is the share of contexts the policy learnt from.

    ``gradient`` is the mean norm before clipping, ``gradient_variance`` the norms' variance over their
    squared mean. ``cells`` tokens were read in training; play's are in the ledger.
    """

    policy: float = 0.0
    value: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    reward: float = 0.0
    taught: float = 0.0
    gradient: float = 0.0
    gradient_variance: float = 0.0
    cells: int = 0


class Drawn(NamedTuple):
    """Actions i64 [P, S] drawn at each context, their log-probabilities then and advantages, f32 [P, S]."""

    actions: torch.Tensor
    log_probs: torch.Tensor
    advantages: torch.Tensor


class Searched(NamedTuple):
    """Search's targets: actions i64 [P, K] (-1 pads), weights f32 [P, K], returns f32 [P]."""

    actions: torch.Tensor
    weights: torch.Tensor
    returns: torch.Tensor


class Lesson(NamedTuple):
    """One part of a batch: windows ``ids`` i64 [R, W + 1], the contexts learnt from as ``cells`` i64 [P] of
    its R * W tokens, and what play found there.
    """

    ids: torch.Tensor
    cells: torch.Tensor
    drawn: Drawn | None = None
    searched: Searched | None = None

    @property
    def truth(self) -> torch.Tensor:
        """The corpus's own next token i64 [P] at each context."""
        return self.ids[:, 1:].flatten().index_select(0, self.cells)


class TextLearner:
    """Trains a copy of the student; ``student`` and ``value_head`` themselves are the moving average that
    plays. ``ledger`` counts what play and the referee forwarded; the tokens of training are in the losses.

    Owns the copy; asks ``referee`` and ``search``, which it does not change. A value head that the objective
    does not train stays as it is.

    Raises:
        InputError: the objective lacks its referee or its search, ``refresh`` does not divide ``steps``, or
            the windows are longer than the model's positions.
    """

    def __init__(
        self,
        student: Student,
        value_head: ValueHead | None,
        corpus_tokens: npt.NDArray[Any],
        config: TextGameConfig,
        referee: Referee | None,
        search: ContextSearch | None,
        *,
        total_steps: int,
        seed: Sequence[int],
    ) -> None:
        _check(config, student, value_head, referee, search)
        self.student = student
        self.value_head = value_head
        self.ledger = Ledger()
        self._tokens = corpus_tokens
        self._config = config
        self._learner = config.learner
        self._referee = referee if _asks_referee(config) else None
        # What the referee has no part in, it gives no reward for.
        self._rewards = config.rewards if self._referee is not None else replace(config.rewards, soft=0.0)
        self._search = search
        self._seed = tuple(seed)
        working = clone(student)
        self._forward = TrainingForward(working)
        trained: list[torch.nn.Module] = [working.model]
        average: list[torch.nn.Module] = [student.model]
        self._working_head: ValueHead | None = None
        if value_head is not None and config.learner.value_weight > 0:
            self._working_head = ValueHead(student.hidden_size, value_head.config).to(student.device)
            self._working_head.load_state_dict(value_head.state_dict())
            trained.append(self._working_head)
            average.append(value_head)
        self._state = TrainState(trained, average, config.learner.optimizer, total_steps)

    def learn(self, round_index: int, on_step: Callable[[int], None] | None = None) -> TextLosses:
        """``steps`` optimiser steps; afterwards the student plays with the new average."""
        steps, refresh = self._learner.steps, self._learner.refresh
        parts = self._learner.optimizer.accumulate
        sums, norms = np.zeros(6), np.zeros(steps)
        lessons: list[Lesson] = []
        for step in range(steps):
            if step % refresh == 0:
                first = round_index * steps + step
                lessons = self._play(range(first, first + min(refresh, steps - step)))
            at = step % refresh * parts
            seen: list[list[float]] = []
            norms[step] = self._state.step(self._losses(lessons[at : at + parts], seen))
            sums += np.mean(seen, axis=0)
            if on_step is not None:
                on_step(step + 1)
        self.student.weights_changed()
        mean = float(norms.mean())
        variance = float(norms.var()) / mean**2 if mean else 0.0
        cells = steps * self._learner.optimizer.batch_size * self._learner.context
        policy, value, kl, entropy, reward, share = (sums / steps).tolist()
        return TextLosses(policy, value, kl, entropy, reward, share, mean, variance, cells)

    def save(self, directory: Path) -> None:
        """Write what resuming needs besides the student and the value head. The caller makes it atomic."""
        self._state.save(directory)

    def load(self, directory: Path) -> None:
        """Restore :meth:`save`. Raises InputError for a broken file."""
        self._state.load(directory)

    @property
    def _progress(self) -> float:
        return min(1.0, self._state.steps / max(1, self._state.total_steps))

    def _batch(self, number: int) -> Ids:
        """Windows i64 [R, W + 1] of the batch of this number."""
        rng = np.random.default_rng([*self._seed, number])
        return windows(self._tokens, self._learner.optimizer.batch_size, self._learner.context, rng)

    def _play(self, numbers: range) -> list[Lesson]:
        """The lessons of the batches ``numbers``, each in ``accumulate`` parts."""
        parts = self._learner.optimizer.accumulate
        batches = [self._batch(number) for number in numbers]
        if self._learner.objective == "visits":
            return self._searched(np.concatenate(batches), numbers)
        lessons = []
        for number, batch in zip(numbers, batches, strict=True):
            generator = torch.Generator(self.student.device).manual_seed(self._play_seed(number))
            for rows in np.split(batch, parts):
                lesson = self._lesson(rows)
                drawn = self._draw(lesson, generator) if self._learner.objective in DRAWN else None
                lessons.append(lesson._replace(drawn=drawn))
        return lessons

    def _lesson(self, rows: Ids) -> Lesson:
        device = self.student.device
        cells = torch.arange(rows.shape[0] * (rows.shape[1] - 1), device=device)
        return Lesson(torch.from_numpy(np.ascontiguousarray(rows)).to(device), cells)

    def _play_seed(self, number: int) -> int:
        return int(np.random.default_rng([*self._seed, number, _PLAY]).integers(2**63 - 1))

    @torch.no_grad()
    def _draw(self, lesson: Lesson, generator: torch.Generator) -> Drawn:
        """Actions of the policy as it is now, with replacement."""
        log_policy = self._forward(lesson.ids[:, :-1], None, lesson.cells).logits.log_softmax(1)
        self.ledger.prefill_tokens += lesson.ids[:, :-1].numel()
        opinion = self._opinion(lesson) if self._rewards.soft > 0 else None
        rewards = action_rewards(self._rewards, log_policy, opinion, lesson.truth, self._progress)
        actions = torch.multinomial(
            log_policy.exp(), self._learner.samples, replacement=True, generator=generator
        )
        if self._learner.objective == "clipped":
            advantages = objectives.baseline_advantages(log_policy, rewards, actions)
        else:
            advantages = objectives.group_advantages(rewards.gather(1, actions))
        return Drawn(actions, log_policy.gather(1, actions), advantages)

    def _searched(self, ids: Ids, numbers: range) -> list[Lesson]:
        """One search over all windows: large batches cost less a context."""
        assert self._search is not None
        before = self._search.ledger.copy()
        self.student.weights_changed()  # the average moves with every step; states kept of it are void
        rng = np.random.default_rng([*self._seed, numbers[0], _PLAY])
        found = self._search.targets(ids, rng)
        self.ledger.add(self._search.ledger.since(before))
        lessons = []
        rows = self._learner.optimizer.batch_size // self._learner.optimizer.accumulate
        size = rows * self._learner.context
        for index in range(len(ids) // rows):
            chosen = np.flatnonzero(found.cells // size == index)
            cells, actions, weights, returns = (
                torch.from_numpy(values[chosen]).to(self.student.device)
                for values in (found.cells - index * size, found.actions, found.weights, found.returns)
            )
            lesson = self._lesson(ids[index * rows : (index + 1) * rows])
            lessons.append(lesson._replace(cells=cells, searched=Searched(actions, weights, returns)))
        return lessons

    def _opinion(self, lesson: Lesson) -> torch.Tensor:
        """The referee's log-probabilities f32 [P, V] at the lesson's contexts."""
        assert self._referee is not None
        before = self._referee.forwarded
        ids = lesson.ids.cpu().numpy()
        found = self._referee.row_log_probs(ids[:, :-1], ids[:, 1:])
        self.ledger.teacher_tokens += self._referee.forwarded - before
        rows = torch.from_numpy(found).to(self.student.device)
        return rows.flatten(0, 1).index_select(0, lesson.cells)

    def _losses(self, lessons: Sequence[Lesson], seen: list[list[float]]) -> Iterator[torch.Tensor]:
        for lesson in lessons:
            total, terms = self._loss(lesson)
            seen.append(terms)
            yield total

    def _loss(self, lesson: Lesson) -> tuple[torch.Tensor, list[float]]:
        """The lesson's loss, a mean over its contexts that are taught, and the terms of the record, all 0 for
        a lesson that search left without contexts.
        """
        config = self._learner
        output = self._forward(lesson.ids[:, :-1], None, lesson.cells)
        log_policy = output.logits.log_softmax(1)
        opinion = self._opinion(lesson) if self._referee is not None else None
        rewards = action_rewards(self._rewards, log_policy.detach(), opinion, lesson.truth, self._progress)
        mask, mean = taught(self._config.rewards, log_policy.detach()), objectives.mean_taught
        policy = mean(self._policy_losses(lesson, log_policy, rewards, opinion), mask)
        total = policy
        entropy, kl = objectives.entropy(log_policy), torch.zeros_like(mask, dtype=torch.float32)
        if config.entropy_weight:
            total = total - config.entropy_weight * mean(entropy, mask)
        if opinion is not None:
            kl = objectives.divergence(log_policy, opinion)
        if config.kl_weight:
            total = total + config.kl_weight * mean(kl, mask)
        value = torch.zeros(())
        if self._working_head is not None and lesson.searched is not None:
            raw = self._working_head(output.hidden.index_select(0, lesson.cells))
            value = mean(self._working_head.loss(raw, lesson.searched.returns), torch.ones_like(mask))
            total = total + config.value_weight * value
        reward = -objectives.expected_reward(log_policy.detach(), rewards)
        everywhere = (mean(part, torch.ones_like(mask)) for part in (kl, entropy, reward, mask.float()))
        return total, [float(term.detach()) for term in (policy, value, *everywhere)]

    def _policy_losses(
        self, lesson: Lesson, log_policy: torch.Tensor, rewards: torch.Tensor, opinion: torch.Tensor | None
    ) -> torch.Tensor:
        """The objective's loss f32 [P] at each of the lesson's contexts."""
        match self._learner.objective:
            case "cross-entropy":
                return objectives.cross_entropy(log_policy, lesson.truth)
            case "expected-reward":
                return objectives.expected_reward(log_policy, rewards)
            case "product-of-experts":
                target = product_of_experts(self._config.rewards, log_policy.detach(), opinion, lesson.truth)
                return objectives.distribution_loss(log_policy, target)
            case "visits":
                assert lesson.searched is not None
                return objectives.visit_loss(log_policy, lesson.searched.actions, lesson.searched.weights)
        assert lesson.drawn is not None
        return objectives.clipped_surrogate(log_policy, *lesson.drawn, self._learner.clip)


def _asks_referee(config: TextGameConfig) -> bool:
    """Whether the loss itself, not only search, needs the referee's opinion."""
    learner, rewards = config.learner, config.rewards
    experts = learner.objective == "product-of-experts" and rewards.referee > 0
    return experts or learner.kl_weight > 0 or (learner.objective in REWARDED and rewards.soft > 0)


def _check(
    config: TextGameConfig,
    student: Student,
    value_head: ValueHead | None,
    referee: Referee | None,
    search: ContextSearch | None,
) -> None:
    learner = config.learner
    if learner.objective == "visits" and search is None:
        raise InputError("learner.objective is visits but there is no search; give one")
    if _asks_referee(config) and referee is None:
        raise InputError(f"learner.objective {learner.objective} asks a referee and there is none; give one")
    if learner.objective in ("visits", *DRAWN) and learner.steps % learner.refresh:
        raise InputError(
            f"learner.refresh is {learner.refresh} and steps is {learner.steps}; "
            "give a refresh that divides steps, so that a round ends where play begins anew"
        )
    if learner.context > student.max_length:
        raise InputError(
            f"learner.context is {learner.context}, the model takes {student.max_length}; "
            "raise max_position_embeddings"
        )
    if learner.value_weight > 0 and (learner.objective != "visits" or value_head is None):
        raise InputError(
            f"learner.value_weight is {learner.value_weight} and the objective {learner.objective}: only "
            "visits train a value head; set value_weight to 0, or use visits and give a value head"
        )
