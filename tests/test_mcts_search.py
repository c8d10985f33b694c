"""The search as its users see it: properties that hold for every tree, closed forms, and the front door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import K, Synthetic, configs, environments, take

from tokenzero.mcts import (
    NONE,
    ROOT,
    Evaluation,
    InputError,
    SearchConfig,
    SearchResult,
    Tree,
    kernels,
    search,
    stopping,
    warm,
)
from tokenzero.mcts import evaluation as evaluation_module
from tokenzero.mcts.evaluation import checked
from tokenzero.mcts.noise import dirichlet_noise, draw


def run(env: Synthetic, config: SearchConfig, batch: int = 4, first: int = 0, **extra: Any) -> SearchResult:
    return search(env.roots(batch, first), env, config, np.random.default_rng(0), **extra)


def rows_equal(a: SearchResult, row_a: int, b: SearchResult, row_b: int) -> None:
    for name in ("actions", "visits", "weights", "q", "value", "chosen", "solution", "simulations"):
        np.testing.assert_array_equal(getattr(a, name)[row_a], getattr(b, name)[row_b], err_msg=name)
    for name, values in a.tree._asdict().items():
        np.testing.assert_array_equal(values[row_a], getattr(b.tree, name)[row_b], err_msg=name)


@settings(max_examples=150, deadline=None)
@given(configs(), environments(), st.booleans())
def test_every_tree_is_sound(config: SearchConfig, env: Synthetic, masked: bool) -> None:
    roots = env.roots(4)
    invalid = np.random.default_rng(1).random(roots.actions.shape) < 0.5 * masked
    result = search(roots, env, config, np.random.default_rng(0), invalid=invalid)
    tree, closed = result.tree, (roots.actions == -1) | invalid
    assert (tree.inflight == 0).all(), "virtual loss is left behind"
    assert (result.simulations <= config.simulations).all()
    assert (tree.size <= config.nodes).all()
    assert len(env.calls) == result.steps
    assert all(0 < n <= 4 * config.leaves for n in env.calls)
    assert sum(env.calls) == (tree.size - 1).sum()
    assert (tree.visits[:, ROOT] == 1 + result.simulations).all()
    for b in range(4):
        assert_sound(tree, b, config)
        assert (result.visits[b, closed[b]] == 0).all()
        assert (result.weights[b, closed[b]] == 0).all()
        if closed[b].all():
            assert result.chosen[b] == NONE
            assert result.simulations[b] == 0
            assert result.weights[b].sum() == 0
            continue
        assert not closed[b, result.chosen[b]]
        assert result.weights[b].sum() == pytest.approx(1, abs=1e-5)
        stopped = config.stop_on_solution and result.solution[b] != NONE
        settled = config.skip_exhausted and result.tree.exhausted[b, ROOT]
        early = config.smart_pruning or config.min_kld_gain > 0
        assert result.simulations[b] == config.simulations or stopped or settled or early


def assert_sound(tree: Tree, b: int, config: SearchConfig) -> None:
    for node in range(tree.size[b]):
        children = tree.child[b, node][tree.child[b, node] != NONE]
        through, raw = tree.visits[b, children].sum(), float(tree.raw_value[b, node])
        own = tree.visits[b, node] - through  # evaluations backed up from the node itself
        assert own >= 1
        ends = (tree.terminal[b, node] and config.stop_at_terminal) or tree.depth[b, node] == config.max_depth
        if ends:
            assert len(children) == 0
        elif len(children) and not (config.skip_exhausted and tree.size[b] == config.nodes):
            # (In a full tree a node whose expanded children are all settled is a leaf again.)
            assert own == 1, "the children's visits sum to the node's minus one"
        returned = own * raw
        for child in children:
            slot = tree.parent_slot[b, child]
            assert tree.parent[b, child] == node
            assert tree.child[b, node, slot] == child > node
            assert tree.depth[b, child] == tree.depth[b, node] + 1
            assert tree.edge_visits[b, node, slot] == tree.visits[b, child]
            returned += tree.visits[b, child] * float(tree.edge_q[b, node, slot])
        assert returned == pytest.approx(float(tree.value_sum[b, node]), abs=1e-4)
    assert (tree.parent[b, tree.size[b] :] == NONE).all()


@settings(max_examples=40, deadline=None)
@given(configs(), environments(), st.permutations(range(4)))
def test_rows_of_a_batch_are_independent(config: SearchConfig, env: Synthetic, order: list[int]) -> None:
    roots = env.roots(4)
    together = search(roots, env, config, np.random.default_rng(0))
    shuffled = search(take(roots, np.array(order)), env, config, np.random.default_rng(0))
    for place, b in enumerate(order):
        rows_equal(together, b, shuffled, place)
    alone = search(take(roots, np.array([2])), env, config, np.random.default_rng(0))
    rows_equal(together, 2, alone, 0)


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_same_seed_same_bits_and_another_seed_differs(method: str) -> None:
    env = Synthetic(0, K)
    config = SearchConfig(method=method, candidates=K, simulations=20, dirichlet_fraction=0.25)
    once, again, other = (
        search(env.roots(8), env, config, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for b in range(8):
        rows_equal(once, b, again, b)
    assert (once.visits != other.visits).any()


def test_no_simulations_answer_from_the_prior() -> None:
    env = Synthetic(0, K, pads=0.3)
    roots = env.roots(6)
    mass = np.where(roots.actions == -1, 0, np.exp(roots.logits.astype(np.float64)))
    prior = mass / mass.sum(axis=1, keepdims=True)
    for method in ("puct", "gumbel"):
        config = SearchConfig(method=method, simulations=0, candidates=K, temperature=0, gumbel_scale=0)
        result = run(env, config, batch=6)
        np.testing.assert_allclose(result.weights, prior, atol=1e-6)
        np.testing.assert_array_equal(result.chosen, prior.argmax(axis=1))
        np.testing.assert_array_equal(result.value, roots.value)
        assert result.steps == 0
        assert env.calls == []
        assert not result.visits.any()
        assert not result.q.any()


def test_gumbel_choice_without_simulations_samples_the_prior() -> None:
    env = Synthetic(0, K)
    roots = take(env.roots(1), np.zeros(20_000, np.int64))
    config = SearchConfig(simulations=0, candidates=K)
    result = search(roots, env, config, np.random.default_rng(0))
    share = np.bincount(result.chosen, minlength=K) / 20_000
    np.testing.assert_allclose(share, result.weights[0], atol=0.015)


def test_gumbel_weights_after_one_level_are_the_closed_form() -> None:
    """Every candidate visited once at depth 1: softmax(logit + (50 + 1) * 0.1 * Q rescaled to [0, 1])."""
    env = Synthetic(5, K)
    config = SearchConfig(simulations=K, considered=K, candidates=K, max_depth=1, gumbel_scale=0)
    result = run(env, config, batch=6)
    assert (result.visits == 1).all()
    q = env.value[env.next[:6]].astype(np.float64)
    spread = q.max(axis=1, keepdims=True) - q.min(axis=1, keepdims=True)
    score = env.logits[:6] + 5.1 * (q - q.min(axis=1, keepdims=True)) / spread
    expected = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.weights, expected, rtol=1e-5)
    np.testing.assert_array_equal(result.chosen, score.argmax(axis=1))


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_equal_values_leave_the_prior_in_charge(method: str) -> None:
    """Rounding of a constant value must not be rescaled into a preference: 0.1 everywhere searches as 0
    does.
    """
    visits = []
    for constant in (0.0, 0.1):
        env = Synthetic(6, K)
        env.value[:] = constant
        visits.append(
            run(env, SearchConfig(method=method, simulations=200, candidates=K, gumbel_scale=0)).visits
        )
    np.testing.assert_array_equal(visits[0], visits[1])


@pytest.mark.parametrize("method", ["puct", "gumbel"])
@pytest.mark.parametrize("leaves", [1, 4])
def test_search_finds_the_one_good_leaf(method: str, leaves: int) -> None:
    """Depth 3, 5 actions: one of 125 leaves wins, inner values say nothing, and yet the root ends up choosing
    its side.
    """
    env = Synthetic(0, K, states=1 + 5 + 25 + 125)
    env.next = np.minimum(np.arange(156)[:, None] * 5 + 1 + np.arange(5), 155)
    env.terminal = np.arange(156) >= 31
    env.value[:] = 0
    env.value[31:] = -1
    env.value[31 + 3 * 25 + 17] = 1
    env.logits[:] = 0
    config = SearchConfig(
        method=method, leaves=leaves, simulations=800, candidates=K, temperature=0,
        gumbel_scale=0, stop_on_solution=True, value_scale=0.02,
    )  # fmt: skip
    result = run(env, config, batch=1)
    found = int(result.solution[0])
    assert result.tree.terminal[0, found]
    assert result.tree.raw_value[0, found] == 1
    path = [
        int(action - env.actions[state, 0])
        for state, action in zip((0, 4, 24), result.tree.path(0, found), strict=True)
    ]
    assert path == [3, 3, 2]
    assert result.simulations[0] < 800


def test_several_leaves_take_fewer_evaluations() -> None:
    env = Synthetic(1, K)
    one = run(env, SearchConfig(method="puct", simulations=64, candidates=K))
    many = run(env, SearchConfig(method="puct", simulations=64, candidates=K, leaves=8))
    assert one.steps == 64
    assert 8 <= many.steps < 40
    assert (many.simulations == 64).all()


def test_virtual_loss_spreads_the_leaves_of_a_step() -> None:
    """Everything below slot 0 is worth more: pessimism in flight sends part of each step elsewhere all the
    same.
    """
    env = Synthetic(2, K)
    good = np.arange(200) >= 100
    env.next = np.where(good[:, None], 100 + env.next // 2, 4 + env.next // 3)
    env.next[:4, 0] = 100
    env.value = np.where(good, 0.5, 0.0).astype(np.float32)
    env.logits[:] = 0
    shares = []
    for loss in (0.0, 1.0):
        config = SearchConfig(
            method="puct", simulations=80, candidates=K, leaves=8, virtual_loss=loss, q_rescale="none"
        )
        shares.append(run(env, config).visits[:, 0].mean() / 80)
    assert shares[0] > shares[1] + 0.05
    assert shares[1] > 1 / K


def test_terminal_revisits_are_not_evaluated_again() -> None:
    env = Synthetic(0, K)
    env.terminal[:] = True
    result = run(env, SearchConfig(method="puct", simulations=50, candidates=K), batch=3)
    assert (result.simulations == 50).all()
    assert sum(env.calls) == (result.visits > 0).sum() <= 15
    np.testing.assert_allclose(
        result.q[result.visits > 0], env.value[env.next[:3]][result.visits > 0], rtol=1e-6
    )


def test_terminal_root_and_root_without_candidates_are_left_alone() -> None:
    env = Synthetic(0, K)
    roots = env.roots(3)
    roots.terminal[0] = True
    roots.value[0] = 1
    roots.actions[1] = -1
    result = search(roots, env, SearchConfig(candidates=K, gumbel_scale=0), np.random.default_rng(0))
    assert result.simulations.tolist() == [0, 0, 16]
    assert result.solution.tolist() == [ROOT, NONE, NONE]
    assert result.chosen[1] == NONE
    assert (result.chosen[[0, 2]] >= 0).all()


def test_narrow_evaluations_are_padded() -> None:
    env = Synthetic(0, K)
    narrow = run(env, SearchConfig(candidates=K, gumbel_scale=0))
    wide = run(env, SearchConfig(candidates=K + 3, gumbel_scale=0))
    np.testing.assert_array_equal(wide.visits[:, :K], narrow.visits)
    np.testing.assert_array_equal(wide.weights[:, :K], narrow.weights)
    assert (wide.actions[:, K:] == -1).all()
    assert not wide.weights[:, K:].any()


@pytest.mark.parametrize("stop_at_terminal", [True, False])
def test_path_replays_to_the_state(stop_at_terminal: bool) -> None:
    env = Synthetic(0, K, pads=0.2, terminals=0.1)
    config = SearchConfig(method="puct", simulations=60, candidates=K, stop_at_terminal=stop_at_terminal)
    tree = run(env, config).tree
    for b in range(4):
        assert tree.path(b, ROOT) == []
        for node in range(tree.size[b]):
            state = b
            for action in tree.path(b, node):
                state = env.next[state, np.flatnonzero(env.actions[state] == action)[0]]
            assert state == tree.state[b, node]


def test_draw_follows_the_temperature() -> None:
    weights = np.tile([0.0, 3.0, 1.0, 0.0], (40_000, 1))
    uniform = np.random.default_rng(0).random(40_000)
    for temperature, odds in ((1.0, 3.0), (0.5, 9.0), (2.0, 3**0.5)):
        share = np.bincount(draw(uniform, weights, temperature), minlength=4) / 40_000
        assert share[1] / share[2] == pytest.approx(odds, rel=0.06)
        assert share[0] == share[3] == 0
    assert (draw(uniform[:9], weights[:9], 0.0) == 1).all()
    assert (draw(uniform[:9], weights[:9], 1e-300) == 1).all()
    assert draw(uniform[:2], np.array([[0.0, 0.0], [2.0, 2.0]]), 0.0).tolist() == [-1, 0]


def test_dirichlet_noise_is_mixed_into_the_root_prior_over_open_slots() -> None:
    """Without simulations the weights are the root prior. The noise has a Dirichlet's mean and variance."""
    env = Synthetic(0, 4)
    env.actions[0, 3] = -1
    roots = take(env.roots(1), np.zeros(3000, np.int64))
    config = SearchConfig(method="puct", simulations=0, candidates=4)
    prior = search(roots, env, config, np.random.default_rng(0)).weights
    invalid = np.zeros((3000, 4), bool)
    invalid[0] = True
    noisy = replace(config, dirichlet_fraction=0.25, dirichlet_alpha=0.3)
    mixed = search(roots, env, noisy, np.random.default_rng(0), invalid=invalid).weights
    np.testing.assert_array_equal(mixed[0], 0)
    np.testing.assert_allclose(mixed[1:].sum(axis=1), 1, atol=1e-6)
    assert (mixed[:, 3] == 0).all()
    assert (mixed[1:] >= 0.75 * prior[1:] - 1e-7).all()
    np.testing.assert_allclose(
        mixed[1:].mean(axis=0), 0.75 * prior[0] + 0.25 * np.array([1, 1, 1, 0]) / 3, atol=0.01
    )
    variance = (mixed[1:, 0] - 0.75 * prior[1:, 0]).var() / 0.25**2  # Dirichlet: m (1 - m) / (n alpha + 1)
    assert variance == pytest.approx((1 / 3) * (2 / 3) / 1.9, rel=0.1)


