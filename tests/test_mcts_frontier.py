"""Frontier search against the plain one, its budgets, and what it promises about solutions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_frontier import NaiveFrontier
from synthetic import Synthetic

from tokenzero.mcts import Evaluation, FrontierPool, InputError, SearchConfig, SearchPool, search
from tokenzero.mcts.frontier import FrontierResult


class Won(Synthetic):
    """Random tables in which terminal states are won or lost outright, a third of them won."""

    def __init__(self, seed: int, candidates: int, **options: Any) -> None:
        super().__init__(seed, candidates, **options)
        won = np.random.default_rng(seed + 1).random(len(self.value)) < 0.34
        self.value = np.where(self.terminal, np.where(won, 1.0, -1.0), self.value).astype(np.float32)


def searched(
    env: Synthetic, config: SearchConfig, batch: int = 3, first: int = 0, seed: int = 7
) -> FrontierResult:
    pool, places = FrontierPool(batch, config), np.arange(batch)
    pool.plant(places, env.roots(batch, first), np.random.default_rng(seed).spawn(first + batch)[first:])
    while pool.step(env):
        pass
    return pool.answer(places)


def rows_of(env: Synthetic) -> Any:
    def expand(states: list[int], actions: list[int]) -> list[dict[str, Any]]:
        return records(env.expand(np.asarray(states, np.int64), np.asarray(actions, np.int64)))

    return expand


def records(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "actions": evaluation.actions[i].tolist(),
            "logits": evaluation.logits[i],
            "value": evaluation.value[i],
            "terminal": bool(evaluation.terminal[i]),
            "state": int(evaluation.states[i]),
        }
        for i in range(len(evaluation.value))
    ]


configs = st.builds(
    SearchConfig,
    method=st.just("frontier"),
    candidates=st.just(4),
    max_depth=st.integers(2, 7),
    leaves=st.sampled_from([1, 1, 2, 5]),
    tokens=st.one_of(st.none(), st.integers(1, 60)),
    simulations=st.integers(1, 12),
    stop_on_solution=st.booleans(),
    value_weight=st.sampled_from([0.0, 0.5, 1.0]),
    cost_exponent=st.sampled_from([0.0, 1.0]),
    prior_exponent=st.sampled_from([0.5, 1.0]),
    frontier_noise=st.sampled_from([0.0, 0.5]),
)
environments = st.builds(
    Won,
    st.integers(0, 10_000),
    st.just(4),
    states=st.sampled_from([30, 200]),
    pads=st.sampled_from([0.0, 0.3]),
    terminals=st.sampled_from([0.2, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(config=configs, env=environments)
def test_every_number_is_that_of_the_plain_search(config: SearchConfig, env: Won) -> None:
    result = searched(env, config)
    roots, rngs = records(env.roots(3)), np.random.default_rng(7).spawn(3)
    for b in range(3):
        plain = NaiveFrontier(roots[b], rows_of(env), config, rngs[b])
        plain.run()
        tree = result.tree
        assert result.nodes[b] == len(plain.nodes)
        assert result.tokens[b] == plain.tokens
        assert result.simulations[b] == len(plain.rollouts)
        for node, record in enumerate(plain.nodes):
            assert tree.parent[b, node] == (-1 if record["parent"] is None else record["parent"])
            assert tree.parent_slot[b, node] == (-1 if record["slot"] is None else record["slot"])
            visits, total, solutions = plain.statistics(node)
            assert tree.visits[b, node] == visits
            assert tree.value_sum[b, node] == pytest.approx(total, abs=1e-9)
            assert result.solutions[b, node] == solutions
            assert bool(tree.exhausted[b, node]) == plain.exhausted(node)


@settings(max_examples=25, deadline=None)
@given(config=configs, env=environments)
def test_trees_do_not_influence_each_other(config: SearchConfig, env: Won) -> None:
    together = searched(env, config, batch=4)
    for b in range(4):
        alone = searched(env, config, batch=1, first=b)
        n = int(alone.nodes[0])
        assert together.nodes[b] == n
        assert (together.tree.parent[b, :n] == alone.tree.parent[0, :n]).all()
        assert (together.tree.value_sum[b, :n] == alone.tree.value_sum[0, :n]).all()


@pytest.mark.parametrize("leaves", [1, 4])
def test_a_token_budget_is_spent_to_the_token_and_never_passed(leaves: int) -> None:
    env = Won(3, 4, terminals=0.2)
    for tokens in (1, 2, 17, 150):
        config = SearchConfig(method="frontier", candidates=4, max_depth=50, tokens=tokens, leaves=leaves)
        result = searched(env, config)
        below = ~result.tree.terminal[:, 1:]
        for b in range(3):
            assert result.tokens[b] == tokens == below[b, : result.nodes[b] - 1].sum()


class Lock:
    """Binary tree of a given depth in which one leaf is won; states are numbered as in a heap."""

    def __init__(self, depth: int, won: int) -> None:
        self.depth, self.won, self.asked = depth, won, 0

    def rows(self, states: np.ndarray) -> Evaluation:
        terminal = states >= 2**self.depth
        return Evaluation(
            actions=np.tile(np.arange(2), (len(states), 1)),
            logits=np.zeros((len(states), 2), np.float32),
            value=np.where(terminal, np.where(states == self.won, 1.0, -1.0), 0.0).astype(np.float32),
            reward=np.zeros(len(states), np.float32),
            terminal=terminal,
            states=states,
        )

    def expand(self, states: np.ndarray, actions: np.ndarray) -> Evaluation:
        self.asked += len(states)
        return self.rows(2 * states + actions)

    def release(self, states: np.ndarray) -> None: ...


@pytest.mark.parametrize("score", ["expected", "sampling"])
@pytest.mark.parametrize("leaves", [1, 3])
def test_a_finite_tree_is_searched_whole_once_and_then_left(score: str, leaves: int) -> None:
    env = Lock(6, won=2**6 + 37)
    config = SearchConfig(
        method="frontier", candidates=2, max_depth=6, tokens=10_000, frontier_score=score, leaves=leaves
    )
    pool = FrontierPool(1, config)
    pool.plant(np.zeros(1, np.int64), env.rows(np.ones(1, np.int64)), [np.random.default_rng(0)])
    while pool.step(env):
        pass
    result = pool.answer(np.zeros(1, np.int64))
    assert env.asked == 2 * (2**6 - 1)
    assert result.tree.exhausted[0, 0]
    assert result.solutions[0, 0] == 1
    assert result.tree.path(0, int(result.solution[0])) == [1, 0, 0, 1, 0, 1]
    assert result.tokens[0] == 2**6 - 2


def test_sampling_without_replacement_is_just_that() -> None:
    """First ends are drawn as the model draws them, and no end comes twice."""
    logits = np.asarray([[0.3, -1.0], [1.0, 0.0], [-0.5, 0.5]], np.float32)

    class Two(Lock):
        def rows(self, states: np.ndarray) -> Evaluation:
            found = super().rows(states)
            found.logits = logits[np.minimum(states - 1, 2)]
            found.value = np.maximum(found.value, np.float32(-0.5))  # ends that lost outright keep no node
            return found

    def probability(end: int) -> float:
        p = 1.0
        while end > 1:
            row = np.exp(logits[end // 2 - 1].astype(float))
            p *= row[end % 2] / row.sum()
            end //= 2
        return p

    draws = 4000
    config = SearchConfig(
        method="frontier", candidates=2, max_depth=2, simulations=2, frontier_score="sampling"
    )
    pool, places, env = FrontierPool(draws, config), np.arange(draws), Two(2, won=4)
    pool.plant(places, env.rows(np.ones(draws, np.int64)), np.random.default_rng(5).spawn(draws))
    while pool.step(env):
        pass
    result = pool.answer(places)
    pairs: dict[tuple[int, ...], int] = {}
    for b in range(draws):
        ends = [int(result.tree.state[b, n]) for n in range(result.nodes[b]) if result.tree.terminal[b, n]]
        pairs[tuple(ends)] = pairs.get(tuple(ends), 0) + 1
    for first, second in itertools.permutations(range(4, 8), 2):
        expected = probability(first) * probability(second) / (1 - probability(first))
        spread = math.sqrt(expected * (1 - expected) / draws)
        assert abs(pairs.get((first, second), 0) / draws - expected) < 5 * spread


def test_the_front_door_proposes_where_the_solutions_are() -> None:
    env = Lock(4, won=2**4 + 9)
    config = SearchConfig(method="frontier", candidates=2, max_depth=4, simulations=16)
    answer = search(env.rows(np.ones(2, np.int64)), env, config, np.random.default_rng(1))
    assert answer.chosen.tolist() == [1, 1]
    assert answer.weights.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert (answer.solution_state == 2**4 + 9).all()
    assert answer.simulations.tolist() == [16, 16]


def test_ended_roots_and_roots_without_candidates_are_left_alone() -> None:
    env = Lock(2, won=4)
    config = SearchConfig(method="frontier", candidates=2, max_depth=2, simulations=4)
    root = env.rows(np.asarray([4, 1]))
    root.actions[1] = -1
    answer = search(root, env, config, np.random.default_rng(1))
    assert env.asked == 0
    assert answer.solution.tolist() == [0, -1]


def test_places_are_planted_again() -> None:
    env = Won(11, 4, terminals=0.3)
    config = SearchConfig(method="frontier", candidates=4, max_depth=6, tokens=90)
    pool, one = FrontierPool(2, config), np.ones(1, np.int64)
    rngs = np.random.default_rng(3).spawn(3)
    pool.plant(np.arange(2), env.roots(2), rngs[:2])
    while pool.step(env):
        pass
    pool.answer(one)
    pool.plant(one, env.roots(1, first=9), [np.random.default_rng(4)])
    while pool.step(env):
        pass
    again, alone = pool.answer(one), FrontierPool(1, config)
    alone.plant(np.zeros(1, np.int64), env.roots(1, first=9), [np.random.default_rng(4)])
    while alone.step(env):
        pass
    fresh = alone.answer(np.zeros(1, np.int64))
    n = int(fresh.nodes[0])
    assert again.nodes[0] == n
    assert (again.tree.value_sum[1, :n] == fresh.tree.value_sum[0, :n]).all()


def test_what_does_not_fit_is_refused() -> None:
    config = SearchConfig(method="frontier", candidates=2, max_depth=2)
    with pytest.raises(InputError, match="needs method"):
        FrontierPool(1, SearchConfig())
    with pytest.raises(InputError, match="max_depth"):
        FrontierPool(1, SearchConfig(method="frontier"))
    with pytest.raises(InputError, match="FrontierPool"):
        SearchPool(1, config)
    with pytest.raises(InputError, match="tokens"):
        SearchConfig(method="puct", tokens=5)
    pool, env, place = FrontierPool(1, config), Lock(2, won=4), np.zeros(1, np.int64)
    pool.plant(place, env.rows(np.ones(1, np.int64)), [np.random.default_rng(0)])
    with pytest.raises(InputError, match="busy"):
        pool.plant(place, env.rows(np.ones(1, np.int64)), [np.random.default_rng(0)])
    with pytest.raises(InputError, match="not all"):
        pool.answer(place)
    with pytest.raises(InputError, match="evaluation"):
        pool.step(_Broken())
    with pytest.raises(InputError, match="lost"):
        pool.step(env)


class _Broken:
    def expand(self, states: np.ndarray, actions: np.ndarray) -> Evaluation:
        return Lock(2, won=4).rows(np.ones(len(states) + 1, np.int64))

    def release(self, states: np.ndarray) -> None: ...
