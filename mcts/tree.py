"""The search tree of a batch: plain arrays with one owner.

A `Tree` is allocated by a pool and written only by the kernels; everyone else reads it. It holds no text and
no model state: actions and states are opaque numbers that belong to the evaluator. It does not grow in place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = 0
NONE = -1
LOST = -2

# The numbers of one node lie side by side in one cache line, since a walk reads or writes most of them.
NODE = np.dtype(
    {
        "names": [
            "value_sum", "state", "parent", "parent_slot", "depth", "visits", "inflight", "raw_value",
            "terminal", "exhausted",
        ],
        "formats": ["f8", "i8", "i4", "i4", "i4", "i4", "i4", "f4", "?", "?"],
        "offsets": [0, 8, 16, 20, 24, 28, 32, 36, 40, 41],
        "itemsize": 64,
    }
)  # fmt: skip


class Tree(NamedTuple):
    """B trees of at most N nodes with K candidate slots each. Slots at or past `size[b]` hold no node.

    It is a named tuple so that compiled kernels take it as it is; the arrays inside are mutable.
    Sums of values are float64: a mean of equal float32 values is then that value exactly, and rescaling Q by
    a node's own extremes cannot blow rounding noise up to the full range.
    """

    parent: NDArray[np.int32]  # [B, N] node index, NONE at the root
    parent_slot: NDArray[np.int32]  # [B, N] slot of the parent that leads here, NONE at the root
    depth: NDArray[np.int32]  # [B, N] edges from the root
    visits: NDArray[np.int32]  # [B, N] values backed up through the node, its own evaluation included
    inflight: NDArray[np.int32]  # [B, N] selections waiting for their evaluation; all zero between steps
    value_sum: NDArray[np.float64]  # [B, N] sum of those values; the node's value is value_sum / visits
    raw_value: NDArray[np.float32]  # [B, N] value given by the evaluator
    terminal: NDArray[np.bool_]  # [B, N]
    exhausted: NDArray[np.bool_]  # [B, N] every leaf below is terminal (kept for skip_exhausted only)
    state: NDArray[np.int64]  # [B, N] the evaluator's handle
    child: NDArray[np.int32]  # [B, N, K] node index, NONE while unexpanded, LOST for an end without a node
    action: NDArray[np.int64]  # [B, N, K] opaque id, -1 in a slot that holds no candidate
    logit: NDArray[np.float32]  # [B, N, K] as the evaluator gave it
    prior: NDArray[
        np.float32
    ]  # [B, N, K] softmax of the logits over real slots; at the root without masked slots, noise mixed in
    reward: NDArray[np.float32]  # [B, N, K] reward on the edge, known once the child is expanded
    edge_visits: NDArray[
        np.int32
    ]  # [B, N, K] visits of the child, in-flight ones included; -1 in a slot that holds no candidate
    closed: NDArray[np.bool_]  # [B, N, K] never to be followed: no candidate, masked at the root, or settled
    edge_q: NDArray[
        np.float32
    ]  # [B, N, K] reward + discount * value of the child, virtual loss included; 0 while unexpanded
    size: NDArray[np.int32]  # [B] nodes in use
    deepest: NDArray[np.int32]  # [B] greatest depth of a node
    q_low: NDArray[np.float32]  # [B] least Q seen in the tree (kept for q_rescale "tree" only)
    q_high: NDArray[np.float32]  # [B] greatest Q seen

    @staticmethod
    def allocate(batch: int, nodes: int, candidates: int) -> Tree:
        """Empty trees for `batch` rows, `nodes` slots each (root included, at least 2) and `candidates` slots
        per node.

        The kernels write every field of a node when they make it, so slots without a node may hold anything;
        only `parent` and `state` are NONE there in fresh arrays.
        """
        nodes = max(nodes, 2)  # fields of a single record would pass for contiguous arrays, another type
        node, slots = np.zeros((batch, nodes), NODE), (batch, nodes, candidates)
        node["parent"], node["state"] = NONE, NONE
        return Tree(
            **{name: node[name] for name in NODE.fields or ()},
            child=np.zeros(slots, np.int32),
            action=np.zeros(slots, np.int64),
            logit=np.zeros(slots, np.float32),
            prior=np.zeros(slots, np.float32),
            reward=np.zeros(slots, np.float32),
            edge_visits=np.zeros(slots, np.int32),
            closed=np.zeros(slots, np.bool_),
            edge_q=np.zeros(slots, np.float32),
            size=np.zeros(batch, np.int32),
            deepest=np.zeros(batch, np.int32),
            q_low=np.zeros(batch, np.float32),
            q_high=np.zeros(batch, np.float32),
        )

    def enlarged(self, nodes: int) -> Tree:
        """The same trees in new arrays of `nodes` slots, at least as many as now."""
        wide = Tree.allocate(self.child.shape[0], nodes, self.child.shape[2])
        used = int(self.size.max(initial=0))
        for name in self._fields:
            new, old = getattr(wide, name), getattr(self, name)
            if old.ndim == 1:
                new[:] = old
            else:
                new[:, :used] = old[:, :used]
        return wide

    def path(self, b: int, node: int) -> list[int]:
        """Actions from the root of tree `b` to `node`; empty for the root."""
        actions: list[int] = []
        while node != ROOT:
            above, slot = int(self.parent[b, node]), int(self.parent_slot[b, node])
            actions.append(int(self.action[b, above, slot]))
            node = above
        return actions[::-1]

    def value(self, b: int, node: int) -> float:
        """Mean backed-up value of `node` in tree `b`; the node must have been visited."""
        return float(np.float32(self.value_sum[b, node] / self.visits[b, node]))