def test_dirichlet_noise_spares_rows_and_slots_that_are_closed() -> None:
    valid = np.array([[True, True, False], [False, False, False]])
    noise = dirichlet_noise(np.random.default_rng(0), valid, 0.3)
    assert noise[0].sum() == pytest.approx(1)
    assert not noise[~valid].any()


def test_smart_pruning_saves_simulations_and_changes_no_choice() -> None:
    env = Synthetic(9, K)
    config = SearchConfig(method="puct", simulations=100, candidates=K, temperature=0.0)
    full, smart = (run(env, replace(config, smart_pruning=on), batch=40) for on in (False, True))
    np.testing.assert_array_equal(full.chosen, smart.chosen)
    assert (smart.simulations <= full.simulations).all()
    assert smart.simulations.mean() < 90
    visits = np.sort(smart.visits, axis=1)
    assert (visits[:, -1] - visits[:, -2] >= 100 - smart.simulations).all()


def test_a_higher_bound_on_the_gain_stops_sooner() -> None:
    env = Synthetic(9, K)
    spent = []
    for bound in (0.0, 1e-6, 1e-4, 1e-2, 10.0):
        config = SearchConfig(method="puct", simulations=200, candidates=K, min_kld_gain=bound)
        spent.append(run(env, config, batch=20).simulations.mean())
    assert spent == sorted(spent, reverse=True)
    assert spent[0] == 200
    assert spent[-1] == 32, "two looks at the visits are the least it takes"


