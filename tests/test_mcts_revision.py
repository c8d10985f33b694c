"""Candidates priced anew: by the plain search, without effect where nothing changes, and refused where they
would pull an action from under its child."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_frontier import NaiveFrontier
from synthetic import Synthetic, environments
from test_mcts_frontier import Won, records, rows_of

from tokenzero.mcts import FrontierPool, InputError, Revision, SearchConfig, SearchPool, search
from tokenzero.mcts.tree import NONE


class Late(Won):
    """At first half of the candidates are offered; asked again, all of them, with other odds."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, 4, **options)
        rng = np.random.default_rng(seed + 2)
        self.offered = rng.random(self.actions.shape) < 0.5
        self.later = rng.normal(scale=1.5, size=self.logits.shape).astype(np.float32)
        self.revised: list[int] = []

    def at(self, states: np.ndarray, rewards: np.ndarray) -> Any:
        evaluation = super().at(states, rewards)
        evaluation.actions = np.where(self.offered[states], evaluation.actions, NONE)
        return evaluation

    def revise(self, states: np.ndarray) -> Revision:
        self.revised += states.tolist()
        return Revision(self.actions[states], self.later[states])


class Same(Synthetic):
    """Says the same again."""

    def revise(self, states: np.ndarray) -> Revision:
        return Revision(self.actions[states], self.logits[states])


def frontier(env: Any, config: SearchConfig, batch: int = 3) -> tuple[Any, FrontierPool]:
    pool, places = FrontierPool(batch, config), np.arange(batch)
    pool.plant(places, env.roots(batch), np.random.default_rng(7).spawn(batch))
    while pool.step(env):
        pass
    return pool.answer(places), pool


def exhaust(pool: SearchPool, env: Any) -> None:
    while pool.step(env):
        pass


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    visits=st.integers(1, 4),
    leaves=st.sampled_from([1, 3]),
    tokens=st.integers(5, 60),
    terminals=st.sampled_from([0.2, 0.5]),
)
def test_frontier_search_revises_as_the_plain_one(
    seed: int, visits: int, leaves: int, tokens: int, terminals: float
) -> None:
    env = Late(seed, terminals=terminals)
    config = SearchConfig(
        method="frontier", candidates=4, max_depth=6, tokens=tokens, leaves=leaves, revise_visits=visits,
        frontier_noise=0.0,  # noise is taken out of a score and put back, which costs the last bit
    )  # fmt: skip
    result, _ = frontier(env, config)
    roots, rngs = records(env.roots(3)), np.random.default_rng(7).spawn(3)
    for b in range(3):
        plain = NaiveFrontier(roots[b], rows_of(env), config, rngs[b])
        plain.run(lambda state: (env.actions[state].tolist(), env.later[state]))
        assert result.nodes[b] == len(plain.nodes)
        for node, record in enumerate(plain.nodes):
            assert result.tree.parent[b, node] == (-1 if record["parent"] is None else record["parent"])
            assert result.tree.parent_slot[b, node] == (-1 if record["slot"] is None else record["slot"])
            assert result.tree.visits[b, node] == plain.statistics(node)[0]
            assert bool(result.tree.exhausted[b, node]) == plain.exhausted(node)


def test_noise_survives_a_revision() -> None:
    env = Same(5, 4, terminals=0.2)
    config = SearchConfig(method="frontier", candidates=4, max_depth=8, tokens=80, revise_visits=2)
    plain, _ = frontier(env, replace(config, revise_visits=0))
    again, _ = frontier(env, config)
    assert plain.nodes.tolist() == again.nodes.tolist()
    size = int(plain.nodes.min())
    np.testing.assert_array_equal(plain.tree.parent[:, :size], again.tree.parent[:, :size])
    np.testing.assert_array_equal(plain.tree.visits[:, :size], again.tree.visits[:, :size])


@settings(max_examples=30, deadline=None)
@given(environments(), st.sampled_from(["puct", "gumbel"]), st.booleans(), st.integers(1, 5))
def test_the_same_priors_again_change_nothing(
    env: Synthetic, method: str, skip_exhausted: bool, visits: int
) -> None:
    same = Same.__new__(Same)
    vars(same).update(vars(env))
    config = SearchConfig(
        method=method, simulations=30, candidates=5, skip_exhausted=skip_exhausted, temperature=0.0
    )
    plain = search(env.roots(2), env, config, np.random.default_rng(0))
    again = search(env.roots(2), same, replace(config, revise_visits=visits), np.random.default_rng(0))
    np.testing.assert_array_equal(plain.visits, again.visits)
    np.testing.assert_allclose(plain.q, again.q, atol=1e-6)


def test_each_node_is_asked_about_once_when_it_reached_its_visits() -> None:
    env = Late(3, terminals=0.1)
    for visits in (2, 4):
        env.revised.clear()
        config = SearchConfig(
            method="puct", simulations=60, candidates=4, revise_visits=visits, temperature=0
        )
        tree = search(env.roots(4), env, config, np.random.default_rng(0)).tree
        used = np.arange(tree.visits.shape[1]) < tree.size[:, None]
        used[:, 0] = False
        reached = tree.state[used & (tree.visits >= visits) & ~tree.terminal].tolist()
        asked = env.revised.copy()
        for state in asked:
            reached.remove(state)
        assert len(asked) > 3
        assert len(reached) <= 4  # a search that ends with a node's last visit asks no more


def test_a_better_prior_is_followed() -> None:
    env = Same(11, 4)
    env.logits[:] = 0.0

    class Told(Same):
        def revise(self, states: np.ndarray) -> Revision:
            logits = np.full((len(states), 4), -20.0, np.float32)
            logits[:, 3] = 0.0
            return Revision(self.actions[states], logits)

    told = Told.__new__(Told)
    vars(told).update(vars(env))
    config = SearchConfig(method="frontier", candidates=4, max_depth=50, tokens=300, revise_visits=1)
    result, _ = frontier(told, config, batch=1)
    size = int(result.nodes[0])
    below = result.tree.depth[0, :size] > 1
    assert (result.tree.parent_slot[0, :size][below] == 3).mean() > 0.7


def test_bad_revisions_are_refused() -> None:
    class Moves(Same):
        def revise(self, states: np.ndarray) -> Revision:
            return Revision(np.roll(self.actions[states], 1, axis=1), self.logits[states])

    class Short(Same):
        def revise(self, states: np.ndarray) -> Revision:
            return Revision(self.actions[states][:, :2], self.logits[states][:, :2])

    config = SearchConfig(method="puct", simulations=20, candidates=4, revise_visits=2)
    for env, words in ((Moves(1, 4), "expanded child"), (Short(1, 4), "shapes"), (Synthetic(1, 4), "revise")):
        pool = SearchPool(2, config)
        pool.plant(np.arange(2), env.roots(2))
        with pytest.raises(InputError, match=words):
            exhaust(pool, env)
        with pytest.raises(InputError, match="lost"):
            pool.step(env)
    with pytest.raises(InputError, match="revise_visits"):
        SearchConfig(method="frontier", frontier_score="sampling", revise_visits=2)
