"""What trees over contexts of a corpus grow from: an ``mcts.Evaluator`` of student, referee and corpus.

A state is a context, or one with a few tokens of search behind it. Where search follows the corpus it comes
to the next context, which is known already. Trees are grown and read by `context_search`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.mcts import Evaluation
from tokenzero.policy.candidates import likeliest
from tokenzero.policy.engine import Engine, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.text.horizon import Floats, Horizon, Ids
from tokenzero.teachers.referee import Referee
from tokenzero.value.head import ValueHead

TINY = 1e-30  # least probability a candidate is given, so that its logarithm is finite


class ContextEvaluator:
    """Contexts of rows ``ids`` i64 [R, W + 1], and what search grows below them; at most ``room`` states.

    Candidates of a state are the likeliest of (1 - beta) * student + beta * referee; where the corpus's next
    token is rewarded and known, it is always one of them. States at the full depth have none, and cost a
    forward only for a learned value. ``ledger`` counts what was forwarded. All states are held until `close`.
    """

    def __init__(
        self,
        engine: Engine,
        referee: Referee,
        value_head: ValueHead | None,
        horizon: Horizon,
        ids: Ids,
        *,
        beta: float,
        candidates: int,
        truth_offered: bool,
        room: int,
    ) -> None:
        self.ledger = Ledger()
        self._engine = engine
        self._referee = referee
        self._head = value_head
        self._horizon = horizon
        self._ids = ids
        self._rows = ids.tolist()
        self._width = ids.shape[1] - 1
        self._beta = beta
        self._truth_offered = truth_offered
        self._levels = horizon.depth + 1  # a handle is state * levels + depth
        self._known = np.full(ids.shape[0] * self._width, -1, np.int64)  # state of each context, -1 for none
        self._count = 0
        self._state = np.zeros(room, np.int64)  # the engine's handle
        self._cell = np.zeros(room, np.int64)  # the context it is, row * W + position; -1 off the corpus
        self._row = np.zeros(room, np.int64)
        self._shared = np.zeros(room, np.int64)  # tokens of the row that it begins with
        self._tail = np.zeros((room, horizon.depth), np.int64)  # and what follows them
        self._length = np.zeros(room, np.int64)
        self._truth = np.zeros(room, np.int64)  # the corpus's next token, -1 where it has none to give
        self.actions = np.full((room, candidates), -1, np.int64)
        self.logits = np.zeros((room, candidates), np.float32)
        self.rewards = np.zeros((room, candidates), np.float32)
        self._expected = np.zeros(room, np.float32)
        self._mean = np.zeros(room, np.float32)

    def open(self, cells: Ids) -> Evaluation:
        """The roots of trees at contexts ``cells`` i64 [P], ascending flat indices row * W + position; their
        states are numbered from 0. The tokens of a row are forwarded once.
        """
        rows, positions = np.divmod(cells, self._width)
        prompts = [self._rows[r][: p + 1] for r, p in zip(rows.tolist(), positions.tolist(), strict=True)]
        before = self._engine.ledger.copy()
        step = self._engine.prefill(prompts)
        self.ledger.add(self._engine.ledger.since(before))
        new = self._add(step.states)
        self._cell[new], self._row[new], self._shared[new] = cells, rows, positions + 1
        self._truth[new] = self._ids[rows, positions + 1]
        self._known[cells] = new
        first, last = int(rows[0]), int(rows[-1]) + 1
        asked = self._referee.forwarded
        furthest = int(positions.max()) + 1
        opinions = self._referee.row_log_probs(
            self._ids[first:last, :furthest], self._ids[first:last, 1 : furthest + 1]
        )
        self.ledger.teacher_tokens += self._referee.forwarded - asked
        self._price(new, step, opinions[rows - first, positions])
        left = np.full(len(new), self._horizon.depth)
        value = self._horizon.worth(self._expected[new], self._mean[new], left)
        return _evaluation(self.actions[new], self.logits[new], value, new * self._levels)

    def expand(self, states: NDArray[np.int64], actions: NDArray[np.int64]) -> Evaluation:
        """See ``mcts.Evaluator``. ``actions`` are candidates of their states."""
        parents, depth = states // self._levels, states % self._levels + 1
        left = self._horizon.depth - depth
        slots = (self.actions[parents] == actions[:, None]).argmax(axis=1)
        nodes = self._next_contexts(parents, actions)
        inner, ends = left > 0, left == 0
        fresh = inner & (nodes < 0)
        self.ledger.cached_tokens += int(np.count_nonzero(inner & (nodes >= 0)))
        if fresh.any():
            nodes[fresh] = self._grow(parents[fresh], actions[fresh])
        shape = (len(states), self.actions.shape[1])
        found = _evaluation(
            np.full(shape, -1, np.int64), np.zeros(shape, np.float32),
            np.zeros(len(states), np.float32), np.zeros(len(states), np.int64),
        )  # fmt: skip
        found.reward = self.rewards[parents, slots]
        at = nodes[inner]
        found.actions[inner], found.logits[inner] = self.actions[at], self.logits[at]
        found.states[inner] = at * self._levels + depth[inner]
        found.value[inner] = self._horizon.worth(self._expected[at], self._mean[at], left[inner])
        if self._horizon.learned and ends.any():
            mean = self._means_at_ends(parents[ends], actions[ends], nodes[ends])
            found.value[ends] = self._horizon.worth(np.zeros_like(mean), mean, left[ends])
        return found

    def release(self, states: NDArray[np.int64]) -> None:
        """Nothing is forgotten before `close`."""

    def close(self) -> None:
        """Give all states back to the engine."""
        self._engine.release(self._state[: self._count])
        self._count = 0

    def _add(self, states: Ids) -> Ids:
        """Numbers of new states with the engine's handles ``states``."""
        new = np.arange(self._count, self._count + len(states))
        self._count += len(states)
        self._state[new] = states
        return new

    def _next_contexts(self, parents: Ids, actions: Ids) -> Ids:
        """States i64 [L] of those children that are contexts of the corpus and open; -1 for the others."""
        cells = self._cells_after(parents, actions)
        return np.where(cells >= 0, self._known[cells], -1)

    def _cells_after(self, parents: Ids, actions: Ids) -> Ids:
        """Contexts that ``actions`` lead to, i64 [L]; -1 off the corpus and beyond the row."""
        cells = self._cell[parents]
        follows = (cells >= 0) & (self._truth[parents] == actions) & ((cells + 1) % self._width > 0)
        return np.where(follows, cells + 1, -1)

    def _grow(self, parents: Ids, actions: Ids) -> Ids:
        """New states below ``parents``, forwarded and priced."""
        before = self._engine.ledger.copy()
        step = self._engine.extend(self._state[parents], actions)
        self.ledger.add(self._engine.ledger.since(before))
        cells = self._cells_after(parents, actions)
        on = cells >= 0
        new = self._add(step.states)
        self._cell[new], self._row[new] = cells, self._row[parents]
        self._shared[new] = self._shared[parents] + on
        self._tail[new], self._length[new] = self._tail[parents], self._length[parents] + ~on
        off = new[~on]
        self._tail[off, self._length[off] - 1] = actions[~on]
        self._truth[new] = np.where(
            on, self._ids[self._row[new], np.minimum(self._shared[new], self._width)], -1
        )
        sequences = [
            self._rows[row][:shared] + tail[:length]
            for row, shared, tail, length in zip(
                self._row[new].tolist(), self._shared[new].tolist(),
                self._tail[new].tolist(), self._length[new].tolist(),
                strict=True,
            )
        ]  # fmt: skip
        asked = self._referee.forwarded
        opinions = self._referee.next_log_probs(sequences)
        self.ledger.teacher_tokens += self._referee.forwarded - asked
        self._price(new, step, opinions)
        return new

    def _means_at_ends(self, parents: Ids, actions: Ids, known: Ids) -> Floats:
        """Learned mean rewards f32 [L] behind children at the full depth, which are not kept."""
        mean = self._mean[known]
        fresh = known < 0
        self.ledger.cached_tokens += int(np.count_nonzero(~fresh))
        if fresh.any():
            before = self._engine.ledger.copy()
            step = self._engine.extend(self._state[parents[fresh]], actions[fresh])
            self._engine.release(step.states)
            spent = self._engine.ledger.since(before)
            self.ledger.value_tokens += spent.decode_tokens
            mean[fresh] = self._predicted(step.hidden)
        return mean

    def _predicted(self, hidden: torch.Tensor) -> Floats:
        assert self._head is not None
        return self._horizon.mean(self._head.evaluate(hidden))

    @torch.inference_mode()
    def _price(self, new: Ids, step: Step, opinions: Floats) -> None:
        """Fill in candidates, their rewards and what is expected of states ``new``."""
        device = step.logits.device
        likely = torch.from_numpy(opinions).to(device).exp()
        mixed = torch.lerp(step.logits.softmax(-1), likely, self._beta).clamp_(min=TINY).log_()
        mask = torch.zeros(mixed.shape[1], device=device)
        actions, logits = likeliest(mixed, mask, self.actions.shape[1])
        truth = self._truth[new]
        if self._truth_offered:
            absent = np.flatnonzero((truth >= 0) & ~(actions == truth[:, None]).any(axis=1))
            actions[absent, -1] = truth[absent]
            logits[absent, -1] = mixed[absent, truth[absent]].cpu().numpy()
        rewards = self._horizon.rewards(np.take_along_axis(opinions, actions, axis=1), actions, truth)
        self.actions[new], self.logits[new], self.rewards[new] = actions, logits, rewards
        self._expected[new] = (_softmax(logits) * rewards).sum(axis=1)
        if self._horizon.learned:
            self._mean[new] = self._predicted(step.hidden)


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _evaluation(actions: Ids, logits: Floats, value: Floats, states: Ids) -> Evaluation:
    """States that never end, without a reward yet."""
    return Evaluation(
        actions=actions,
        logits=logits,
        value=value,
        reward=np.zeros(len(value), np.float32),
        terminal=np.zeros(len(value), np.bool_),
        states=states,
    )
