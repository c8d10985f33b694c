"""Credit against its definition, play-out by play-out, and as an estimate of what a teacher alone would
earn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.teachers.credit import CreditLedger, trace_weights, tree_edges
from tokenzero.teachers.weights import GLOBAL


def random_tree(rng: np.random.Generator, nodes: int, slots: int) -> dict[str, np.ndarray]:
    parent, slot, depth = [-1], [-1], [0]
    used: set[tuple[int, int]] = set()
    while len(parent) < nodes:
        above, k = int(rng.integers(len(parent))), int(rng.integers(slots))
        if (above, k) in used:
            continue
        used.add((above, k))
        parent.append(above)
        slot.append(k)
        depth.append(depth[above] + 1)
    inner = set(parent)
    ended = np.asarray([0 if n in inner else int(rng.integers(0, 3)) for n in range(nodes)])
    lost = rng.random((nodes, slots)) < 0.2
    for above, k in used:
        lost[above, k] = False
    lost[ended > 0] = False
    return {
        "parent": np.asarray(parent), "slot": np.asarray(slot), "depth": np.asarray(depth),
        "ended": ended.astype(float), "outcome": rng.uniform(-1, 1, nodes), "lost": lost,
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_every_edge_gets_what_each_play_out_leaves_it(seed: int, nodes: int, trace: float) -> None:
    tree = random_tree(np.random.default_rng(seed), nodes, 4)
    eligible, earned = tree_edges(**tree, trace=trace)
    wanted, won = np.zeros_like(eligible), np.zeros_like(earned)

    def walk(node: int, first: list[tuple[int, int]], outcome: float, count: float) -> None:
        path = list(first)
        while tree["parent"][node] >= 0:
            path.append((int(tree["parent"][node]), int(tree["slot"][node])))
            node = int(tree["parent"][node])
        for distance, edge in enumerate(path):
            wanted[edge] += count * trace**distance
            won[edge] += count * trace**distance * outcome

    for node in range(nodes):
        walk(node, [], float(tree["outcome"][node]), float(tree["ended"][node]))
        for k in np.flatnonzero(tree["lost"][node]).tolist():
            walk(node, [(node, k)], -1.0, 1.0)
    np.testing.assert_allclose(eligible, wanted, atol=1e-12)
    np.testing.assert_allclose(earned, won, atol=1e-12)


def test_a_path_fades_towards_its_beginning() -> None:
    assert trace_weights(3, 0.5).tolist() == [0.25, 0.5, 1.0]
    assert trace_weights(2, 0.0).tolist() == [0.0, 1.0]
    assert trace_weights(0, 0.5).tolist() == []


def test_worth_is_what_the_teacher_alone_would_earn() -> None:
    """Actions are drawn from the mixture; the estimate is of each proposer's own distribution, whatever its
    weight."""
    rng = np.random.default_rng(0)
    outcome = np.asarray([1.0, 0.2, -0.4, -1.0])
    proposers = rng.dirichlet(np.ones(4), size=3)  # the student and two teachers
    for weights in ([0.4, 0.3, 0.3], [0.5, 0.45, 0.05]):
        ledger = CreditLedger(2)
        mixture = np.asarray(weights) @ proposers
        drawn = rng.choice(4, size=40_000, p=mixture)
        share = (np.asarray(weights)[:, None] * proposers / mixture).T  # responsibility by action
        for part in np.array_split(drawn, 40):
            one, held = np.ones((len(part), 1)), np.tile(weights[1:], (len(part), 1))
            told = share[part][:, None].astype(np.float32)
            ledger.add(["x"] * len(part), told, held, one, outcome[part][:, None])
        found = ledger.credits()
        assert list(found) == [GLOBAL, "x"]
        np.testing.assert_allclose(found["x"].worth, proposers[1:] @ outcome, atol=0.03)
        assert found["x"].mean == pytest.approx(float(mixture @ outcome), abs=0.02)
        assert found["x"].evidence.tolist() == [40_000, 40_000]


def test_contexts_are_kept_apart() -> None:
    ledger = CreditLedger(1)
    share = np.asarray([[[0.0, 1.0]], [[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    one = np.ones((3, 1))
    ledger.add(["low", "low", "high"], share, one, one, np.asarray([[1.0], [-1.0], [-0.5]]))
    found = ledger.credits()
    assert found["low"].worth.tolist() == [1.0]
    assert found["high"].worth.tolist() == [-0.5]
    assert found[GLOBAL].worth.tolist() == [0.25]
    assert found["low"].evidence.tolist() == [1.0]
    assert found["low"].mean == 0.0


def test_nothing_credited_is_nothing_known() -> None:
    ledger = CreditLedger(2)
    ledger.add([], np.zeros((0, 3, 3), np.float32), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 3)))
    assert ledger.credits() == {}


def test_a_specialist_is_not_judged_by_what_it_is_good_at_alone() -> None:
    """Two contexts, as frequent; it is heard loudly where it is right and softly where it is wrong."""
    ledger = CreditLedger(1)
    for context, weight, outcome in (("good at", 0.9, 1.0), ("bad at", 0.1, -1.0)):
        share = np.asarray([[[1.0 - weight, weight]]], np.float32)
        ledger.add([context], share, np.asarray([[weight]]), np.ones((1, 1)), np.asarray([[outcome]]))
    assert ledger.credits()[GLOBAL].worth.tolist() == pytest.approx([0.0], abs=1e-6)
