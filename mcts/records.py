"""The records that kernels take beside the tree: rules of a search, its progress, the leaves of a step.

They are named tuples of numbers and arrays, because that is what compiled code takes. `pool.py` fills them;
they check nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rules(NamedTuple):
    """`SearchConfig` as the kernels read it: names are numbers, floats are float32."""

    method: int
    max_depth: int
    capacity: int  # nodes a tree may hold; there is room for at least the budget where it is not limited
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
    smart_pruning: bool
    min_kld_gain: float
    kld_interval: int
    explore: NDArray[np.float32]  # [V] PUCT's factor on the prior after v visits


class RootRules(NamedTuple):
    """What holds at the roots only."""

    blocked: NDArray[np.bool_]  # [B, K] empty or masked slots
    gumbel: NDArray[np.float32]  # [B, K]
    plan: NDArray[np.int32]  # [B, T] visits that the arm visited next must have (sequential halving)


class Progress(NamedTuple):
    """How far each tree is."""

    done: NDArray[np.int64]  # [B] simulations backed up or pending; below 0 while carried ones are made again
    budget: NDArray[np.int64]  # [B] simulations wanted
    solution: NDArray[np.int32]  # [B] first node found that solves, NONE if none
    over: NDArray[np.bool_]  # [B] nothing more to search, for whatever reason
    before: NDArray[np.int32]  # [B, K] visits of the root's children when the KLD gain was last looked at


class Leaves(NamedTuple):
    """New leaves of one step over all trees, in tree order; room for B * leaves."""

    row: NDArray[np.int32]
    node: NDArray[np.int32]
    state: NDArray[np.int64]  # the parent's handle
    action: NDArray[np.int64]


class Rows(NamedTuple):
    """An `Evaluation` of L rows, checked and K wide."""

    actions: NDArray[np.int64]
    logits: NDArray[np.float32]
    value: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    states: NDArray[np.int64]


class FrontierRules(NamedTuple):
    """`SearchConfig` as the kernels of frontier search read it."""

    score: int
    paid_ends: bool  # a terminal state costs a token like any other
    stop_on_solution: bool
    solution_value: np.float32
    cost_exponent: float
    prior_exponent: float
    value_weight: float
    noise: float


class Frontier(NamedTuple):
    """What frontier search knows beside the tree. Heaps are max-heaps of nodes with an unexpanded child."""

    heap: NDArray[np.int32]  # [B, N] nodes, the next to be taken first
    where: NDArray[np.int32]  # [B, N] a node's index in the heap, NONE while it does not wait there
    waiting: NDArray[np.int32]  # [B] nodes in the heap
    longest: NDArray[np.int32]  # [B] length of the longest answer, in edges
    key: NDArray[np.float32]  # [B, N] score of the node's best unexpanded child
    best: NDArray[np.int32]  # [B, N] slot of that child, NONE if there is none
    bonus: NDArray[np.float32]  # [B, N, K] noise; in a node in use, the fixed part of a child's score
    uniform: NDArray[np.float64]  # [B, N] in [0, 1): what a play-out draws its next slot by
    likely: NDArray[np.float64]  # [B, N] log-probability of the path (sampling only)
    perturbed: NDArray[np.float64]  # [B, N] and with the noise of the path (sampling only)
    solutions: NDArray[np.int32]  # [B, N] distinct solutions at or below the node
    cursor: NDArray[np.int32]  # [B, W] node that a play-out has come to, NONE where none is under way


class FrontierProgress(NamedTuple):
    """How far each tree is."""

    spent: NDArray[np.int64]  # [B] states evaluated that cost a token: terminal ones only with `paid_ends`
    budget: NDArray[np.int64]  # [B] of them wanted
    done: NDArray[np.int64]  # [B] play-outs begun
    rollouts: NDArray[np.int64]  # [B] of them wanted
    solution: NDArray[np.int32]  # [B] first node found that solves, NONE if none
    over: NDArray[np.bool_]  # [B]


class Walkers(NamedTuple):
    """New leaves of one step over all trees, in tree order, each with the play-out it belongs to."""

    row: NDArray[np.int32]
    walker: NDArray[np.int32]
    node: NDArray[np.int32]
    state: NDArray[np.int64]  # the parent's handle
    action: NDArray[np.int64]
