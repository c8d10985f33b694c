"""The networkx view of a tree says what the arrays say."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from synthetic import Synthetic

from tokenzero.mcts import NONE, ROOT, InputError, SearchConfig, Tree, search, to_networkx


@pytest.fixture(scope="module")
def tree() -> Tree:
    env = Synthetic(0, 4, terminals=0.2, pads=0.2, rewards=True)
    config = SearchConfig(method="puct", simulations=30, candidates=4)
    return search(env.roots(3), env, config, np.random.default_rng(0)).tree


@pytest.mark.parametrize("b", range(3))
def test_graph_is_the_tree(tree: Tree, b: int) -> None:
    graph = to_networkx(tree, b)
    assert nx.is_arborescence(graph)
    assert sorted(graph) == list(range(tree.size[b]))
    expected = [(n, int(c)) for n in range(tree.size[b]) for c in tree.child[b, n] if c != NONE]
    assert sorted(graph.edges) == sorted(expected)
    for node, data in graph.nodes(data=True):
        assert data["depth"] == nx.shortest_path_length(graph, ROOT, node)
        assert data["visits"] == tree.visits[b, node]
        assert data["value"] == pytest.approx(tree.value_sum[b, node] / tree.visits[b, node])
        assert data["raw_value"] == tree.raw_value[b, node]
        assert data["terminal"] == tree.terminal[b, node]
        if node != ROOT:
            edge = (b, tree.parent[b, node], tree.parent_slot[b, node])
            assert data["prior"] == tree.prior[edge]
            assert data["reward"] == tree.reward[edge]
            path = nx.shortest_path(graph, ROOT, node)[1:]
            assert [graph.nodes[n]["action"] for n in path] == tree.path(b, node)
    assert graph.nodes[ROOT]["action"] is None
    assert graph.nodes[ROOT]["prior"] == 1.0


def test_attributes_are_plain_numbers(tree: Tree) -> None:
    for data in dict(to_networkx(tree).nodes(data=True)).values():
        assert {type(value) for value in data.values()} <= {int, float, bool, type(None)}
        assert set(data) == {"visits", "value", "raw_value", "prior", "action", "depth", "terminal", "reward"}


def test_unknown_row_is_named(tree: Tree) -> None:
    with pytest.raises(InputError, match="tree 3 does not exist; choose one of 0 to 2"):
        to_networkx(tree, 3)