def test_pruned_targets_drop_the_visits_that_noise_explains() -> None:
    """One slot wins, the others lose, the prior is even: without noise a loser is worth 2 visits, since
    1.25 * sqrt(101) * 0.2 / n passes the winner's score, just above 1, up to n = 2. Noise gives some more.
    """
    env = Synthetic(2, K, states=6)
    env.actions[:] = env.actions[:1]
    env.logits[:] = 0
    env.next[:] = np.arange(1, 6)
    env.terminal[:] = True
    env.value[:] = [0, -1, -1, 1, -1, -1]
    roots = take(env.roots(1), np.zeros(50, np.int64))
    config = SearchConfig(
        method="puct", simulations=100, candidates=K, temperature=0.0, dirichlet_fraction=0.5
    )
    plain, pruned = (
        search(roots, env, replace(config, prune_targets=on), np.random.default_rng(0))
        for on in (False, True)
    )
    np.testing.assert_array_equal(plain.visits, pruned.visits)
    np.testing.assert_array_equal(plain.chosen, pruned.chosen)
    losers = plain.visits[:, [0, 1, 3, 4]]
    assert losers.max() > 3
    assert losers.min() == 1
    kept = np.insert(np.where(losers >= 2, 2, 0), 2, plain.visits[:, 2], axis=1)
    np.testing.assert_array_equal(pruned.weights, (kept / kept.sum(axis=1, keepdims=True)).astype("f4"))


