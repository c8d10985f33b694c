"""The records that kernels take beside the tree: rules of a search, its progress, the leaves of a step.

They are named tuples of numbers and arrays, because that is what compiled code takes. `search.py` fills them;
they check nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rules(NamedTuple):
    """`SearchConfig` as the kernels read it: names are numbers, floats are float32."""

    method: int
    simulations: int
    max_depth: int
    leaves: int
    stop_at_terminal: bool
    stop_on_solution: bool
    skip_exhausted: bool
    solution_value: np.float32
    virtual_loss: np.float32
    discount: np.float32
    rescale: int
    min_spread: np.float32
    c_init: np.float32
    c_base: np.float32
    fpu: int
    fpu_reduction: np.float32
    value_scale: np.float32
    maxvisit_init: np.float32
    use_mixed_value: bool


class RootRules(NamedTuple):
    """What holds at the roots only."""

    blocked: NDArray[np.bool_]  # [B, K] empty or masked slots
    gumbel: NDArray[np.float32]  # [B, K]
    considered: NDArray[np.int32]  # [B] arms that sequential halving starts from
    table: NDArray[np.int32]  # [considered + 1, T] from sequential_halving


class Progress(NamedTuple):
    """How far each tree is."""

    done: NDArray[np.int64]  # [B] simulations backed up or pending
    solution: NDArray[np.int32]  # [B] first node found that solves, NONE if none
    idle: NDArray[np.bool_]  # [B] nothing to search: the root is terminal or has no candidate


class Leaves(NamedTuple):
    """New leaves of one step over all trees, in tree order; room for B * leaves."""

    row: NDArray[np.int32]
    node: NDArray[np.int32]
    state: NDArray[np.int64]  # the parent's handle
    action: NDArray[np.int64]
