"""Places of a pool that are cut short or given up, and trees with a longest answer of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Synthetic
from test_mcts_frontier import Won

from tokenzero.mcts import FrontierPool, InputError, SearchConfig, SearchPool

ALL = np.arange(3)


@pytest.mark.parametrize("method", ["puct", "gumbel"])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_search_that_is_finished_early_is_answered_as_it_stands(method: str, steps: int) -> None:
    env = Synthetic(5, 4)
    config = SearchConfig(method=method, simulations=20, candidates=4, temperature=0.0)
    pool, short = SearchPool(3, config), SearchPool(3, replace(config, simulations=steps))
    for each in (pool, short):
        each.plant(ALL, env.roots(3))
    for _ in range(steps):
        pool.step(env)
        short.step(env)
    assert pool.left(ALL).tolist() == [20 - steps] * 3
    pool.finish(ALL[1:])
    assert pool.left(ALL).tolist() == [20 - steps, 0, 0]
    assert pool.ended().tolist() == [1, 2]
    found = pool.answer(ALL[1:], uniform=np.zeros(2) if method == "puct" else None)
    assert found.simulations.tolist() == [steps] * 2
    assert found.visits.sum(axis=1).tolist() == [steps] * 2
    if not steps:
        prior = pool.tree.prior[1:, 0]
        assert found.chosen.tolist() == prior.argmax(axis=1).tolist()
    if method == "puct":  # whose walk does not depend on the budget
        other = short.answer(ALL, uniform=np.zeros(3))
        np.testing.assert_array_equal(found.visits, other.visits[1:])
        np.testing.assert_array_equal(found.value, other.value[1:])
    while pool.step(env):
        pass
    assert pool.ended().tolist() == [0]


@pytest.mark.parametrize("method", ["puct", "frontier"])
def test_a_place_that_is_forgotten_is_free_and_says_what_was_made(method: str) -> None:
    env = Won(5, 4, terminals=0.2)
    config = SearchConfig(method=method, simulations=20, candidates=4, max_depth=6)
    other = FrontierPool(3, config) if method == "frontier" else SearchPool(3, config)

    def plant(places: np.ndarray) -> None:
        roots = env.roots(len(places))
        if isinstance(other, FrontierPool):
            other.plant(places, roots, np.random.default_rng(0).spawn(len(places)))
        else:
            other.plant(places, roots)

    plant(ALL[:2])
    for _ in range(4):
        other.step(env)
    made = other.forget(ALL)
    assert (made[:2] >= 1).all()
    assert made[2] == 0
    assert other.step(env) == 0
    assert other.ended().size == 0
    with pytest.raises(InputError, match=r"free|not all"):
        other.answer(ALL[:1])
    plant(ALL)
    while other.step(env):
        pass
    assert other.ended().tolist() == [0, 1, 2]


@pytest.mark.parametrize("leaves", [1, 3])
def test_finished_frontier_searches_credit_what_was_under_way(leaves: int) -> None:
    env = Won(11, 4, terminals=0.2)
    config = SearchConfig(method="frontier", simulations=50, candidates=4, max_depth=8, leaves=leaves)
    pool = FrontierPool(3, config)
    pool.plant(ALL, env.roots(3), np.random.default_rng(0).spawn(3))
    for _ in range(2):
        pool.step(env)
    pool.finish(ALL)
    result = pool.answer(ALL)
    for place in range(3):
        count = int(result.nodes[place])
        visits, total = result.tree.visits[place, :count], result.tree.value_sum[place, :count]
        below = [np.flatnonzero(result.tree.parent[place, :count] == node) for node in range(count)]
        for node in range(count):
            if below[node].size == 0 and not result.tree.terminal[place, node]:
                raw = float(result.tree.raw_value[place, node])
                assert total[node] == pytest.approx(raw * visits[node]), "cut short: worth its own value"


@pytest.mark.parametrize("longest", [[3, 9, 5], [9, 3, 3]])
def test_each_tree_weighs_by_its_own_longest_answer(longest: list[int]) -> None:
    env = Won(3, 4, terminals=0.05)
    config = SearchConfig(
        method="frontier", tokens=60, candidates=4, max_depth=9, cost_exponent=3.0, frontier_noise=0.0
    )
    together = FrontierPool(3, config)
    rngs = np.random.default_rng(1).spawn(3)
    together.plant(ALL, env.roots(3), rngs, longest=np.asarray(longest))
    while together.step(env):
        pass
    found = together.answer(ALL)
    for place, limit in enumerate(longest):
        alone, first = FrontierPool(1, replace(config, max_depth=limit)), np.zeros(1, np.int64)
        alone.plant(first, env.roots(1, first=place), np.random.default_rng(1).spawn(3)[place : place + 1])
        while alone.step(env):
            pass
        one = alone.answer(first)
        n = int(one.nodes[0])
        assert found.nodes[place] == n
        for name in ("parent", "visits", "value_sum"):
            mine, theirs = getattr(found.tree, name)[place, :n], getattr(one.tree, name)[0, :n]
            np.testing.assert_array_equal(mine, theirs)


def test_ends_that_are_paid_for_count_as_tokens() -> None:
    env = Won(3, 4, terminals=0.5)
    config = SearchConfig(method="frontier", tokens=25, candidates=4, max_depth=9, leaves=2)
    for paid in (False, True):
        pool = FrontierPool(3, config, paid_ends=paid)
        pool.plant(ALL, env.roots(3), np.random.default_rng(1).spawn(3))
        asked = 0
        while count := pool.step(env):
            asked += count
        found = pool.answer(ALL)
        assert (found.tokens <= 25).all()
        states = [int((~found.tree.terminal[b, 1 : found.nodes[b]]).sum()) for b in range(3)]
        if paid:
            assert found.tokens.sum() == asked > sum(states)
        else:
            assert found.tokens.tolist() == states
