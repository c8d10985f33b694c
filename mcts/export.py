"""A finished tree as a networkx graph, for viewers and notebooks. It changes nothing in the tree."""

from __future__ import annotations

import networkx as nx

from tokenzero.mcts.errors import InputError
from tokenzero.mcts.tree import NONE, ROOT, Tree


def to_networkx(tree: Tree, b: int = 0) -> nx.DiGraph:
    """Tree `b` as a directed graph whose nodes are node indices (root 0) and whose edges run parent -> child.

    Node attributes: visits, value (mean backed-up), raw_value, prior and reward of the edge into the node (1
    and 0 at the root), action (None at the root), depth, terminal. All are plain Python numbers. Raises
    InputError if `b` is no row.
    """
    batch = tree.size.shape[0]
    if not 0 <= b < batch:
        raise InputError(f"tree {b} does not exist; choose one of 0 to {batch - 1}")
    graph = nx.DiGraph()
    for node in range(int(tree.size[b])):
        above, slot = int(tree.parent[b, node]), int(tree.parent_slot[b, node])
        at_root = node == ROOT or above == NONE
        graph.add_node(
            node,
            visits=int(tree.visits[b, node]),
            value=tree.value(b, node),
            raw_value=float(tree.raw_value[b, node]),
            prior=1.0 if at_root else float(tree.prior[b, above, slot]),
            action=None if at_root else int(tree.action[b, above, slot]),
            depth=int(tree.depth[b, node]),
            terminal=bool(tree.terminal[b, node]),
            reward=0.0 if at_root else float(tree.reward[b, above, slot]),
        )
        if not at_root:
            graph.add_edge(above, node)
    return graph