@pytest.mark.parametrize("name", ["smart_pruning", "min_kld_gain", "prune_targets"])
def test_what_only_puct_can_do_is_refused_for_gumbel(name: str) -> None:
    with pytest.raises(InputError, match=rf"search\.{name} .* \"gumbel\""):
        SearchConfig(**{name: 1.0})


BAD_OPTIONS: dict[str, Any] = {
    "method": "frontear", "q_rescale": "row", "fpu": "max", "simulations": -1, "candidates": 0, "leaves": 0,
    "max_depth": 0, "node_capacity": 0, "considered": 0, "discount": float("nan"), "virtual_loss": -1.0,
    "c_base": 0.0, "dirichlet_fraction": 1.5, "dirichlet_alpha": 0.0, "temperature": -0.1,
    "solution_value": float("inf"), "min_kld_gain": -1.0, "kld_interval": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_options_out_of_range_are_named(name: str) -> None:
    with pytest.raises(InputError, match=rf"search\.{name} is "):
        replace(SearchConfig(), **{name: BAD_OPTIONS[name]})


def test_unknown_method_lists_the_methods() -> None:
    with pytest.raises(InputError, match="puct, gumbel"):
        SearchConfig(method="alphabeta")


def spoiled(field: str, index: Any, value: Any) -> Evaluation:
    roots = Synthetic(0, K).roots(3)
    getattr(roots, field)[index] = value
    return roots


BAD_ROOTS = {
    r"root\.logits is nan in row 1, slot 2": spoiled("logits", (1, 2), np.nan),
    r"root\.logits is inf in row 0": spoiled("logits", (0, 0), np.inf),
    r"root\.logits is -inf at every open slot of row 2": spoiled("logits", 2, -np.inf),
    r"root\.value is nan in row 2": spoiled("value", 2, np.nan),
    r"root\.reward is inf in row 0": spoiled("reward", 0, np.inf),
    r"root\.actions has shape \(3,\)": replace(spoiled("value", 0, 0), actions=np.zeros(3, np.int64)),
    r"root\.actions has dtype float64": replace(spoiled("value", 0, 0), actions=np.zeros((3, K))),
    r"root\.logits has shape \(3, 4\)": replace(spoiled("value", 0, 0), logits=np.zeros((3, 4), np.float32)),
    r"root\.states has shape \(2,\)": replace(spoiled("value", 0, 0), states=np.zeros(2, np.int64)),
    r"root\.terminal has dtype int64": replace(spoiled("value", 0, 0), terminal=np.zeros(3, np.int64)),
    r"6 candidates; give at most 5": Synthetic(0, K + 1).roots(3),
}


@pytest.mark.parametrize("message", BAD_ROOTS)
def test_bad_roots_are_refused_at_the_door(message: str) -> None:
    env = Synthetic(0, K)
    with pytest.raises(InputError, match=message):
        search(BAD_ROOTS[message], env, SearchConfig(candidates=K), np.random.default_rng(0))
    assert env.calls == []


def test_bad_extras_are_refused() -> None:
    env, rng = Synthetic(0, K), np.random.default_rng(0)
    gumbel, puct = SearchConfig(candidates=K), SearchConfig(candidates=K, method="puct")
    for config, extra, message in (
        (gumbel, {"invalid": np.zeros((3, K))}, "invalid is float64"),
        (gumbel, {"invalid": np.zeros((3, K - 1), bool)}, "invalid is bool"),
        (gumbel, {"gumbel": np.full((3, K), np.nan)}, "gumbel has shape"),
        (puct, {"gumbel": np.zeros((3, K))}, 'search.method is "puct"'),
    ):
        with pytest.raises(InputError, match=message):
            search(env.roots(3), env, config, rng, **extra)
    with pytest.raises(InputError, match="rng is int"):
        search(env.roots(3), env, gumbel, 0)  # type: ignore[arg-type]
    only_bad = spoiled("logits", (0, slice(1, None)), -np.inf)
    mask = np.zeros((3, K), bool)
    mask[0, 0] = True
    with pytest.raises(InputError, match="open slot of row 0"):
        search(only_bad, env, gumbel, rng, invalid=mask)


def test_a_bad_answer_of_the_evaluator_is_named() -> None:
    env = Synthetic(0, K)
    env.logits[:, 3] = np.nan
    roots = env.roots(3)
    roots.logits = np.zeros((3, K), np.float32)
    with pytest.raises(InputError, match=r"evaluation\.logits is nan in row 0, slot 3"):
        search(roots, env, SearchConfig(candidates=K), np.random.default_rng(0))


ODD_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "fortran": np.asfortranarray,
    "wider": lambda a: a.astype({"f": np.float64, "i": np.int64, "b": np.bool_}[a.dtype.kind]),
    "narrower": lambda a: a.astype({"f": np.float32, "i": np.int32, "b": np.bool_}[a.dtype.kind]),
    "swapped bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": lambda a: misaligned(a),
    "read-only": lambda a: read_only(a),
    "lists": lambda a: a.tolist(),
}


