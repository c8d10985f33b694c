"""The trees of games whose askers want to look at them: watched while they grow, copied when they are done.

Games that nobody asked this for are not touched. What a copy holds is ``recorded_tree``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import SearchConfig, Tree
from tokenzero.mcts.history import History
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.recorded_tree import Setting, record


class Watchable(Protocol):
    """A pool of searches, as far as it is watched."""

    @property
    def tree(self) -> Tree: ...

    def watch(self, place: int) -> History: ...


class KeptTrees:
    """The searches under way that are watched, by place."""

    def __init__(self, pool: Watchable, evaluator: LeafEvaluator, config: SearchConfig) -> None:
        self._pool = pool
        self._evaluator = evaluator
        self._config = config
        self._proposers: list[str] = []
        if evaluator.consulting is not None:
            teachers = evaluator.consulting.ensemble.teachers
            self._proposers = ["student", *(teacher.name for teacher in teachers)]
        self._histories: dict[int, History] = {}

    def watch(self, place: int) -> None:
        """A search that is to be kept was planted at ``place``."""
        self._histories[place] = self._pool.watch(place)

    def drop(self, place: int) -> None:
        """The search at ``place`` is of no interest any more."""
        self._histories.pop(place, None)

    def keep(self, place: int, game: Game, weights: npt.NDArray[np.float32] | None = None) -> None:
        """Copy the tree at ``place`` into ``game``, if it was watched, before its states are released.
        ``weights`` f32 [K] are the improved policy at its root."""
        history = self._histories.pop(place, None)
        own = self._config.method != "frontier"  # those count the root's evaluation as well
        if history is None or len(history.ended) <= own:  # without a simulation there was no search
            return
        evaluator, config = self._evaluator, self._config
        table, steps = evaluator.table, evaluator.steps(place)

        def actions(row: int) -> Sequence[int]:
            token = int(table.token[row])
            return steps.get(token, (token,))

        settings: dict[str, Setting] = {"simulations": config.simulations, "candidates": config.candidates}
        if config.method == "frontier":
            settings = {"tokens": config.tokens, "candidates": config.candidates}
        tree = record(
            self._pool.tree,
            place,
            history,
            prompt=game.problem.prompt,
            method=config.method,
            actions=actions,
            text=evaluator.text,
            settings=settings,
            solution_value=config.solution_value,
            discount=1.0 if config.method == "frontier" else config.discount,
            table=table,
            judged=evaluator.judged,
            proposers=self._proposers,
            weights=weights,
        )
        tree.position = int(table.length[self._pool.tree.state[place, 0]])
        game.trees.append(tree)


def mark_answer(game: Game) -> None:
    """Mark the way of the finished answer in the game's trees."""
    for tree in game.trees:
        tree.committed = tree.follow(game.tokens[tree.position :])
