"""Agreement with DeepMind's mctx on the same trees: equal visit counts and choices, numbers within 2e-6.

mctx adds random tie noise of 1e-7 to its PUCT scores; the tables are random reals, so no tie depends on it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from synthetic import Synthetic

from tokenzero.mcts import SearchConfig, SearchResult, search
from tokenzero.mcts.sequential_halving import considered_visits

mctx = pytest.importorskip("mctx", reason="mctx is not installed (pip install mctx)")
jax = pytest.importorskip("jax")
jnp = jax.numpy

TOLERANCE = 2e-6
SEEDS = range(5)


def recurrent(params: Any, _key: Any, action: Any, state: Any) -> Any:
    """The environment of `Synthetic` as mctx wants it; candidates are slot numbers and the tables are
    arguments.
    """
    logits, value, reward, follow, discount = params
    after = follow[state, action]
    output = mctx.RecurrentFnOutput(
        reward=reward[state, action],
        discount=jnp.full(after.shape, discount, jnp.float32),
        prior_logits=logits[after],
        value=value[after],
    )
    return output, after


@functools.cache
def compiled(method: str, simulations: int, considered: int, rescale: str, mixed: bool) -> Any:
    """One jitted mctx search. What can be an argument is one, since compiling takes seconds and searching
    nothing.
    """

    def run(params: Any, key: Any, states: Any, invalid: Any, depth: Any, numbers: dict[str, Any]) -> Any:
        root = mctx.RootFnOutput(prior_logits=params[0][states], value=params[1][states], embedding=states)
        if method == "puct":
            transform = mctx.qtransform_by_parent_and_siblings
            if rescale == "none":
                transform = functools.partial(mctx.qtransform_by_min_max, min_value=-1.0, max_value=1.0)
            return mctx.muzero_policy(
                params,
                key,
                root,
                recurrent,
                simulations,
                invalid,
                depth,
                dirichlet_fraction=0.0,
                temperature=0.0,
                qtransform=transform,
                pb_c_init=numbers["c_init"],
                pb_c_base=numbers["c_base"],
            )
        transform = functools.partial(
            mctx.qtransform_completed_by_mix_value,
            value_scale=numbers["value_scale"], maxvisit_init=numbers["maxvisit_init"],
            rescale_values=rescale == "siblings", use_mixed_value=mixed,
        )  # fmt: skip
        return mctx.gumbel_muzero_policy(
            params, key, root, recurrent, simulations, invalid, depth, qtransform=transform,
            max_num_considered_actions=considered, gumbel_scale=numbers["gumbel_scale"],
        )  # fmt: skip

    return jax.jit(run)


NUMBERS = ("c_init", "c_base", "value_scale", "maxvisit_init", "gumbel_scale")


def run_mctx(config: SearchConfig, env: Synthetic, batch: int, invalid: np.ndarray, seed: int) -> Any:
    considered = config.considered if config.method == "gumbel" else 0
    search_fn = compiled(
        config.method, config.simulations, considered, config.q_rescale, config.use_mixed_value
    )
    params = (env.logits, env.value, env.reward, env.next.astype(np.int32), np.float32(config.discount))
    depth = np.int32(config.max_depth or config.simulations)
    numbers = {name: np.float32(getattr(config, name)) for name in NUMBERS}
    states = np.arange(batch, dtype=np.int32)
    return jax.tree.map(
        np.asarray, search_fn(params, jax.random.PRNGKey(seed), states, invalid, depth, numbers)
    )


def compare(config: SearchConfig, batch: int, *, masked: bool, rewards: bool, seed: int) -> None:
    env = Synthetic(seed, config.candidates, rewards=rewards)
    roots = env.roots(batch)
    invalid = np.random.default_rng(seed).random(roots.actions.shape) < 0.3 * masked
    invalid[:, seed % config.candidates] = False
    output = run_mctx(config, env, batch, invalid, seed)
    extra = {}
    if config.method == "gumbel":
        extra["gumbel"] = np.array(output.search_tree.extra_data.root_gumbel)
    ours = search(
        roots, env, config, np.random.default_rng(seed), invalid=invalid if masked else None, **extra
    )
    if config.method == "puct":  # mctx draws among equally visited actions at temperature 0
        most = ours.visits.max(axis=1)
        np.testing.assert_array_equal(np.take_along_axis(ours.visits, output.action[:, None], 1)[:, 0], most)
        np.testing.assert_array_equal(ours.chosen, ours.visits.argmax(axis=1))
    else:
        np.testing.assert_array_equal(ours.chosen, output.action)
    assert_agree(ours, output)


def assert_agree(ours: SearchResult, output: Any) -> None:
    theirs, tree = output.search_tree, ours.tree
    np.testing.assert_array_equal(ours.visits, theirs.children_visits[:, 0])
    np.testing.assert_allclose(ours.value, theirs.node_values[:, 0], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(ours.weights, output.action_weights, atol=TOLERANCE, rtol=0)
    for b, size in enumerate(tree.size):
        # Node numbers agree too: mctx numbers a node by the simulation that expanded it.
        number = np.flatnonzero(theirs.node_visits[b])
        assert len(number) == size
        np.testing.assert_array_equal(tree.visits[b, :size], theirs.node_visits[b, number])
        np.testing.assert_array_equal(tree.state[b, :size], theirs.embeddings[b, number])
        np.testing.assert_array_equal(tree.parent_slot[b, 1:size], theirs.action_from_parent[b, number[1:]])
        np.testing.assert_array_equal(number[tree.parent[b, 1:size]], theirs.parents[b, number[1:]])
        value = tree.value_sum[b, :size] / tree.visits[b, :size]
        np.testing.assert_allclose(value, theirs.node_values[b, number], atol=TOLERANCE, rtol=0)
        visited = ours.visits[b] > 0
        q = theirs.children_rewards[b, 0] + theirs.children_discounts[b, 0] * theirs.children_values[b, 0]
        np.testing.assert_allclose(ours.q[b, visited], q[visited], atol=TOLERANCE, rtol=0)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shallow": {"max_depth": 2, "discount": 0.9},
    "rewards": {"discount": 0.97},
    "constants": {"c_init": 3.0, "c_base": 50.0, "value_scale": 0.3, "maxvisit_init": 10.0},
}


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_same_trees(method: str, options: str, batch: int) -> None:
    shared: dict[str, Any] = {"simulations": 32, "candidates": 6, "temperature": 0.0, "considered": 4}
    config = SearchConfig(method=method, **shared, **OPTIONS[options])
    for seed in SEEDS:
        compare(config, batch, masked=seed % 2 == 1, rewards=options == "rewards", seed=seed)


VARIANTS: dict[str, dict[str, Any]] = {
    "puct, unscaled values": {"method": "puct", "q_rescale": "none", "temperature": 0.0},
    "gumbel, unscaled values": {"q_rescale": "none"},
    "gumbel, raw completion, no noise": {"use_mixed_value": False, "gumbel_scale": 0.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_trees_with_other_values(variant: str) -> None:
    config = SearchConfig(simulations=24, candidates=9, **VARIANTS[variant])
    for seed in SEEDS:
        compare(config, 8, masked=seed % 2 == 0, rewards=False, seed=seed)


def test_same_visiting_order() -> None:
    from mctx._src import seq_halving

    for arms in range(24):
        for budget in (0, 1, 3, 8, 16, 33, 128):
            expected = seq_halving.get_sequence_of_considered_visits(arms, budget)
            assert considered_visits(arms, budget) == list(expected)
