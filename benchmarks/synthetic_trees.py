"""The made-up environment that the search benchmarks share, as numba, jax and open_spiel want it.

State `s` has a row of logits and a value from tables of random numbers; action `a` leads from it to a state
hashed from both. One row of a table is copied per evaluation: evaluating costs as little as it can, so that
what is measured is the search. It measures nothing itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tokenzero.mcts import Evaluation

STATES = 1 << 14
STATE_FACTOR, ACTION_FACTOR, SHIFT = 1_103_515, 12_345, 12_347  # products stay below 2**31


class Tables:
    """Logits float32 [STATES, K] and values float32 [STATES], drawn from `seed`."""

    def __init__(self, candidates: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.logits = rng.normal(scale=1.5, size=(STATES, candidates)).astype(np.float32)
        self.value = rng.uniform(-1, 1, STATES).astype(np.float32)

    def following(self, state: Any, action: Any) -> Any:
        """The state that `action` leads to; for numbers and arrays of numpy and jax."""
        return (state % 1024 * STATE_FACTOR + state // 1024 + action * ACTION_FACTOR + SHIFT) % STATES


@njit(cache=True)
def _evaluate(
    states: Any, moves: Any, logits: Any, value: Any, found: Any, found_value: Any, found_logits: Any
) -> None:
    for i in range(states.shape[0]):
        s = states[i]
        s = (s % 1024 * STATE_FACTOR + s // 1024 + moves[i] * ACTION_FACTOR + SHIFT) % STATES
        found[i] = s
        found_value[i] = value[s]
        for k in range(logits.shape[1]):
            found_logits[i, k] = logits[s, k]


class NumbaEvaluator:
    """The environment as our search wants it: one compiled call per step into arrays for `rows` leaves."""

    def __init__(self, tables: Tables, rows: int) -> None:
        width = tables.logits.shape[1]
        self._tables = tables
        self._actions = np.tile(np.arange(width), (rows, 1))
        self._logits = np.zeros((rows, width), np.float32)
        self._value, self._reward = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        self._terminal, self._states = np.zeros(rows, np.bool_), np.zeros(rows, np.int64)

    def roots(self, states: NDArray[np.int64]) -> Evaluation:
        """Evaluated states, for the root of a search."""
        count = len(states)
        return Evaluation(
            actions=self._actions[:count].copy(),
            logits=self._tables.logits[states],
            value=self._tables.value[states],
            reward=np.zeros(count, np.float32),
            terminal=np.zeros(count, np.bool_),
            states=states.copy(),
        )

    def expand(self, states: NDArray[np.int64], actions: NDArray[np.int64]) -> Evaluation:
        """Evaluate the children; the arrays are written anew by the next call."""
        n, tables = len(states), self._tables
        _evaluate(states, actions, tables.logits, tables.value, self._states, self._value, self._logits)
        return Evaluation(
            self._actions[:n], self._logits[:n], self._value[:n],
            self._reward[:n], self._terminal[:n], self._states[:n],
        )  # fmt: skip

    def release(self, states: NDArray[np.int64]) -> None:
        """Nothing is kept."""


def mctx_search(tables: Tables, method: str, simulations: int) -> Any:
    """A jitted mctx search: (key, states int32 [B]) -> mctx.PolicyOutput."""
    import jax
    import jax.numpy as jnp
    import mctx

    logits, value = jnp.asarray(tables.logits), jnp.asarray(tables.value)

    def recurrent(params: Any, _key: Any, action: Any, state: Any) -> Any:
        after = tables.following(state, action)
        output = mctx.RecurrentFnOutput(
            reward=jnp.zeros(after.shape, jnp.float32),
            discount=jnp.ones(after.shape, jnp.float32),
            prior_logits=params[0][after],
            value=params[1][after],
        )
        return output, after

    policy = (
        partial(mctx.muzero_policy, dirichlet_fraction=0.0)
        if method == "puct"
        else partial(mctx.gumbel_muzero_policy, max_num_considered_actions=16)
    )

    def run(params: Any, key: Any, states: Any) -> Any:
        root = mctx.RootFnOutput(prior_logits=params[0][states], value=params[1][states], embedding=states)
        return policy(params, key, root, recurrent, simulations)

    return partial(jax.jit(run), (logits, value))


def open_spiel_search(tables: Tables, simulations: int) -> Any:
    """open_spiel's Python MCTS (PUCT selection): a function of one root state number."""
    from open_spiel.python.algorithms import mcts

    width = tables.logits.shape[1]
    mass = np.exp(tables.logits - tables.logits.max(axis=1, keepdims=True))
    prior = mass / mass.sum(axis=1, keepdims=True)  # not lists: the garbage collector would walk them all
    value, slots = tables.value.tolist(), list(range(width))

    class State:
        """One player, no chance, no end: as little as the algorithm asks for."""

        def __init__(self, number: int) -> None:
            self.number = number

        def clone(self) -> State:
            return State(self.number)

        def apply_action(self, action: int) -> None:
            self.number = tables.following(self.number, action)

        def current_player(self) -> int:
            return 0

        def is_terminal(self) -> bool:
            return False

        def is_chance_node(self) -> bool:
            return False

        def legal_actions(self) -> list[int]:
            return slots

    class Lookup(mcts.Evaluator):
        def evaluate(self, state: State) -> list[float]:
            return [value[state.number]]

        def prior(self, state: State) -> list[tuple[int, float]]:
            return list(enumerate(prior[state.number].tolist()))

    class Game:
        """What the bot asks of a game."""

        def max_utility(self) -> float:
            return 1.0

        def get_type(self) -> Any:
            from types import SimpleNamespace

            import pyspiel

            kinds = pyspiel.GameType
            return SimpleNamespace(
                reward_model=kinds.RewardModel.TERMINAL, dynamics=kinds.Dynamics.SEQUENTIAL
            )

    bot = mcts.MCTSBot(
        Game(), 1.25, simulations, Lookup(), solve=False, random_state=np.random.RandomState(0),
        child_selection_fn=mcts.SearchNode.puct_value,
    )  # fmt: skip
    return lambda number: bot.mcts_search(State(number))
