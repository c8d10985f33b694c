"""Rollouts as a second opinion on a leaf while the value head is young.

It averages the outcomes of sampled continuations and blends them into the head's value. It does not sample:
the callable that plays states to their end, its randomness and what it spends, are bound in selfplay/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError

SampleToEnd = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Rollout:
    """Mean outcome of `repeats` sampled continuations per state.

    sample_to_end(states i64 [M]) -> outcomes f32 [M] in [-1, 1]; it is called once, with every state
    repeated `repeats` times in a row, so that the continuations share one batch.
    """

    sample_to_end: SampleToEnd
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"rollout repeats is {self.repeats}: use 1 or more, or share 0 to turn them off")

    def __call__(self, states: ArrayLike) -> NDArray[np.float32]:
        """Outcomes f32 [L] of opaque states i64 [L]. Raises InputError when the sampler misbehaves."""
        handles = np.asarray(states, dtype=np.int64)
        if handles.size == 0:
            return np.zeros(0, dtype=np.float32)
        outcomes = np.asarray(self.sample_to_end(np.repeat(handles, self.repeats)), dtype=np.float64)
        if outcomes.shape != (handles.size * self.repeats,):
            raise InputError(
                f"rollout returned shape {outcomes.shape} for {handles.size * self.repeats} states"
            )
        if not (np.abs(outcomes) <= 1.0 + 1e-5).all():
            raise InputError("rollout returned an outcome outside [-1, 1]: outcomes are 2 * score - 1")
        means: NDArray[np.float64] = outcomes.reshape(handles.size, self.repeats).mean(axis=1)
        return means.astype(np.float32)


def blend(value: ArrayLike, rollout_value: ArrayLike, share: float) -> NDArray[np.float32]:
    """(1 - share) * value + share * rollout_value, float32 (lambda of AlphaGo, Silver et al. 2016).

    Shapes broadcast; share in [0, 1], else InputError. share 0 returns `value` untouched.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"rollout share is {share}: it must lie in [0, 1]")
    own = np.asarray(value, dtype=np.float32)
    if share == 0.0:
        return own
    mixed = (1.0 - share) * own.astype(np.float64) + share * np.asarray(rollout_value, dtype=np.float64)
    return mixed.astype(np.float32)
