"""Rollouts: repeats share one batch and come back to their own state; the blend is linear and off at 0."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.rollout import Rollout, blend


def test_repeats_are_averaged_per_state_in_one_call() -> None:
    seen: list[list[int]] = []

    def sample(states: NDArray[np.int64]) -> NDArray[np.float32]:
        seen.append(states.tolist())
        return (states % 10 / 10 * np.tile([1, -1, 1], len(states) // 3)).astype(np.float32)

    values = Rollout(sample, repeats=3)([4, 9])
    assert seen == [[4, 4, 4, 9, 9, 9]]
    assert values.dtype == np.float32
    assert values.tolist() == pytest.approx([0.4 / 3, 0.9 / 3])


def test_no_states_call_nobody() -> None:
    def never(states: NDArray[np.int64]) -> NDArray[np.float32]:
        raise AssertionError("called")

    assert Rollout(never)([]).shape == (0,)


@pytest.mark.parametrize("outcome", [[1.0], [0.0, 2.0], [0.0, float("nan")], [[0.0, 0.0]]])
def test_a_sampler_that_breaks_its_contract_is_refused(outcome: list[float]) -> None:
    with pytest.raises(InputError, match="rollout returned"):
        Rollout(lambda states: np.array(outcome, dtype=np.float32))([1, 2])


def test_blend_is_linear_and_off_at_zero() -> None:
    own, other = np.array([0.5, -1.0], dtype=np.float32), np.array([-0.5, 1.0], dtype=np.float32)
    assert blend(own, other, 0.25).tolist() == [0.25, -0.5]
    assert blend(own, other, 1.0).tolist() == other.tolist()
    assert blend(own, np.full(2, np.nan), 0.0).tolist() == own.tolist()
    with pytest.raises(InputError, match="share"):
        blend(own, other, 1.5)
    with pytest.raises(InputError, match="repeats"):
        Rollout(lambda states: np.zeros(0, dtype=np.float32), 0)
