"""Policy target pruning: the visits of a finished PUCT search without those that only exploration explains.

From Wu, "Accelerating Self-Play Learning in Go" (KataGo), arXiv:1902.10565, section 3.2. There are no forced
playouts here, so a child may lose any number of visits. It changes no tree and no choice, only targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import kernels
from tokenzero.mcts.records import Rules
from tokenzero.mcts.tree import ROOT, Tree

Floats = NDArray[np.float32]


def pruned(
    tree: Tree, rules: Rules, blocked: NDArray[np.bool_], places: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Root visits int32 [R, K] of the trees at `places` after pruning; `blocked` bool [R, K] slots have none.

    The most visited child (the lowest slot on ties) keeps its visits. Every other child loses visits, one at
    a time, while its PUCT score with the prior before noise, its final Q and the count so reduced stays below
    the final score of the most visited child. What is left with a single visit gets none.
    """
    count = np.maximum(tree.edge_visits[places, ROOT], 0)
    worth, bonus = _score_parts(tree, rules, blocked, places)
    best = count.argmax(axis=1)[:, None]
    bound = np.take_along_axis(worth + bonus / (count + 1).astype(np.float32), best, axis=1)
    others = np.arange(count.shape[1]) != best
    while True:
        lighter = (count > 0) & (worth + bonus / np.maximum(count, 1).astype(np.float32) < bound) & others
        if not lighter.any():
            break
        count = count - lighter
    return np.asarray(np.where(others & (count <= 1), 0, count), np.int32)


def _score_parts(
    tree: Tree, rules: Rules, blocked: NDArray[np.bool_], places: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Rescaled Q and exploration weight, float32 [R, K]; a score is the one plus the other / (visits + 1).

    Rounded as in the kernels. Q counts only where a child was visited.
    """
    count, q = tree.edge_visits[places, ROOT], tree.edge_q[places, ROOT]
    visits = tree.visits[places, ROOT]
    value = (tree.value_sum[places, ROOT] / visits).astype(np.float32)[:, None]
    if rules.rescale == kernels.SIBLINGS:
        seen = np.where(count > 0, q, value)
        low = np.minimum(seen.min(axis=1, keepdims=True), value)
        high = np.maximum(seen.max(axis=1, keepdims=True), value)
    elif rules.rescale == kernels.WHOLE_TREE:
        low, high = tree.q_low[places][:, None], tree.q_high[places][:, None]
    else:
        low, high = np.full_like(value, -1), np.full_like(value, 1)
    spread = np.maximum(high - low, rules.min_spread)
    prior = np.zeros(count.shape, np.float32)
    for row, place in enumerate(places.tolist()):
        kernels.improved_policy(blocked[row], tree.logit[place, ROOT], prior[row])
    return (q - low) / spread, rules.explore[visits][:, None] * prior
