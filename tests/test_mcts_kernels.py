"""The compiled kernels against the plain truth in `naive.py`: the same trees, node for node and bit for
bit.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import NaiveTree, halving_order
from synthetic import Synthetic

from tokenzero.mcts import NONE, Evaluation, SearchConfig, SearchResult, kernels, search
from tokenzero.mcts.sequential_halving import considered_table, considered_visits

K = 5
BATCH = 3


def run_both(
    env: Synthetic, config: SearchConfig, seed: int, masked: bool
) -> tuple[SearchResult, list[NaiveTree]]:
    rng = np.random.default_rng(seed)
    roots = env.roots(BATCH)
    invalid = rng.random(roots.actions.shape) < 0.4 if masked else None
    gumbel = rng.gumbel(size=roots.actions.shape).astype(np.float32)
    extra: dict[str, Any] = {"gumbel": gumbel} if config.method == "gumbel" else {}
    result = search(roots, env, config, rng, invalid=invalid, **extra)
    slow = []
    for b in range(BATCH):
        blocked = set(np.flatnonzero(invalid[b])) if invalid is not None else set()
        slow.append(NaiveTree(roots, b, config, blocked, gumbel[b]).run(env))
    return result, slow


def assert_same_tree(result: SearchResult, b: int, slow: NaiveTree) -> None:
    tree = result.tree
    assert tree.size[b] == len(slow.nodes)
    index = {id(node): i for i, node in enumerate(slow.nodes)}
    for i, node in enumerate(slow.nodes):
        above = NONE if node.parent is None else index[id(node.parent)]
        assert (tree.parent[b, i], tree.parent_slot[b, i], tree.depth[b, i]) == (above, node.slot, node.depth)
        assert (tree.visits[b, i], tree.inflight[b, i]) == (len(node.returns), 0)
        assert (tree.state[b, i], tree.terminal[b, i]) == (node.state, node.terminal)
        assert np.float32(tree.raw_value[b, i]) == node.raw
        assert np.float32(tree.value(b, i)) == node.value
        if node.parent is not None:
            assert tree.reward[b, above, node.slot] == node.reward
            assert tree.edge_q[b, above, node.slot] == slow.q(node.parent, node.slot)
        for k in range(tree.child.shape[2]):
            expected = index[id(node.children[k])] if k in node.children else NONE
            assert tree.child[b, i, k] == expected
            assert tree.action[b, i, k] == node.actions.get(k, -1)
            assert tree.prior[b, i, k] == node.prior.get(k, 0)
            assert tree.logit[b, i, k] == node.logits.get(k, 0)


def assert_same_answer(result: SearchResult, b: int, slow: NaiveTree) -> None:
    assert result.simulations[b] == slow.done
    assert result.solution[b] == slow.solution
    assert result.value[b] == slow.root.value
    assert result.chosen[b] == slow.chosen()
    weights = slow.weights()
    for k in range(result.visits.shape[1]):
        visits = slow.root_count(k)
        assert result.visits[b, k] == visits
        assert result.q[b, k] == (slow.q(slow.root, k) if visits else 0)
        assert result.weights[b, k] == weights.get(k, 0)


def compare(env: Synthetic, config: SearchConfig, seed: int, masked: bool = False) -> None:
    result, slow = run_both(env, config, seed, masked)
    for b in range(BATCH):
        assert_same_tree(result, b, slow[b])
        assert_same_answer(result, b, slow[b])


METHODS = [("gumbel", "min")] + [("puct", fpu) for fpu in ("min", "parent", "reduction")]


@pytest.mark.parametrize("rescale", ["siblings", "tree", "none"])
@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize(("method", "fpu"), METHODS)
def test_every_score_and_leaf_count(method: str, fpu: str, leaves: int, rescale: str) -> None:
    for seed, pads in ((0, 0.0), (1, 0.3)):
        env = Synthetic(seed, K, pads=pads, terminals=0.15, rewards=True)
        config = SearchConfig(
            method=method, fpu=fpu, leaves=leaves, q_rescale=rescale,
            simulations=40, candidates=K, considered=4, discount=0.9, temperature=0.0,
        )  # fmt: skip
        compare(env, config, seed, masked=bool(seed))


SHAPES = {
    "depth 1": {"max_depth": 1},
    "depth 3": {"max_depth": 3},
    "full after 12": {"node_capacity": 12},
    "root only": {"node_capacity": 1},
    "below terminals": {"stop_at_terminal": False},
    "no simulations": {"simulations": 0},
    "one simulation": {"simulations": 1},
    "first solution": {"stop_on_solution": True, "solution_value": 0.3},
    "settled": {"skip_exhausted": True},
    "settled early": {"skip_exhausted": True, "simulations": 300, "max_depth": 3},
    "settled and full": {"skip_exhausted": True, "node_capacity": 12},
    "raw completion": {"use_mixed_value": False},
    "no loss": {"virtual_loss": 0.0},
    "one arm": {"considered": 1},
    "many arms": {"considered": 50},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("method", "leaves"), list(itertools.product(["gumbel", "puct"], [1, 4])))
def test_every_limit(method: str, leaves: int, shape: str) -> None:
    for seed in range(2):
        env = Synthetic(seed + 7, K, pads=0.2, terminals=0.25, rewards=bool(seed))
        options: dict[str, Any] = {"simulations": 30, **SHAPES[shape]}
        config = SearchConfig(method=method, leaves=leaves, candidates=K, temperature=0.0, **options)
        compare(env, config, seed, masked=bool(seed))


STOPS: dict[str, dict[str, Any]] = {
    "smart": {"smart_pruning": True},
    "settled visits": {"min_kld_gain": 1e-3, "kld_interval": 8},
    "settled visits, every step": {"min_kld_gain": 3e-2, "kld_interval": 1},
    "both, pruned": {"smart_pruning": True, "min_kld_gain": 1e-4, "prune_targets": True},
    "pruned": {"prune_targets": True},
    "pruned, reduction": {"prune_targets": True, "fpu": "reduction", "c_init": 3.0},
    "pruned, tree": {"prune_targets": True, "q_rescale": "tree"},
    "pruned, unscaled": {"prune_targets": True, "q_rescale": "none", "c_init": 0.5},
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("leaves", [1, 4])
def test_early_stops_and_pruned_targets(stop: str, leaves: int) -> None:
    for seed in range(4):
        env = Synthetic(seed + 20, K, pads=0.2 * (seed > 1), terminals=0.1, rewards=bool(seed % 2))
        config = SearchConfig(
            method="puct", leaves=leaves, simulations=80, candidates=K, temperature=0.0, **STOPS[stop]
        )
        compare(env, config, seed, masked=seed == 3)


@pytest.mark.parametrize("width", [16, 33, 64])
@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_wide_nodes_take_the_vector_code(method: str, width: int) -> None:
    for seed, pads in ((0, 0.0), (1, 0.3)):
        env = Synthetic(seed + 40, width, pads=pads, terminals=0.1, rewards=True)
        config = SearchConfig(
            method=method,
            simulations=60,
            candidates=width,
            temperature=0.0,
            discount=0.97,
            leaves=1 + 3 * seed,
        )
        compare(env, config, seed, masked=bool(seed))


FLOATS = st.floats(width=32, allow_nan=False)


@given(FLOATS, FLOATS, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_ranks_order_by_score_and_then_lowest_slot(a: float, b: float, i: int, j: int) -> None:
    a, b = np.float32(a) + np.float32(0), np.float32(b) + np.float32(0)  # no minus zero: it ranks below zero
    assert kernels.unordered(kernels.ordered(a)) == a
    assert (kernels.ordered(a) < kernels.ordered(b)) == (a < b)
    assert (kernels.rank(a, i) > kernels.rank(b, j)) == ((a, -i) > (b, -j))
    assert kernels.slot_of(kernels.rank(a, i)) == i
    assert kernels.rank(a, i) > kernels.NO_SLOT
    assert kernels.slot_of(kernels.NO_SLOT) == NONE


def test_exp_is_off_by_at_most_the_last_bit() -> None:
    x = np.concatenate([-np.logspace(-8, 2.1, 20_000), np.linspace(-110, 0, 20_000)]).astype(np.float32)
    ours = np.array([kernels.exp(v) for v in x], np.float32)
    np.testing.assert_array_max_ulp(ours, np.exp(x.astype(np.float64)).astype(np.float32), maxulp=1)
    assert (kernels.exp(np.float32(0)), kernels.exp(np.float32(-np.inf))) == (1, 0)
    assert kernels.exp(np.float32(-1e9)) == 0


def test_ties_go_to_the_lowest_slot() -> None:
    for method, leaves in itertools.product(["gumbel", "puct"], [1, 4]):
        env = Synthetic(3, K, terminals=0.2, grid=1)
        env.logits[:] = 0
        compare(
            env, SearchConfig(method=method, leaves=leaves, simulations=40, candidates=K, temperature=0.0), 0
        )


def test_impossible_candidates_stay_impossible_at_the_root() -> None:
    for method in ("gumbel", "puct"):
        env = Synthetic(4, K)
        env.logits[:, 1] = -np.inf
        compare(env, SearchConfig(method=method, simulations=30, candidates=K, temperature=0.0), 0)


def test_order_of_sequential_halving() -> None:
    assert considered_visits(4, 8) == [0, 0, 0, 0, 1, 1, 2, 2]
    for arms, budget in itertools.product(range(20), (0, 1, 2, 7, 16, 50, 200)):
        assert considered_visits(arms, budget) == halving_order(arms, budget)
    table = considered_table(6, 30)
    assert table.shape == (7, 30)
    assert [row.tolist() for row in table] == [halving_order(m, 30) for m in range(7)]


class BinaryTree:
    """Two actions everywhere; a state is its number in a heap. The 8 states three moves down are terminal."""

    def expand(self, states: np.ndarray, actions: np.ndarray) -> Evaluation:
        return self.evaluated(2 * states + actions)

    def evaluated(self, states: np.ndarray) -> Evaluation:
        count = len(states)
        return Evaluation(
            actions=np.tile(np.arange(2), (count, 1)),
            logits=np.zeros((count, 2), np.float32),
            value=np.where(states == 11, 1.0, -0.9).astype(np.float32),
            reward=np.zeros(count, np.float32),
            terminal=states >= 8,
            states=states,
        )

    def release(self, states: np.ndarray) -> None: ...


@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_a_settled_tree_is_searched_once_and_then_left(method: str) -> None:
    """Fourteen expansions settle the binary tree of depth 3, whatever the budget, and its one winning leaf,
    actions 0, 1, 1, is found.
    """
    env = BinaryTree()
    config = SearchConfig(
        method=method, simulations=200, candidates=2, skip_exhausted=True, temperature=0.0, gumbel_scale=0.0
    )
    result = search(env.evaluated(np.array([1])), env, config, np.random.default_rng(0))
    assert result.simulations[0] == 14
    assert result.tree.exhausted[0, :15].all()
    assert result.tree.path(0, int(result.solution[0])) == [0, 1, 1]
    assert result.visits[0].tolist() == [7, 7]
    assert result.chosen[0] == 0
    few = search(env.evaluated(np.array([3])), env, config, np.random.default_rng(0))
    assert (few.simulations[0], few.solution[0]) == (6, NONE)
