"""What a search says once it is over: visits, weights, values and the proposed action at the roots.

It reads trees and changes nothing in them. It draws no random numbers: the one behind PUCT's choice is handed
in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import kernels
from tokenzero.mcts.compiled import call
from tokenzero.mcts.config import SearchConfig
from tokenzero.mcts.noise import draw
from tokenzero.mcts.pruning import pruned
from tokenzero.mcts.records import Progress, RootRules, Rules
from tokenzero.mcts.tree import NONE, ROOT, Tree


@dataclass
class SearchResult:
    """The answer at the roots of R trees with K candidate slots.

    actions: int64 [R, K], -1 in empty slots. visits: int32 [R, K] of the root's children.
    weights: float32 [R, K], the visit distribution: normalised visits (PUCT; the prior if nothing was
        visited; pruned first with prune_targets) or softmax(logits + completed Q) (Gumbel). 0 in empty and
        masked slots; rows sum to 1 unless no slot is open.
    q: float32 [R, K], reward + discount * mean value of the child; 0 where unvisited.
    value: float32 [R], mean backed-up value of the root.
    chosen: int64 [R], slot of the proposed action; NONE (-1) if the root has no open slot.
    solution: int32 [R], index of the first terminal node found with raw value >= solution_value, NONE if
        none. solution_state: int64 [R], the evaluator's handle of that node, NONE if none.
    depth: int32 [R], edges from the root to the deepest node. nodes: int32 [R], nodes in the tree.
    simulations: int64 [R], simulations done, carried ones not counted.
    steps: calls of the evaluator; in a pool those of all its searches so far.
    places: int64 [R], which trees of `tree` the rows are. `search()` gives each row the tree of its own index
        and leaves the trees to the caller; those of a pool are planted anew.
    """

    actions: NDArray[np.int64]
    visits: NDArray[np.int32]
    weights: NDArray[np.float32]
    q: NDArray[np.float32]
    value: NDArray[np.float32]
    chosen: NDArray[np.int64]
    solution: NDArray[np.int32]
    solution_state: NDArray[np.int64]
    depth: NDArray[np.int32]
    nodes: NDArray[np.int32]
    simulations: NDArray[np.int64]
    steps: int
    tree: Tree
    places: NDArray[np.int64]


def read_answer(
    tree: Tree,
    rules: Rules,
    root: RootRules,
    progress: Progress,
    config: SearchConfig,
    places: NDArray[np.int64],
    uniform: NDArray[np.float64],
    steps: int,
) -> SearchResult:
    """The result of the searches at `places` int64 [R]; `uniform` float64 [R] in [0, 1) is PUCT's draw."""
    blocked = root.blocked[places]
    visits = np.maximum(tree.edge_visits[places, ROOT], 0)
    weights, chosen = np.zeros(blocked.shape, np.float32), np.full(len(places), NONE, np.int64)
    avoided = _avoided(tree, blocked, config, places)
    if config.method == "gumbel":
        call(kernels.gumbel_answer, tree, rules, root, places, avoided, weights, chosen)
    else:
        total = visits.sum(axis=1, keepdims=True)
        # With no visits at all the search has nothing to add to the prior.
        prior = tree.prior[places, ROOT]
        share = np.where(total > 0, visits / np.maximum(total, 1), prior)
        kept = pruned(tree, rules, blocked, places) if config.prune_targets else visits
        target = np.where(total > 0, kept / np.maximum(kept.sum(axis=1, keepdims=True), 1), prior)
        weights = target.astype(np.float32)
        chosen = draw(uniform, _without_lost(share, prior, ~avoided, config), config.temperature)
    solution = progress.solution[places]
    state = tree.state[places, np.maximum(solution, 0)]
    return SearchResult(
        actions=tree.action[places, ROOT],
        visits=visits,
        weights=weights,
        q=tree.edge_q[places, ROOT],
        value=(tree.value_sum[places, ROOT] / tree.visits[places, ROOT]).astype(np.float32),
        chosen=chosen,
        solution=solution,
        solution_state=np.where(solution == NONE, NONE, state),
        depth=tree.deepest[places],
        nodes=tree.size[places],
        simulations=np.maximum(progress.done[places], 0),
        steps=steps,
        tree=tree,
        places=places,
    )


def _avoided(
    tree: Tree, blocked: NDArray[np.bool_], config: SearchConfig, places: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Slots not to commit to, bool [R, K]: closed ones and those known to be lost, unless all are."""
    if not config.skip_exhausted:
        return blocked
    child = tree.child[places, ROOT]
    settled = (child != NONE) & tree.exhausted[places[:, None], np.maximum(child, 0)]
    avoided = blocked | (settled & (tree.edge_q[places, ROOT] < config.solution_value))
    return np.asarray(np.where(avoided.all(axis=1, keepdims=True), blocked, avoided), np.bool_)


def _without_lost(
    share: NDArray[np.float64],
    prior: NDArray[np.float32],
    open_slots: NDArray[np.bool_],
    config: SearchConfig,
) -> NDArray[np.float64]:
    """`share` f64 [R, K] with nothing for what is known to be lost; the prior decides where none is left."""
    if not config.skip_exhausted:
        return share
    visited, likely = share * open_slots, prior * open_slots
    left = np.where(visited.any(axis=1, keepdims=True), visited, likely)
    return np.where(left.any(axis=1, keepdims=True), left, share)
