"""Search trees made by hand or by a search over random tables, for tests of what is shown of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from synthetic import Synthetic

from tokenzero.mcts import SearchConfig, SearchPool
from tokenzero.selfplay.recorded_tree import RecordedTree, record


def searched_tree(
    simulations: int, *, candidates: int = 5, seed: int = 0, terminals: float = 0.15, **changes: Any
) -> RecordedTree:
    """A PUCT search over made-up tables, with words for actions."""
    env = Synthetic(seed, candidates, states=4000, terminals=terminals)
    env.logits *= 0.5
    config = SearchConfig(
        method="puct", simulations=simulations, candidates=candidates, skip_exhausted=True, c_init=3.0
    )
    pool = SearchPool(1, config)
    pool.plant(np.arange(1), env.roots(1))
    history = pool.watch(0)
    while pool.step(env):
        pass
    result = pool.answer(np.arange(1), uniform=np.zeros(1))
    tree = result.tree
    nodes = int(tree.size[0])
    # States come again in these tables, so a node is told by its number, put where its state was.
    tree.state[0, :nodes] = np.arange(nodes)

    def actions(node: int) -> list[int]:
        return tree.path(0, node)[-1:]

    def text(node: int) -> str:
        return "".join(f"{WORDS[action % len(WORDS)]} " for action in tree.path(0, node))

    found = record(
        tree,
        0,
        history,
        prompt="say it well",
        method="puct",
        actions=actions,
        text=text,
        solution_value=0.9,
        settings={"simulations": simulations, "seed": seed},
        weights=result.weights[0],
    )
    best = int(tree.child[0, 0, result.chosen[0]])
    found.committed = [best]
    for name, value in changes.items():
        setattr(found, name, value)
    return found


WORDS = ("the", "a", "cat", "tree", "walks", "under", "seven", "small", "leaves", "and", "sings", "1+2", "=")


def small_tree(**changes: Any) -> RecordedTree:
    """Root, two children, a solved and a failed end below the first; five simulations that make them."""
    values: dict[str, Any] = {
        "prompt": "1 2 -> 3 :",
        "method": "puct",
        "parent": np.array([-1, 0, 0, 1, 1], np.int32),
        "actions": [[], [4], [5], [6], [7]],
        "text": ["", "1 ", "2 ", "+ 2", "- 2"],
        "visits": np.array([5, 3, 1, 1, 1], np.int32),
        "value": np.array([0.1, 1 / 6, -0.5, 1.0, -1.0], np.float32),
        "raw_value": np.array([0.5, 0.5, -0.5, 1.0, -1.0], np.float32),
        "prior": np.array([1.0, 0.75, 0.25, 0.5, 0.5], np.float32),
        "terminal": np.array([False, False, False, True, True]),
        "solved": np.array([False, False, False, True, False]),
        "exhausted": np.array([False, True, False, True, True]),
        "judge": np.array([0, 1, -1, 0, 0], np.int8),
        "lost": np.array([0, 0, 2, 0, 0], np.int32),
        "proposers": ["student", "<teacher & co>"],
        "shares": np.array([[0, 0], [0.5, 0.5], [1, 0], [1, 0], [0, 1]], np.float32),
        "ended": np.array([0, 1, 3, 2, 4], np.int32),
        "outcome": np.array([0.5, 0.5, 1.0, -0.5, -1.0], np.float32),
        "committed": [1, 3],
    }
    return RecordedTree(**{**values, **changes})