def misaligned(array: np.ndarray) -> np.ndarray:
    moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("layout", ODD_LAYOUTS)
def test_every_layout_of_an_answer_means_the_same(layout: str) -> None:
    """The kernels are called without a look at the types, so nothing odd may get through to them."""

    class Odd(Synthetic):
        def at(self, states: np.ndarray, rewards: np.ndarray) -> Evaluation:
            found = super().at(states, rewards)
            return Evaluation(**{name: ODD_LAYOUTS[layout](a) for name, a in vars(found).items()})

        def roots(self, batch: int, first: int = 0) -> Evaluation:
            found = self.at(np.arange(first, first + batch), np.zeros(batch, np.float32))
            return replace(found, terminal=np.zeros(batch, np.bool_))

    config = SearchConfig(candidates=K, simulations=20, leaves=2, gumbel_scale=0.0)
    plain, odd = (run(kind(0, K, pads=0.2, terminals=0.2), config) for kind in (Synthetic, Odd))
    for b in range(4):
        rows_equal(plain, b, odd, b)


NUMBERS = st.sampled_from([0.0, 1.5, -np.inf, np.inf, np.nan])


@given(
    arrays(np.int64, (2, 3), elements=st.integers(-1, 1)),
    arrays(np.float32, (2, 3), elements=NUMBERS),
    arrays(np.float32, 2, elements=NUMBERS),
    arrays(np.float32, 2, elements=NUMBERS),
)
def test_the_quick_check_refuses_what_the_full_one_does(
    actions: np.ndarray, logits: np.ndarray, value: np.ndarray, reward: np.ndarray
) -> None:
    """Views with a gap go through the full check, exact arrays through the quick one first."""
    given_ = Evaluation(actions, logits, value, reward, np.zeros(2, bool), np.arange(2))
    spaced = replace(given_, value=np.repeat(value, 2)[::2])
    outcomes = []
    for evaluation in (given_, spaced):
        try:
            outcomes.append(checked(evaluation, 2, 3, "evaluation"))
        except InputError as error:
            outcomes.append(str(error))
    if isinstance(outcomes[0], str) or isinstance(outcomes[1], str):
        assert outcomes[0] == outcomes[1]
    else:
        assert outcomes[0].logits is logits
        assert outcomes[1].logits is logits
        assert outcomes[1].value is not spaced.value


