"""What PUCT and Gumbel searches learnt beside the moves that were played, gathered before it is forgotten.

Each committed search leaves a tree behind. Its root and every state in it with enough visits of its own has
an improved policy and a backed-up value; those below the move played are left to the next search, which looks
closer. Frontier search needs none of this: it has one tree for a whole problem (see ``tree_targets``).
"""

from __future__ import annotations

import numpy as np

from tokenzero.mcts import NONE, ROOT
from tokenzero.mcts.answer import SearchResult
from tokenzero.mcts.pool import SearchPool
from tokenzero.selfplay.game import Game, Searched


def gather(pool: SearchPool, result: SearchResult, index: int, slot: int, game: Game, visits: int) -> None:
    """Add to ``game.searched`` what the search in row ``index`` of ``result`` says of its root and of every
    state with at least ``visits`` visits that is not below root slot ``slot``, the move that was played.
    """
    tree, place = result.tree, int(result.places[index])
    count = int(result.nodes[index])
    seen = np.flatnonzero((tree.visits[place, :count] >= visits) & ~tree.terminal[place, :count])
    played = int(tree.child[place, ROOT, slot])
    paths: dict[int, tuple[int, ...]] = {ROOT: tuple(move.chosen for move in game.moves)}
    for node in seen[seen != ROOT].tolist():
        above = int(tree.parent[place, node])
        if node != played and above in paths:
            paths[node] = (*paths[above], int(tree.action[place, above, tree.parent_slot[place, node]]))
    nodes = np.asarray(list(paths), np.int64)
    weights = pool.policies(place, nodes)
    for row, node in enumerate(nodes.tolist()):
        actions = tree.action[place, node]
        used = np.flatnonzero((actions != NONE) & (weights[row] > 0))
        game.searched[paths[node]] = Searched(
            actions[used].tolist(), weights[row, used].tolist(), tree.value(place, node)
        )
