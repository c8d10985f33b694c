"""The history of a search, played back, is the tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import Synthetic, configs, environments
from test_mcts_frontier import configs as frontier_configs
from test_mcts_frontier import environments as frontier_environments

from tokenzero.mcts import ROOT, FrontierPool, SearchConfig, SearchPool, Tree
from tokenzero.mcts.history import History


def played_back(
    tree: Tree, place: int, history: History, discount: float, until: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Visits and sums of values after the first `until` simulations, one at a time."""
    visits, total = np.zeros(int(tree.size[place]), int), np.zeros(int(tree.size[place]))
    for node, value in zip(history.ended[:until], history.outcome[:until], strict=True):
        while True:
            visits[node] += 1
            total[node] += value
            if node == ROOT:
                break
            above, slot = int(tree.parent[place, node]), int(tree.parent_slot[place, node])
            value = float(tree.reward[place, above, slot]) + discount * value
            node = above
    return visits, total


def check(tree: Tree, place: int, history: History, discount: float) -> None:
    nodes = int(tree.size[place])
    visits, total = played_back(tree, place, history, discount)
    assert visits.tolist() == tree.visits[place, :nodes].tolist()
    np.testing.assert_allclose(total, tree.value_sum[place, :nodes], atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(environments(), configs(), st.integers(1, 3))
def test_a_search_is_played_back_exactly(env: Synthetic, config: SearchConfig, rows: int) -> None:
    pool = SearchPool(rows, config)
    pool.plant(np.arange(rows), env.roots(rows))
    histories = [pool.watch(place) for place in range(rows)]
    going = True
    while going:
        going = pool.step(env) > 0
        for place, history in enumerate(histories):
            check(pool.tree, place, history, config.discount)
    result = pool.answer(np.arange(rows), uniform=np.zeros(rows) if config.method == "puct" else None)
    for place, history in enumerate(histories):
        assert len(history.ended) == result.simulations[place] + 1  # and the root's own evaluation
        assert history.ended[0] == ROOT


@settings(max_examples=60, deadline=None)
@given(frontier_environments, frontier_configs, st.integers(1, 3))
def test_play_outs_are_played_back_exactly(env: Synthetic, config: SearchConfig, rows: int) -> None:
    pool, places = FrontierPool(rows, config), np.arange(rows)
    pool.plant(places, env.roots(rows), np.random.default_rng(1).spawn(rows))
    histories = [pool.watch(place) for place in range(rows)]
    while pool.step(env):
        pass
    result = pool.answer(places)
    for place, history in enumerate(histories):
        check(result.tree, place, history, 1.0)
        assert len(history.ended) == result.simulations[place]


def test_nodes_come_in_the_order_of_their_making() -> None:
    env = Synthetic(3, 4, terminals=0.2)
    pool = SearchPool(1, SearchConfig(method="puct", simulations=40, candidates=4))
    pool.plant(np.arange(1), env.roots(1))
    history = pool.watch(0)
    while pool.step(env):
        pass
    first = list(dict.fromkeys(history.ended))
    assert first == list(range(int(pool.tree.size[0])))
    assert len(history.ended) > len(first)  # ends are visited again


def test_watching_changes_nothing_and_ends_with_the_answer() -> None:
    env = Synthetic(4, 4, terminals=0.2)
    config = SearchConfig(method="puct", simulations=20, candidates=4)
    trees = []
    for watched in (False, True):
        pool = SearchPool(1, config)
        pool.plant(np.arange(1), env.roots(1))
        history = pool.watch(0) if watched else None
        while pool.step(env):
            pass
        trees.append(pool.tree)
        pool.answer(np.arange(1), uniform=np.zeros(1))
        if history is not None:
            seen = len(history.ended)
            pool.plant(np.arange(1), env.roots(1))
            while pool.step(env):
                pass
            assert len(history.ended) == seen
    nodes = int(trees[0].size[0])
    assert np.array_equal(trees[0].visits[0, :nodes], trees[1].visits[0, :nodes])


@pytest.mark.parametrize("outcome", [-1.0, 0.25])
def test_a_play_out_under_way_is_no_simulation_yet(outcome: float) -> None:
    tree = Tree.allocate(1, 4, 2)
    tree.size[0] = 2
    tree.parent[0, 1], tree.parent_slot[0, 1] = 0, 0
    tree.visits[0, :2], tree.value_sum[0, :2] = 1, -1.0
    history = History()
    history.note(tree, 0, 1.0, np.array([1], np.int32))
    assert history.ended == []
    tree.value_sum[0, :2] += outcome + 1.0
    history.note(tree, 0, 1.0, np.array([-1], np.int32))
    assert (history.ended, history.outcome) == ([1], [pytest.approx(outcome)])
