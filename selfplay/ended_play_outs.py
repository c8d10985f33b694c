"""The play-outs of a finished frontier search that came to an end, on the edges of its tree.

One that was cut short by the budget counts as its last state in the tree's own sums; here it does not count
at all. It credits nobody and makes no targets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import Tree
from tokenzero.mcts.tree import LOST
from tokenzero.teachers import tree_edges

F64 = npt.NDArray[np.float64]


class EndedPlayOuts(NamedTuple):
    """Of a tree of N nodes: ``ended`` f64 [N] play-outs that ended at a node; ``through`` f64 [N, K] those
    through an edge, and ``earned`` f64 [N, K] their outcomes, both faded (see `teachers.tree_edges`)."""

    ended: F64
    through: F64
    earned: F64


def ended_play_outs(tree: Tree, place: int, trace: float = 1.0) -> EndedPlayOuts:
    """The play-outs of the tree at ``place``; with ``trace`` 1 nothing fades."""
    nodes = slice(0, int(tree.size[place]))
    ended = np.where(tree.terminal[place, nodes], tree.visits[place, nodes], 0).astype(np.float64)
    through, earned = tree_edges(
        tree.parent[place, nodes].astype(np.int64),
        tree.parent_slot[place, nodes].astype(np.int64),
        tree.depth[place, nodes].astype(np.int64),
        ended,
        tree.raw_value[place, nodes].astype(np.float64),
        tree.child[place, nodes] == LOST,
        trace,
    )
    return EndedPlayOuts(ended, through, earned)
