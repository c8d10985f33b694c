"""Value targets: the convex mix, its ends, and the judge's absence from the signature."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.targets import mix_targets

UNIT = st.floats(-1, 1)


@given(UNIT, st.lists(UNIT, min_size=1, max_size=9), st.floats(0, 1))
def test_targets_are_the_convex_mix(outcome: float, roots: list[float], mix: float) -> None:
    targets = mix_targets(outcome, roots, mix)
    assert targets.dtype == np.float32
    assert targets.tolist() == pytest.approx([(1 - mix) * outcome + mix * root for root in roots], abs=1e-6)
    assert np.abs(targets).max() <= 1


def test_the_ends_of_the_mix_and_one_outcome_per_position() -> None:
    roots = np.array([0.25, -0.5, 1.0], dtype=np.float32)
    assert mix_targets(-1.0, roots, 0.0).tolist() == [-1.0, -1.0, -1.0]
    assert mix_targets(-1.0, roots, 1.0).tolist() == roots.tolist()
    assert mix_targets(np.array([1.0, -1.0, 1.0]), roots, 0.5).tolist() == [0.625, -0.75, 1.0]


def test_no_judge_can_be_passed() -> None:
    assert list(inspect.signature(mix_targets).parameters) == ["outcome", "root_values", "mix"]


@pytest.mark.parametrize(
    ("outcome", "roots", "mix", "named"),
    [
        (1.5, [0.0], 0.5, "outcome 1.5"),
        (math.nan, [0.0], 0.5, "outcome nan"),
        (1.0, [0.0, -1.2], 0.5, "root value -1.2"),
        (1.0, [math.nan], 0.0, "root value nan"),
        (1.0, [0.0], 1.01, "mix is 1.01"),
        (1.0, [0.0], math.nan, "mix is nan"),
    ],
)
def test_out_of_range_is_named(outcome: float, roots: list[float], mix: float, named: str) -> None:
    with pytest.raises(InputError, match=named):
        mix_targets(outcome, roots, mix)
