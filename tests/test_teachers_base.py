"""top_k against a full stable sort, with ties, pads and impossible tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import top_k


def naive_top_k(row: list[float], k: int) -> tuple[list[int], list[float]]:
    ranked = sorted(((-p, token) for token, p in enumerate(row) if p > 0))[:k]
    pad = k - len(ranked)
    return [token for _, token in ranked] + [-1] * pad, [-p for p, _ in ranked] + [0.0] * pad


@given(
    # Quarters only, so that ties at the threshold are common and float32 is exact.
    st.integers(1, 9).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(0, 4), min_size=width, max_size=width), min_size=1, max_size=5
        )
    ),
    st.integers(1, 12),
)
def test_top_k_is_a_stable_sort(quarters: list[list[int]], k: int) -> None:
    rows = np.array(quarters, dtype=np.float64) / 4
    actions, probs = top_k(rows, k)
    assert actions.dtype == np.int64
    assert probs.dtype == np.float32
    for index, row in enumerate(rows.tolist()):
        assert (actions[index].tolist(), probs[index].tolist()) == naive_top_k(row, k)


def test_ties_go_to_the_lowest_token_at_the_cut_and_within() -> None:
    actions, _ = top_k(np.array([[0.1, 0.2, 0.2, 0.1, 0.2, 0.2]]), 3)
    assert actions.tolist() == [[1, 2, 4]]


def test_no_rows_and_bad_k() -> None:
    assert top_k(np.zeros((0, 5)), 2)[0].shape == (0, 2)
    with pytest.raises(InputError, match="k=0"):
        top_k(np.ones((1, 5)), 0)
