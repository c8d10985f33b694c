"""Candidates that are priced anew once a node has proved worth it: lazy priors.

A search with `revise_visits` asks its evaluator a second time for the candidates of every node whose visits
reach that number, for example because teachers are too dear to be asked about every leaf. This file finds the
nodes, checks the answer and writes it into a tree. It does not know what a better prior is, and leaves what
else depends on priors to the pools. Roots are never revised: whoever plants them has them at their best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.compiled import call, kernel
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluator, check_logits
from tokenzero.mcts.tree import NONE, ROOT, Tree

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Revision:
    """New candidates of L nodes: actions int64 [L, K], logits float32 [L, K], both as in `Evaluation`.

    A slot whose child was expanded keeps its action; any other slot may hold another one, or none.
    """

    actions: Ids
    logits: NDArray[np.float32]


@runtime_checkable
class Reviser(Protocol):
    """An `Evaluator` that can say more about a state when asked again."""

    def revise(self, states: Ids) -> Revision:
        """The candidates of `states` int64 [L], all expanded before and none terminal."""
        ...


class Revisions:
    """Which nodes of a pool's trees are due, each once."""

    def __init__(self, places: int, visits: int) -> None:
        self.visits = visits
        self._done = np.zeros((places, 2), np.bool_)

    def clear(self, places: Ids) -> None:
        """New trees were planted at `places` int64 [R]."""
        self._done[places] = False

    def due(self, tree: Tree, over: NDArray[np.bool_]) -> tuple[Ids, Ids]:
        """Places and nodes, both int64 [L] and ascending, whose visits have just reached the bound."""
        nodes = tree.parent.shape[1]
        if self._done.shape[1] < nodes:
            wide = np.zeros((len(over), nodes), np.bool_)
            wide[:, : self._done.shape[1]] = self._done
            self._done = wide
        rows = np.empty(int(np.where(over, 0, tree.size).sum()), np.int64)
        found = np.empty_like(rows)
        count: int = call(find_due, tree, over, self._done, self.visits, rows, found)
        return rows[:count], found[:count]

    def asked(self, evaluator: Evaluator, tree: Tree, rows: Ids, nodes: Ids) -> Revision:
        """The evaluator's new candidates of those nodes, checked and K wide.

        Raises InputError for an evaluator that cannot revise, wrong shapes or numbers, and for one that takes
        the action away from an expanded child.
        """
        if not isinstance(evaluator, Reviser):
            raise InputError(
                f"search.revise_visits is {self.visits} but the evaluator has no revise(); set it to 0"
            )
        answer = cast("Reviser", evaluator).revise(tree.state[rows, nodes])
        shape = (len(rows), tree.child.shape[2])
        actions = np.ascontiguousarray(answer.actions, np.int64)
        logits = np.ascontiguousarray(answer.logits, np.float32)
        if actions.shape != shape or logits.shape != shape:
            raise InputError(f"revision has shapes {actions.shape} and {logits.shape}; give {shape} of each")
        check_logits(actions != NONE, logits, "revision")
        kept = tree.child[rows, nodes] != NONE
        if (kept & (actions != tree.action[rows, nodes])).any():
            raise InputError("revision moves the action of an expanded child; leave it in its slot")
        return Revision(actions, logits)


@kernel
def find_due(
    tree: Tree,
    over: NDArray[np.bool_],
    done: NDArray[np.bool_],
    visits: int,
    rows: Ids,
    nodes: Ids,
) -> int:
    """Collect nodes that reached `visits`, have candidates, and were not collected before."""
    count = 0
    for b in range(over.shape[0]):
        if over[b]:
            continue
        for node in range(ROOT + 1, tree.size[b]):
            if tree.visits[b, node] >= visits and not done[b, node]:
                done[b, node] = True
                if not tree.terminal[b, node] and not tree.exhausted[b, node]:
                    rows[count] = b
                    nodes[count] = node
                    count += 1
    return count


@kernel
def rewrite(tree: Tree, rows: Ids, nodes: Ids, actions: Ids, logits: NDArray[np.float32]) -> None:
    """Write new candidates and the softmax of their logits into nodes that are no roots; what was settled
    stays closed.
    """
    for i in range(rows.shape[0]):
        b, node = int(rows[i]), int(nodes[i])
        top, total = np.float32(-np.inf), 0.0
        for k in range(actions.shape[1]):
            top = max(top, logits[i, k] if actions[i, k] != NONE else top)
        for k in range(actions.shape[1]):
            total += math.exp(float(logits[i, k]) - float(top)) if actions[i, k] != NONE else 0.0
        for k in range(actions.shape[1]):
            real = actions[i, k] != NONE
            tree.action[b, node, k] = actions[i, k]
            tree.logit[b, node, k] = logits[i, k] if real else np.float32(0.0)
            share = math.exp(float(logits[i, k]) - float(top)) / total if real else 0.0
            tree.prior[b, node, k] = np.float32(share)
            if tree.child[b, node, k] == NONE:
                tree.closed[b, node, k] = not real
                tree.edge_visits[b, node, k] = 0 if real else NONE
