"""Games played by frontier search: one tree each, searched until its budget is spent.

No move is committed on the way. The answer is the first solution found, else the best finished answer; the
whole tree stays with the game, since every state in it was paid for and can be learnt from. It does not turn
trees into targets: see ``tree_targets``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, ROOT, FrontierPool, FrontierResult, SearchConfig
from tokenzero.mcts.frontier import root_statistics
from tokenzero.policy.engine import Ids
from tokenzero.selfplay.ended_play_outs import ended_play_outs
from tokenzero.selfplay.game import Move, SearchedTree
from tokenzero.selfplay.place_costs import UNLIMITED
from tokenzero.selfplay.tree_session import Table, TreeSession


class FrontierSession(TreeSession):
    """``config.max_depth`` must be the longest answer. ``config.tokens`` counts a problem's prompt in; a game
    may ask for fewer.
    """

    def __init__(self, table: Table, config: SearchConfig) -> None:
        self._pool = FrontierPool(table.places, config, table.evaluator.paid_ends)
        super().__init__(table, self._pool, config)
        self._config = config

    def _opened(self, places: Ids, rows: Ids) -> None:
        if not places.size:
            return
        assert self._config.max_depth is not None
        own = UNLIMITED if self._config.tokens is None else self._config.tokens
        budget = np.minimum(self._tokens[places], own)
        self._pool.plant(
            places,
            self._evaluator.view(rows),
            [self._seat(place).asked.rng for place in places.tolist()],
            tokens=np.maximum(budget - self._evaluator.spent[places], 0),
            longest=np.minimum(self._evaluator.limits(places), self._config.max_depth),
        )
        self._watch(places)

    def _go_on(self) -> None:
        if self._limited:
            self._pool.finish(self._poor(np.flatnonzero(self._taken)))
        due = self._pool.ended()
        if due.size < self._enough() and self._pool.step(self._evaluator):
            return
        if due.size:
            self._finish(due)

    def _enough(self) -> int:
        return super()._enough() if self._shared.together else 1

    def _cut(self, places: Ids) -> None:
        self._pool.finish(places)
        self._finish(places, late=True)

    def _poor(self, places: Ids) -> Ids:
        """Those of ``places`` i64 [R] that cannot pay for another state, or, where states differ in price,
        might not be able to pay for those of a step."""
        dear = self._evaluator.dearest(places)
        step = np.where(dear > 1, dear * self._config.leaves, 1)
        return places[self._left(places) < step]

    def _finish(self, places: Ids, late: bool = False) -> None:
        """Take the answers and the trees of ``places`` i64 [R]. ``late``: their time is up."""
        evaluator, result = self._evaluator, self._pool.answer(places)
        roots = root_statistics(result)
        poor = set(self._poor(places).tolist())
        for index, place in enumerate(places.tolist()):
            game = self._seat(place).game
            self._kept.keep(place, game)
            tree = game.tree = searched_tree(result, index)
            if evaluator.consulting is not None:
                evaluator.consulting.credit_tree(result.tree, place)
                tree.proposers = evaluator.consulting.proposers(result.tree, place)
            if evaluator.judged:
                _take_back_shifts(tree, result, index, evaluator.table.unjudged)
            solution = int(result.solution[index])
            node = _answer(tree, solution)
            row, value = int(result.tree.state[place, node]), float(tree.raw_value[node])
            if solution == NONE and evaluator.best_end[place] != NONE:  # the tree may have forgotten it
                row = int(evaluator.best_end[place])
                value = float(evaluator.table.value[row])
            ended = bool(evaluator.table.terminal[row])
            cut = solution == NONE and (late or place in poor) and not tree.exhausted[ROOT]
            game.tokens = evaluator.table.answer(row)
            game.text = evaluator.text(row).strip()
            game.end = evaluator.end(row) if ended and not cut else "budget"
            game.simulations = int(result.simulations[index])
            game.depth = int(result.depth[index])
            game.terminal_value = value
            chosen = game.tokens[0] if game.tokens else NONE
            game.moves = [_root_move(result, roots, index, chosen)]
            game.value = game.moves[0].value
            if self._shared.verified_by == "public":
                game.verdict = (value + 1.0) / 2.0 if ended else 0.0
        self._hand_out(places)


def searched_tree(result: FrontierResult, index: int) -> SearchedTree:
    """A copy of tree ``index`` of ``result``."""
    tree, place, nodes = result.tree, int(result.places[index]), int(result.nodes[index])
    above, slot = tree.parent[place, :nodes].copy(), tree.parent_slot[place, :nodes]
    token = tree.action[place, above, slot]
    token[ROOT] = NONE
    return SearchedTree(
        parent=above,
        token=token,
        visits=tree.visits[place, :nodes].copy(),
        value_sum=tree.value_sum[place, :nodes].copy(),
        raw_value=tree.raw_value[place, :nodes].copy(),
        terminal=tree.terminal[place, :nodes].copy(),
        exhausted=tree.exhausted[place, :nodes].copy(),
        solutions=result.solutions[index, :nodes].copy(),
    )


def _take_back_shifts(
    found: SearchedTree, result: FrontierResult, index: int, unjudged: npt.NDArray[np.float32]
) -> None:
    """Rid a tree of the judge's shifts, which no value target may hold: what states were valued at before
    them, and play-outs that came to an end alone, since one that was cut short counts as its last state."""
    tree, place, nodes = result.tree, int(result.places[index]), slice(0, int(result.nodes[index]))
    found.raw_value = np.where(found.terminal, found.raw_value, unjudged[tree.state[place, nodes]])
    ended, through, earned = ended_play_outs(tree, place)
    found.visits = (ended + through.sum(axis=1)).astype(np.int32)
    found.value_sum = ended * found.raw_value + earned.sum(axis=1)


def _answer(tree: SearchedTree, solution: int) -> int:
    """Node of the answer: the solution, else the best finished one, else the deepest state; the older of
    equals."""
    if solution != NONE:
        return solution
    finished = np.flatnonzero(tree.terminal)
    if finished.size:
        return int(finished[np.argmax(tree.raw_value[finished])])
    return int(np.argmax(tree.depths()))


def _root_move(
    result: FrontierResult,
    roots: tuple[np.ndarray, np.ndarray, np.ndarray],
    index: int,
    chosen: int,
) -> Move:
    """What the search came to at the root, as other methods say it of each position."""
    tree, place = result.tree, int(result.places[index])
    visits, q, solutions = (numbers[index] for numbers in roots)
    counts = solutions if solutions.any() else visits
    actions, prior = tree.action[place, ROOT].copy(), tree.prior[place, ROOT].copy()
    rollouts = int(tree.visits[place, ROOT])
    value = tree.value_sum[place, ROOT] / rollouts if rollouts else tree.raw_value[place, ROOT]
    weights = counts / counts.sum() if counts.any() else prior
    return Move(
        actions=actions,
        weights=weights.astype(np.float32),
        visits=visits,
        q=q,
        prior=prior,
        value=float(value),
        chosen=chosen,
        responsibility=np.ones(1, np.float32),
        full=False,
    )
