"""A made-up environment with random tables, for tests of the search: deterministic, batched, and cheap.

It is a walk over `states` numbered states: action `a` in state `s` leads to `next[s, a]`. Nothing in it is
meaningful.
"""

from __future__ import annotations

import numpy as np

from tokenzero.mcts import Evaluation


class Synthetic:
    """Tables drawn from `seed`; `pads` and `terminals` are the shares of empty slots and of terminal
    states.
    """

    def __init__(
        self,
        seed: int,
        candidates: int,
        *,
        states: int = 200,
        pads: float = 0.0,
        terminals: float = 0.0,
        rewards: bool = False,
        grid: int | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        shape = (states, candidates)
        self.actions = rng.integers(0, 50_000, size=states)[:, None] + np.arange(candidates)[None]
        self.actions[rng.random(shape) < pads] = -1
        self.logits = rng.normal(scale=1.5, size=shape).astype(np.float32)
        value = rng.uniform(-1, 1, states)
        self.value = (np.round(value * grid) / grid if grid else value).astype(np.float32)
        self.next = rng.integers(0, states, size=shape)
        reward = rng.uniform(-0.5, 0.5, shape) if rewards else np.zeros(shape)
        self.reward = reward.astype(np.float32)
        self.terminal = rng.random(states) < terminals
        self.calls: list[int] = []

    def at(self, states: np.ndarray, rewards: np.ndarray) -> Evaluation:
        return Evaluation(
            actions=self.actions[states],
            logits=self.logits[states],
            value=self.value[states],
            reward=rewards,
            terminal=self.terminal[states],
            states=states,
        )

    def roots(self, batch: int, first: int = 0) -> Evaluation:
        states = np.arange(first, first + batch)
        evaluation = self.at(states, np.zeros(batch, np.float32))
        evaluation.terminal = np.zeros(batch, np.bool_)
        return evaluation

    def expand(self, states: np.ndarray, actions: np.ndarray) -> Evaluation:
        self.calls.append(len(states))
        assert (actions != -1).all(), "an empty slot was expanded"
        slots = np.argmax(self.actions[states] == actions[:, None], axis=1)
        assert (self.actions[states, slots] == actions).all(), (
            "an action was asked of a state that does not offer it"
        )
        return self.at(self.next[states, slots], self.reward[states, slots])

    def release(self, states: np.ndarray) -> None:
        raise AssertionError("a search releases nothing")