def test_after_warming_nothing_is_left_to_compile() -> None:
    warm()
    compiled = {
        item: len(item.signatures)
        for module in (kernels, stopping, evaluation_module)
        for item in vars(module).values()
        if hasattr(item, "signatures")
    }
    env = Synthetic(0, K, terminals=0.2)
    for options in (
        {},
        {"method": "puct", "smart_pruning": True, "prune_targets": True, "fpu": "reduction"},
        {"skip_exhausted": True, "leaves": 3, "max_depth": 4, "q_rescale": "tree", "stop_on_solution": True},
    ):
        run(env, SearchConfig(candidates=K, **options))
    assert {item: len(item.signatures) for item in compiled} == compiled


def test_garbage_in_empty_slots_is_ignored() -> None:
    env = Synthetic(0, K, pads=0.4)
    clean = run(env, SearchConfig(candidates=K, gumbel_scale=0))
    env.logits[env.actions == -1] = np.nan
    dirty = run(env, SearchConfig(candidates=K, gumbel_scale=0))
    for b in range(4):
        rows_equal(clean, b, dirty, b)


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_carried_simulations_are_made_again_and_not_counted(method: str) -> None:
    """PUCT with 10 simulations and 15 carried ones grows the tree of 25; each row has its own number."""
    env = Synthetic(2, K, terminals=0.1)
    config = SearchConfig(
        method=method, simulations=10, candidates=K, temperature=0.0, gumbel_scale=0.0, considered=1
    )
    carried = np.array([0, 15, 3, 7])
    result = run(env, config, carried=carried)
    assert (result.simulations == 10).all()
    assert (result.tree.visits[:, ROOT] == 1 + 10 + carried).all()
    if method == "puct":
        for b, extra in enumerate(carried.tolist()):
            longer = run(env, replace(config, simulations=10 + extra), batch=1, first=b)
            np.testing.assert_array_equal(result.visits[b], longer.visits[0])
            assert result.value[b] == longer.value[0]
    for bad in (np.array([-1, 0, 0, 0]), np.zeros(3, np.int64), np.zeros(4)):
        with pytest.raises(InputError, match="carried is"):
            run(env, config, carried=bad)
