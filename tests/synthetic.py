"""A made-up environment with random tables, for tests of the search: deterministic, batched, and cheap; and
strategies that draw such environments and search options for property tests.

It is a walk over `states` numbered states: action `a` in state `s` leads to `next[s, a]`. Nothing in it is
meaningful.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tokenzero.mcts import Evaluation, SearchConfig

K = 5  # candidates of what the strategies draw


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


def take(evaluation: Evaluation, rows: np.ndarray) -> Evaluation:
    return Evaluation(**{name: values[rows] for name, values in vars(evaluation).items()})


@st.composite
def configs(draw_: st.DrawFn) -> SearchConfig:
    method = draw_(st.sampled_from(["puct", "gumbel"]))
    puct = method == "puct"
    return SearchConfig(
        method=method,
        simulations=draw_(st.integers(0, 40)),
        candidates=K,
        max_depth=draw_(st.sampled_from([None, 1, 2, 5])),
        leaves=draw_(st.integers(1, 5)),
        virtual_loss=draw_(st.sampled_from([0.0, 0.5, 1.0])),
        discount=draw_(st.sampled_from([0.0, 0.9, 1.0])),
        node_capacity=draw_(st.sampled_from([None, 1, 2, 9, 60])),
        stop_at_terminal=draw_(st.booleans()),
        stop_on_solution=draw_(st.booleans()),
        skip_exhausted=draw_(st.booleans()),
        solution_value=0.2,
        q_rescale=draw_(st.sampled_from(["siblings", "tree", "none"])),
        min_spread=draw_(st.sampled_from([1e-8, 0.3])),
        fpu=draw_(st.sampled_from(["min", "parent", "reduction"])),
        smart_pruning=puct and draw_(st.sampled_from([False, False, True])),
        min_kld_gain=puct * draw_(st.sampled_from([0.0, 0.0, 1e-3])),
        kld_interval=5,
        prune_targets=puct and draw_(st.booleans()),
        considered=draw_(st.integers(1, 8)),
        temperature=0.0,
        gumbel_scale=0.0,
    )


@st.composite
def environments(draw_: st.DrawFn) -> Synthetic:
    seed = draw_(st.integers(0, 10_000))
    pads, terminals = draw_(st.sampled_from([0.0, 0.3, 0.9])), draw_(st.sampled_from([0.0, 0.2, 0.8]))
    return Synthetic(seed, K, states=60, pads=pads, terminals=terminals, rewards=draw_(st.booleans()))
