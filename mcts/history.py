"""Where each simulation of a search ended, in order, so that a tree can be shown as it grew.

A pool that is asked to `watch` a place notes after every step what has changed in its tree; one that watches
nothing does nothing. It reads trees and changes nothing in them, and does not know how nodes are drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.tree import NONE, Tree

I32 = NDArray[np.int32]


class History:
    """The simulations of one tree from its planting on. PUCT and Gumbel count the root's own evaluation as
    the first; frontier search counts play-outs, each when it ended.

    `ended[t]` is the node in which simulation t ended, `outcome[t]` the value that it backed up from there.
    An end that lost and has no node counts at the state above it. Simulations are in the order in which they
    were backed up; those between two evaluations that ended in known nodes come first, by node number, since
    their own order leaves no trace.
    """

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.outcome: list[float] = []
        self._count = np.zeros(0, np.int64)
        self._sum = np.zeros(0, np.float64)

    def note(self, tree: Tree, place: int, discount: float, under_way: I32 | None = None) -> None:
        """Add what was backed up in the tree at `place` since the last call.

        under_way: int32 [W], nodes that unfinished play-outs have come to, NONE for none; a tree of frontier
            search counts those as lost already, which is taken back here.
        """
        nodes = int(tree.size[place])
        count = tree.visits[place, :nodes].astype(np.int64)
        total = tree.value_sum[place, :nodes].copy()
        below, slot = tree.parent[place, 1:nodes], tree.parent_slot[place, 1:nodes]
        passed = count[1:].copy()  # before anything is subtracted
        reward = tree.reward[place, below, slot].astype(np.float64)
        earned = passed * reward + discount * total[1:]
        np.subtract.at(count, below, passed)
        np.subtract.at(total, below, earned)
        if under_way is not None:
            tips = under_way[under_way != NONE]
            np.subtract.at(count, tips, 1)
            np.add.at(total, tips, 1.0)
        known = len(self._count)
        more, gain = count.copy(), total.copy()
        more[:known] -= self._count[:nodes]
        gain[:known] -= self._sum[:nodes]
        self._count, self._sum = count, total
        new = np.flatnonzero(more)
        self.ended += np.repeat(new, more[new]).tolist()
        self.outcome += np.repeat(gain[new] / more[new], more[new]).tolist()
