"""The mixture against a dict loop over every row, and the cases that must be exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal
from tokenzero.teachers.mixture import Mixture, mix

Candidates = tuple[NDArray[np.int64], NDArray[np.float32]]


def random_candidates(
    rng: np.random.Generator, rows: int, width: int, vocab: int, pads: bool = True
) -> Candidates:
    """Rows of distinct actions, sorted descending, some shorter than width; coarse, so ties happen."""
    actions = np.full((rows, width), -1, dtype=np.int64)
    probs = np.zeros((rows, width), dtype=np.float32)
    for row in range(rows):
        count = int(rng.integers(0, width + 1)) if pads else width
        mass = np.sort(rng.integers(1, 5, count))[::-1] / 64.0
        actions[row, :count] = rng.permutation(vocab)[:count]
        probs[row, :count] = mass
    return actions, probs


def naive_mix(
    student: Candidates, proposals: list[Proposal], weights: list[float], beta: float, k: int
) -> list[list[tuple[int, float, list[float]]]]:
    """Per row: (action, prior, shares by proposer) of the best k, one dict at a time."""
    result = []
    total_weight = sum(weights)
    for row in range(len(student[0])):
        shares: dict[int, list[float]] = {}
        columns = [(student[0][row], student[1][row], 1.0 - beta)]
        columns += [
            (p.actions[row], p.probs[row], beta * w / total_weight)
            for p, w in zip(proposals, weights, strict=True)
        ]
        if not any(a >= 0 and w > 0 for actions, _, w in columns[1:] for a in actions):
            columns[0] = (columns[0][0], columns[0][1], 1.0)
        for column, (actions, probs, weight) in enumerate(columns):
            for action, prob in zip(actions.tolist(), probs.tolist(), strict=True):
                if action >= 0 and prob * weight > 0:
                    shares.setdefault(action, [0.0] * len(columns))[column] += prob * weight
        best = sorted(shares, key=lambda action: (-sum(shares[action]), action))[:k]
        kept = sum(sum(shares[action]) for action in best)
        result.append([(a, sum(shares[a]) / kept, [s / sum(shares[a]) for s in shares[a]]) for a in best])
    return result


def assert_same(mixture: Mixture, expected: list[list[tuple[int, float, list[float]]]], k: int) -> None:
    for row, candidates in enumerate(expected):
        count = len(candidates)
        assert mixture.actions[row].tolist() == [c[0] for c in candidates] + [-1] * (k - count)
        assert np.exp(mixture.logits[row, :count]) == pytest.approx([c[1] for c in candidates], rel=1e-5)
        assert np.isneginf(mixture.logits[row, count:]).all()
        assert mixture.responsibility[row, :count].ravel() == pytest.approx(
            [share for c in candidates for share in c[2]], abs=1e-6
        )
        assert not mixture.responsibility[row, count:].any()


@given(
    seed=st.integers(0, 2**32),
    teachers=st.integers(1, 4),
    beta=st.sampled_from([0.125, 0.5, 0.75, 1.0]),
    k=st.integers(1, 12),
    vocab=st.sampled_from([6, 9, 40]),
)
def test_agrees_with_a_dict_loop(seed: int, teachers: int, beta: float, k: int, vocab: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 8))
    student = random_candidates(rng, rows, 5, vocab)
    proposals = [
        Proposal(*random_candidates(rng, rows, int(rng.integers(1, 7)), vocab), tokens=0)
        for _ in range(teachers)
    ]
    # Powers of two keep every product and sum exact, so that ties are ties in both and the order must agree.
    weights = [2.0 ** int(rng.integers(-2, 2)) for _ in range(teachers)]
    weights[0] += 2.0 ** np.ceil(np.log2(sum(weights))) - sum(weights)
    mixture = mix(*student, proposals, weights, beta, k)
    assert mixture.actions.dtype == np.int64
    assert mixture.logits.dtype == np.float32
    assert mixture.responsibility.dtype == np.float32
    assert mixture.responsibility.shape == (rows, k, 1 + teachers)
    assert_same(mixture, naive_mix(student, proposals, weights, beta, k), k)


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_beta_zero_is_the_student_bit_for_bit(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    actions, probs = random_candidates(rng, 6, 5, 30)
    probs *= np.float32(0.987)
    proposal = Proposal(*random_candidates(rng, 6, 4, 30), tokens=3)
    mixture = mix(actions, probs, [proposal], [1.0], 0.0, k)
    kept = min(k, 5)
    real = actions[:, :kept] >= 0
    assert np.array_equal(mixture.actions[:, :kept], actions[:, :kept])
    assert np.array_equal(mixture.logits[:, :kept][real], np.log(probs[:, :kept][real]))
    assert np.array_equal(mixture.responsibility[:, :kept, 0], real.astype(np.float32))
    assert not mixture.responsibility[:, :, 1].any()
    assert (mixture.actions[:, kept:] == -1).all()
    assert np.isneginf(mixture.logits[mixture.actions < 0]).all()


def test_no_teachers_and_zero_weights_are_the_student_too() -> None:
    actions, probs = random_candidates(np.random.default_rng(1), 4, 5, 30)
    proposal = Proposal(*random_candidates(np.random.default_rng(2), 4, 5, 30), tokens=0)
    alone = mix(actions, probs, [proposal], [1.0], 0.0, 5)
    muted = mix(actions, probs, [proposal], [0.0], 0.5, 5)
    none = mix(actions, probs, [], [], 0.5, 5)
    for other in (muted, none):
        assert np.array_equal(other.actions, alone.actions)
        assert np.array_equal(other.logits, alone.logits)
    assert none.responsibility.shape == (4, 5, 1)


def test_a_worked_example() -> None:
    student = np.array([[7, 3]]), np.array([[0.6, 0.4]], dtype=np.float32)
    first = Proposal(np.array([[3, 9]]), np.array([[0.5, 0.5]], dtype=np.float32), 0)
    second = Proposal(np.array([[9, -1]]), np.array([[1.0, 0.0]], dtype=np.float32), 0)
    # masses at beta .5, weights .5 .5: action 3 = .2 + .125, 7 = .3, 9 = .125 + .25
    mixture = mix(*student, [first, second], [0.5, 0.5], 0.5, 2)
    assert mixture.actions.tolist() == [[9, 3]]
    assert np.exp(mixture.logits)[0] == pytest.approx([0.375 / 0.7, 0.325 / 0.7])
    assert mixture.responsibility[0, 0] == pytest.approx([0, 1 / 3, 2 / 3])
    assert mixture.responsibility[0, 1] == pytest.approx([0.2 / 0.325, 0.125 / 0.325, 0])


def test_a_row_without_any_teacher_is_the_student_even_at_beta_one() -> None:
    actions, probs = np.array([[4, 2], [4, 2]]), np.array([[0.75, 0.25]] * 2, dtype=np.float32)
    asked_once = Proposal(np.array([[-1], [8]]), np.array([[0.0], [0.5]], dtype=np.float32), 0)
    mixture = mix(actions, probs, [asked_once], [1.0], 1.0, 2)
    assert mixture.actions.tolist() == [[4, 2], [8, -1]]
    assert np.exp(mixture.logits[0]) == pytest.approx([0.75, 0.25])
    assert mixture.responsibility[:, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_only_the_ratio_of_weights_counts() -> None:
    rng = np.random.default_rng(3)
    student = random_candidates(rng, 5, 6, 20)
    proposals = [Proposal(*random_candidates(rng, 5, 6, 20), tokens=0) for _ in range(2)]
    small, large = (mix(*student, proposals, [0.25 * f, 0.75 * f], 0.5, 6) for f in (1.0, 8.0))
    assert all(np.array_equal(a, b) for a, b in zip(small, large, strict=True))


def test_rows_are_independent_at_full_size() -> None:
    rng = np.random.default_rng(4)
    student = random_candidates(rng, 600, 16, 500, pads=False)
    proposals = [Proposal(*random_candidates(rng, 600, 16, 500), tokens=0) for _ in range(10)]
    weights = rng.dirichlet(np.ones(10))
    whole = mix(*student, proposals, weights, 0.5, 16)
    real = whole.actions >= 0
    assert whole.responsibility.sum(axis=2)[real] == pytest.approx(1.0, abs=1e-6)
    assert np.exp(whole.logits.astype(np.float64)).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(whole.logits, axis=1) <= 0).all()
    some = np.array([5, 599, 0])
    part = mix(
        student[0][some],
        student[1][some],
        [Proposal(p.actions[some], p.probs[some], 0) for p in proposals],
        weights,
        0.5,
        16,
    )
    assert all(np.array_equal(a[some], b) for a, b in zip(whole, part, strict=True))


def test_no_rows() -> None:
    empty = np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3), dtype=np.float32)
    mixture = mix(*empty, [Proposal(*empty, tokens=0)], [1.0], 0.5, 4)
    assert mixture.actions.shape == (0, 4)
    assert mixture.responsibility.shape == (0, 4, 2)


@pytest.mark.parametrize(
    ("weights", "beta", "k", "message"),
    [
        ([0.5], 0.5, 2, "2 teachers need 2 weights"),
        ([0.5, -0.5], 0.5, 2, "not negative"),
        ([0.5, np.nan], 0.5, 2, "finite"),
        ([0.5, 0.5], 1.5, 2, "beta is 1.5"),
        ([0.5, 0.5], float("nan"), 2, "beta is nan"),
        ([0.5, 0.5], 0.5, 0, "k=0"),
    ],
)
def test_bad_arguments_are_named(weights: list[float], beta: float, k: int, message: str) -> None:
    rng = np.random.default_rng(5)
    student = random_candidates(rng, 2, 3, 9)
    proposals = [Proposal(*random_candidates(rng, 2, 3, 9), tokens=0) for _ in range(2)]
    with pytest.raises(InputError, match=message):
        mix(*student, proposals, weights, beta, k)


def test_shapes_that_do_not_fit_are_named() -> None:
    rng = np.random.default_rng(6)
    actions, probs = random_candidates(rng, 2, 3, 9)
    with pytest.raises(InputError, match="proposal 0"):
        mix(actions, probs, [Proposal(*random_candidates(rng, 3, 3, 9), tokens=0)], [1.0], 0.5, 2)
    with pytest.raises(InputError, match="student candidates"):
        mix(actions, probs[:, :2], [], [], 0.5, 2)
