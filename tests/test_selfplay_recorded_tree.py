"""A recorded tree says what the live one said, and what an episode still knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_run import TOKENIZER, make_answer
from made_tree import searched_tree, small_tree
from synthetic import Synthetic

from tokenzero.mcts import FrontierPool, SearchConfig, SearchPool
from tokenzero.selfplay.episode_tree import from_episode
from tokenzero.selfplay.recorded_tree import RecordedTree, record
from tokenzero.selfplay.state_table import StateTable


def decode(tokens: Any) -> str:
    return str(TOKENIZER.decode(list(tokens)))


def test_the_arrays_are_the_trees() -> None:
    env = Synthetic(5, 4, terminals=0.2, rewards=True)
    config = SearchConfig(method="puct", simulations=40, candidates=4, discount=0.9)
    pool = SearchPool(2, config)
    pool.plant(np.arange(2), env.roots(2))
    history = pool.watch(1)
    while pool.step(env):
        pass
    result = pool.answer(np.arange(2), uniform=np.zeros(2))
    live, nodes = result.tree, int(result.tree.size[1])
    found = record(
        live, 1, history, prompt="p", method="puct", actions=lambda s: [s], text=str, discount=0.9,
        solution_value=0.5, weights=result.weights[1],
    )  # fmt: skip
    assert found.parent.tolist() == live.parent[1, :nodes].tolist()
    assert found.visits.tolist() == live.visits[1, :nodes].tolist()
    assert found.depths().tolist() == live.depth[1, :nodes].tolist()
    assert found.value.tolist() == [pytest.approx(live.value(1, n)) for n in range(nodes)]
    assert found.actions[1:] == [[int(s)] for s in live.state[1, 1:nodes]]
    assert found.reward is not None
    assert found.weight is not None
    for node in range(1, nodes):
        edge = (1, live.parent[1, node], live.parent_slot[1, node])
        assert found.prior[node] == live.prior[edge]
        assert found.reward[node] == live.reward[edge]
        at_root = found.parent[node] == 0
        assert np.isnan(found.weight[node]) == (not at_root)
        if at_root:
            assert found.weight[node] == result.weights[1, live.parent_slot[1, node]]
    solved = live.terminal[1, :nodes] & (live.raw_value[1, :nodes] >= 0.5)
    assert found.solved.tolist() == solved.tolist()
    assert found.prior[0] == 1.0
    assert len(found.ended) == 41


def test_failed_ends_without_a_node_are_counted_where_they_were() -> None:
    env = Synthetic(1, 4, terminals=0.5)
    env.value[env.terminal] = -1.0
    pool = FrontierPool(1, SearchConfig(method="frontier", simulations=20, candidates=4, max_depth=5))
    pool.plant(np.arange(1), env.roots(1), [np.random.default_rng(0)])
    history = pool.watch(0)
    while pool.step(env):
        pass
    result = pool.answer(np.arange(1))
    found = record(result.tree, 0, history, prompt="", method="frontier", actions=lambda s: [s], text=str)
    assert found.lost is not None
    ended_here = np.bincount(found.ended, minlength=len(found.parent))
    assert (found.lost <= ended_here).all()
    assert found.lost.sum() == (found.outcome == -1.0).sum()


def test_proposers_and_verdicts_come_from_the_table() -> None:
    table = StateTable(8, 2, 3)
    roots = table.plant(np.zeros(1, np.int64))
    table.fill(roots, np.array([[5, 6]]), np.zeros((1, 2), np.float32), np.zeros(1, np.float32))
    table.slot[roots] = 0
    table.responsibility[roots[0]] = [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]
    rows, _ = table.children(np.repeat(roots, 2), np.array([5, 6]))
    table.slot[rows[0]], table.value[rows[0]], table.unjudged[rows[0]] = 1, 0.5, 0.25
    pool = SearchPool(1, SearchConfig(method="puct", simulations=2, candidates=2))
    tree = pool.tree.enlarged(4)
    tree.size[0] = 3
    tree.parent[0, :3], tree.parent_slot[0, :3] = [-1, 0, 0], [-1, 0, 1]
    tree.state[0, :3] = [roots[0], *rows]
    tree.visits[0, :3] = 1
    found = record(
        tree, 0, None, prompt="", method="puct", actions=lambda row: [int(table.token[row])],
        text=lambda row: "x" * int(table.length[row]), table=table, judged=True, proposers=["a", "b", "c"],
    )  # fmt: skip
    assert found.shares is not None
    assert found.shares.tolist() == [[0, 0, 0], [0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]
    assert found.judge is not None
    assert found.judge.tolist() == [0, 1, 0]  # the third was never forwarded
    assert found.actions == [[], [5], [6]]
    assert found.text == ["", "x", "x"]


def test_creation_is_the_first_simulation_through_a_node() -> None:
    assert small_tree().created().tolist() == [0, 1, 3, 2, 4]
    deep = small_tree(ended=np.array([0, 3, 4, 2, 1], np.int32))
    assert deep.created().tolist() == [0, 1, 3, 1, 2]
    assert small_tree(ended=np.zeros(0, np.int32)).created().tolist() == [-1] * 5


def test_an_answer_is_followed_as_far_as_the_tree_goes() -> None:
    tree = small_tree()
    assert tree.follow([4, 6]) == [1, 3]
    assert tree.follow([4, 9]) == [1]
    assert tree.follow([9]) == []
    steps = small_tree(actions=[[], [4, 4], [4], [6, 7, 8], [6]])
    assert steps.follow([4, 4, 6, 7, 8, 1]) == [1, 3]
    assert steps.follow([4, 5]) == [2]


def test_an_episode_of_a_path() -> None:
    found = from_episode(make_answer("cab", 1.0), decode, "gumbel")
    assert found.parent.tolist() == [-1, 0, 1, 2]
    assert found.text == ["", "c", "a", "b"]
    assert found.committed == [1, 2, 3]
    assert found.solved.tolist() == [False, False, False, True]
    assert found.visits.tolist() == [4, 3, 2, 1]
    assert found.counted == "states"
    assert "not stored" in found.note
    lost = from_episode(make_answer("cab", -1.0), decode, "gumbel")
    assert (lost.terminal.tolist(), lost.solved.any()) == ([False, False, False, True], False)


def test_an_episode_of_a_tree() -> None:
    made = make_answer("abcd")
    a, b, c, _ = made.tokens[2:]
    episode = replace(
        made, answer="ac", parents=[-1, 0, 0, 1], root_values=[0.0, 0.5, -1.0, 1.0, -1.0],
        positions=[1, 2], actions=[[a], [b, c]], weights=[[1.0], [0.25, 0.75]], attribution=[[1.0]] * 2,
    )  # fmt: skip
    found = from_episode(episode, decode, "frontier")
    assert found.parent.tolist() == [-1, 0, 1, 1, 2]
    assert found.text == ["", "a", "b", "c", "d"]
    assert found.committed == [1, 3]
    assert found.solved.tolist() == [False, False, False, True, False]
    assert found.exhausted.tolist() == [False, False, True, False, True]
    assert found.weight is not None
    np.testing.assert_array_equal(found.weight, np.array([np.nan, 1.0, 0.25, 0.75, np.nan], np.float32))
    assert found.visits.tolist() == [5, 4, 2, 1, 1]


def test_a_made_tree_is_one() -> None:
    found = searched_tree(30)
    assert isinstance(found, RecordedTree)
    assert found.visits[0] == 31
    assert found.text[1].strip()
