"""What every judge shares: the shift, fingerprints, and the checks of pairs and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import checked_verdicts, fingerprint, shift


@given(st.floats(-1, 1), st.sampled_from([-1, 0, 1]), st.floats(0, 3))
def test_the_shift_is_clipped_and_moves_towards_the_verdict(value: float, verdict: int, eta: float) -> None:
    moved = shift([value], [verdict], eta)
    assert moved.dtype == np.float32
    assert float(moved[0]) == pytest.approx(min(1.0, max(-1.0, value + eta * verdict)), abs=1e-6)


def test_the_shift_uses_the_judge_s_own_type_and_refuses_bad_eta() -> None:
    verdicts = np.array([1, -1, 0], dtype=np.int8)
    assert shift(np.zeros(3, dtype=np.float32), verdicts, 0.25).tolist() == [0.25, -0.25, 0.0]
    for eta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="eta"):
            shift([0.0], [1], eta)


def test_a_fingerprint_tells_parts_apart() -> None:
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    assert len({fingerprint("ab"), fingerprint("a", "b"), fingerprint(["a", "b"]), fingerprint("a")}) == 4
    assert len(fingerprint("\ud800")) == 16  # a lone surrogate, which JSON lets through


def test_verdicts_are_one_of_three_for_each_pair() -> None:
    verdicts = checked_verdicts([1.0, -1.0, 0.0], 3)
    assert (verdicts.dtype, verdicts.tolist()) == (np.int8, [1, -1, 0])
    for odd in ([1, 2, 0], [1, 0], [[1, 0, 0]], [np.nan, 0, 0]):
        with pytest.raises(InputError, match="3 verdicts"):
            checked_verdicts(odd, 3)
