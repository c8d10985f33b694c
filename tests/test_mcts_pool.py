"""The pool: searches that begin and end at different times are the searches that run alone, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import typeof
from synthetic import K, Synthetic, configs, environments, take

from tokenzero.mcts import (
    NONE,
    ROOT,
    Evaluation,
    InputError,
    SearchConfig,
    SearchPool,
    SearchResult,
    Tree,
    dirichlet_noise,
    search,
)

PLACES, SEARCHES = 3, 8
FIELDS = (
    "actions", "visits", "weights", "q", "value", "chosen", "solution", "solution_state", "depth", "nodes",
    "simulations",
)  # fmt: skip


def assert_same_row(pooled: SearchResult, row: int, alone: SearchResult) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(pooled, name)[row], getattr(alone, name)[0], err_msg=name)
    place, size = pooled.places[row], alone.nodes[0]
    for name, values in alone.tree._asdict().items():
        theirs = getattr(pooled.tree, name)[place]
        if values.ndim == 1:
            assert theirs == values[0], name
        else:
            np.testing.assert_array_equal(theirs[:size], values[0, :size], err_msg=name)


@settings(max_examples=60, deadline=None)
@given(configs(), environments(), st.booleans(), st.randoms(use_true_random=False))
def test_interleaved_searches_are_the_searches_that_run_alone(
    config: SearchConfig, env: Synthetic, noisy: bool, chance: Any
) -> None:
    """Searches of different budgets, carried counts, masks and noise are planted at random free places and
    answered at random moments after they end.
    """
    puct = config.method == "puct"
    config = replace(config, temperature=1.0 if noisy else 0.0, dirichlet_fraction=0.3 * noisy)
    roots = env.roots(SEARCHES)
    rng = np.random.default_rng(chance.randrange(1000))
    invalid = rng.random((SEARCHES, K)) < 0.3
    gumbel = None if puct else rng.gumbel(size=(SEARCHES, K)).astype(np.float32)
    budget, carried = rng.integers(0, 50, SEARCHES), rng.integers(0, 12, SEARCHES)
    dirichlet, uniform = np.zeros((SEARCHES, K)), np.zeros(SEARCHES)
    if puct:
        for i in range(SEARCHES):  # what search() would draw from a generator of its own
            own = np.random.default_rng(i)
            if noisy:
                open_slots = (roots.actions[i : i + 1] != NONE) & ~invalid[i : i + 1]
                dirichlet[i] = dirichlet_noise(own, open_slots, config.dirichlet_alpha)[0]
            uniform[i] = own.random()

    pool = SearchPool(PLACES, config)
    holder, waiting, answered = np.full(PLACES, NONE), list(range(SEARCHES)), 0
    while answered < SEARCHES:
        free = [int(p) for p in np.flatnonzero(holder == NONE) if chance.random() < 0.7]
        chance.shuffle(free)
        rows = np.array([waiting.pop(0) for _ in free[: len(waiting)]], np.int64)
        places = np.array(free[: len(rows)], np.int64)
        pool.plant(
            places,
            take(roots, rows),
            invalid=invalid[rows],
            gumbel=None if gumbel is None else gumbel[rows],
            dirichlet=dirichlet[rows] if puct and noisy else None,
            simulations=budget[rows],
            carried=carried[rows],
        )
        holder[places] = rows
        if pool.step(env) == 0:
            np.testing.assert_array_equal(pool.ended(), np.flatnonzero(holder != NONE))
        done = np.array([p for p in pool.ended() if chance.random() < 0.7], np.int64)
        rng.shuffle(done)
        result = pool.answer(done, uniform=uniform[holder[done]])
        for row, place in enumerate(done):
            i = holder[place : place + 1]
            alone = search(
                take(roots, i),
                env,
                replace(config, simulations=int(budget[i[0]])),
                np.random.default_rng(int(i[0])),
                invalid=invalid[i],
                gumbel=None if gumbel is None else gumbel[i],
                carried=carried[i],
            )
            assert_same_row(result, row, alone)
        holder[done] = NONE
        answered += len(done)
    assert pool.step(env) == 0


def test_a_budget_of_nothing_leaves_no_plan_of_the_search_before() -> None:
    env, config = Synthetic(0, K), SearchConfig(simulations=30, candidates=K, considered=4)
    pool, here = SearchPool(1, config), np.array([0])
    for budget, carried in ((30, 0), (0, 12)):
        pool.plant(here, env.roots(1), simulations=np.array([budget]), carried=np.array([carried]))
        while pool.step(env):
            pass
        pooled = pool.answer(here)
    none = replace(config, simulations=0)
    alone = search(
        env.roots(1), env, none, np.random.default_rng(0),
        gumbel=np.zeros((1, K), np.float32), carried=np.array([12]),
    )  # fmt: skip
    assert_same_row(pooled, 0, alone)


def test_every_place_spends_its_own_budget_and_steps_stay_full() -> None:
    env, config = Synthetic(0, K), SearchConfig(method="puct", simulations=10, candidates=K)
    pool = SearchPool(3, config)
    pool.plant(np.array([2, 0]), env.roots(2), simulations=np.array([4, 25]))
    counts = [pool.step(env) for _ in range(4)]
    assert pool.ended().tolist() == [2]
    pool.plant(np.array([1]), env.roots(1, 5))
    while count := pool.step(env):
        counts.append(count)
    assert counts == [2] * 4 + [2] * 10 + [1] * 11
    result = pool.answer(np.array([1, 2, 0]), uniform=np.zeros(3))
    assert result.simulations.tolist() == [10, 4, 25]
    assert result.places.tolist() == [1, 2, 0]
    assert result.steps == 25
    assert pool.tree.visits[[1, 2, 0], ROOT].tolist() == [11, 5, 26]
    assert pool.ended().tolist() == []


def test_the_first_solution_and_the_deepest_node_are_named() -> None:
    env = Synthetic(3, K, terminals=0.3)
    config = SearchConfig(simulations=40, candidates=K, solution_value=0.4, gumbel_scale=0.0)
    result = search(env.roots(6), env, config, np.random.default_rng(0))
    found = result.solution != NONE
    assert found.any()
    assert not found.all() or (env.terminal & (env.value >= 0.4)).any()
    for b in range(6):
        size, node = result.nodes[b], result.solution[b]
        assert result.depth[b] == result.tree.depth[b, :size].max() > 0
        assert result.solution_state[b] == (result.tree.state[b, node] if found[b] else NONE)


def test_trees_grow_only_when_a_search_needs_more_nodes() -> None:
    env, config = Synthetic(0, K), SearchConfig(simulations=10, candidates=K)
    pool = SearchPool(2, config)
    pool.plant(np.array([0]), env.roots(1))
    first = pool.tree
    assert first.parent.shape == (2, 11)
    pool.step(env)
    pool.plant(np.array([1]), env.roots(1, 1))
    assert pool.tree is first
    while pool.step(env):
        pass
    pool.answer(np.array([1]))
    pool.plant(np.array([1]), env.roots(1, 2), carried=np.array([30]))
    assert pool.tree.parent.shape[1] >= 41
    kept = pool.answer(np.array([0]))
    assert_same_row(
        kept, 0, search(env.roots(1), env, config, np.random.default_rng(), gumbel=np.zeros((1, K), "f4"))
    )
    capped = SearchPool(2, replace(config, node_capacity=7))
    capped.plant(np.array([0]), env.roots(1), carried=np.array([30]))
    assert capped.tree.parent.shape == (2, 7)


def test_trees_of_every_size_are_of_one_compiled_type() -> None:
    """Kernels are called without a look at the types: another layout would be read wrongly."""
    types = {
        typeof(Tree.allocate(batch, nodes, width))
        for batch in (1, 2)
        for nodes in (1, 2, 9)
        for width in (1, 2, 16)
    }
    types |= {typeof(Tree.allocate(1, 1, 1).enlarged(nodes)) for nodes in (1, 2, 3)}
    assert len(types) == 1


def test_an_unusable_place_is_named_and_nothing_is_planted() -> None:
    env, config = Synthetic(0, K), SearchConfig(simulations=5, candidates=K)
    pool = SearchPool(3, config)
    pool.plant(np.array([1]), env.roots(1))
    one, two = env.roots(1), env.roots(2)
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("place 1 is busy", lambda: pool.plant(np.array([0, 1]), two)),
        ("place 3 does not exist", lambda: pool.plant(np.array([0, 3]), two)),
        ("place -1 does not exist", lambda: pool.plant(np.array([-1]), one)),
        ("name one twice", lambda: pool.plant(np.array([0, 0]), two)),
        ("places is float64", lambda: pool.plant(np.array([0.0]), one)),
        (r"places is int64 \(\)", lambda: pool.plant(np.array(0), one)),
        (r"root.actions has shape \(2, 5\)", lambda: pool.plant(np.array([0]), two)),
        ("place 1 is still searching", lambda: pool.answer(np.array([1]))),
        ("place 0 is free", lambda: pool.answer(np.array([0]))),
    ]
    for message, act in refused:
        with pytest.raises(InputError, match=message):
            act()
    while pool.step(env):
        pass
    assert pool.ended().tolist() == [1]
    pool.answer(pool.ended())
    with pytest.raises(InputError, match="places is 0"):
        SearchPool(0, config)


BAD_EXTRAS: dict[str, tuple[str, dict[str, Any]]] = {
    "invalid is float64": ("gumbel", {"invalid": np.zeros((2, K))}),
    r"invalid is bool \(2, 4\)": ("gumbel", {"invalid": np.zeros((2, K - 1), bool)}),
    r"gumbel has shape \(1, 5\)": ("gumbel", {"gumbel": np.zeros((1, K))}),
    "gumbel has shape .* finite": ("gumbel", {"gumbel": np.full((2, K), np.inf)}),
    'search.method is "puct"': ("puct", {"gumbel": np.zeros((2, K))}),
    'search.method is "gumbel"': ("gumbel", {"dirichlet": np.zeros((2, K))}),
    r"dirichlet has shape \(2,\)": ("puct", {"dirichlet": np.zeros(2)}),
    "dirichlet has negative numbers": ("puct", {"dirichlet": np.full((2, K), -0.1)}),
    r"simulations is int64 \(3,\)": ("puct", {"simulations": np.zeros(3, np.int64)}),
    "simulations is float64": ("puct", {"simulations": np.zeros(2)}),
    "carried is int64": ("puct", {"carried": np.array([0, -1])}),
}


@pytest.mark.parametrize("message", BAD_EXTRAS)
def test_bad_extras_are_refused(message: str) -> None:
    method, extra = BAD_EXTRAS[message]
    env = Synthetic(0, K)
    pool = SearchPool(2, SearchConfig(method=method, candidates=K))
    with pytest.raises(InputError, match=message):
        pool.plant(np.arange(2), env.roots(2), **extra)
    assert pool.step(env) == 0


def test_the_draw_behind_the_choice_is_checked() -> None:
    env = Synthetic(0, K)
    pool = SearchPool(2, SearchConfig(method="puct", candidates=K, simulations=3))
    pool.plant(np.arange(2), env.roots(2))
    while pool.step(env):
        pass
    for bad in (None, np.zeros(1), np.array([0.5, 1.0]), np.array([np.nan, 0.0])):
        with pytest.raises(InputError, match="uniform"):
            pool.answer(np.arange(2), uniform=bad)
    assert (pool.answer(np.arange(2), uniform=np.array([0.0, 0.999])).chosen >= 0).all()


def test_narrow_noise_and_masks_are_padded_with_the_roots() -> None:
    env = Synthetic(0, K)
    gumbel = np.random.default_rng(0).gumbel(size=(2, K)).astype(np.float32)
    padded = np.hstack([gumbel, np.zeros((2, 3), np.float32)])
    mask = np.random.default_rng(1).random((2, K + 3)) < 0.4
    results = []
    for noise, invalid in ((gumbel, mask[:, :K]), (padded, mask)):
        pool = SearchPool(2, SearchConfig(candidates=K + 3, simulations=12))
        pool.plant(np.arange(2), env.roots(2), gumbel=noise, invalid=invalid)
        while pool.step(env):
            pass
        results.append(pool.answer(np.arange(2)))
    np.testing.assert_array_equal(results[0].visits, results[1].visits)


class Failing(Synthetic):
    """Fails, or answers with too few rows, at its third call."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(0, K)
        self.error = error

    def expand(self, states: np.ndarray, actions: np.ndarray) -> Evaluation:
        found = super().expand(states, actions)
        if len(self.calls) < 3:
            return found
        if self.error is not None:
            raise self.error
        return take(found, np.arange(len(states) - 1))


@pytest.mark.parametrize("error", [None, RuntimeError("no memory")])
def test_a_pool_whose_evaluator_failed_is_lost(error: Exception | None) -> None:
    env = Failing(error)
    pool = SearchPool(2, SearchConfig(candidates=K))
    pool.plant(np.arange(2), env.roots(2))
    pool.step(env)
    pool.step(env)
    with pytest.raises(RuntimeError if error else InputError, match=str(error) if error else "evaluation"):
        pool.step(env)
    for act in (lambda: pool.step(env), lambda: pool.answer(np.arange(2))):
        with pytest.raises(InputError, match="the pool is lost"):
            act()
