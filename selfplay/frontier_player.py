"""Problems played by frontier search: one tree each, searched until its tokens are spent.

Like the queue of the other methods it keeps a fixed number of places full; unlike there, no move is committed
on the way. The answer is the first solution found, else the best finished answer; the whole tree stays with
the game, since every state in it was paid for and can be learnt from. It does not turn trees into targets:
see ``tree_targets``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, ROOT, FrontierPool, FrontierResult, SearchConfig
from tokenzero.mcts.frontier import root_statistics
from tokenzero.policy.engine import Ids
from tokenzero.selfplay.ended_play_outs import ended_play_outs
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.game import Game, Move, SearchedTree
from tokenzero.tasks import PublicProblem


class FrontierQueue:
    """Problems waiting, and P places in which trees grow; ``games`` in the problems' order.

    ``config.max_depth`` must be the longest answer. ``config.tokens`` counts a problem's prompt in.
    """

    def __init__(
        self,
        evaluator: LeafEvaluator,
        config: SearchConfig,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        places: int,
        public: bool,
    ) -> None:
        self.games: list[Game] = []
        self._evaluator = evaluator
        self._config = config
        self._problems = problems
        self._rng = rng
        self._public = public
        self._pool = FrontierPool(places, config)
        self._game = np.full(places, NONE, np.int64)
        # Prefills of many prompts at once cost less than the places that wait for them.
        self._enough = -(-places // 4)

    def play(self, on_games: Callable[[int], None] | None) -> None:
        """Play until no problem is left."""
        finished = 0
        self._open(np.arange(len(self._game)))
        while finished < len(self._problems):
            ended = self._pool.ended()
            if ended.size < self._enough and self._pool.step(self._evaluator):
                continue
            self._finish(ended)
            finished += len(ended)
            if on_games is not None:
                on_games(len(ended))
            self._open(ended)

    def _open(self, free: Ids) -> None:
        """Begin the next problems of the queue in ``free`` places, i64 [R]."""
        first = len(self.games)
        places = free[: len(self._problems) - first]
        if not places.size:
            return
        problems, rngs = self._problems[first : first + len(places)], self._rng.spawn(len(places))
        numbers = np.arange(first, first + len(places))
        rows = self._evaluator.open(places, problems, rngs, numbers.tolist())
        self._game[places] = numbers
        prompts = [self._evaluator.prompt(place) for place in places.tolist()]
        self.games += [Game(problem, prompt) for problem, prompt in zip(problems, prompts, strict=True)]
        tokens = None
        if self._config.tokens is not None:
            tokens = np.maximum(self._config.tokens - self._evaluator.spent[places], 0)
        self._pool.plant(places, self._evaluator.view(rows), rngs, tokens=tokens)

    def _finish(self, places: Ids) -> None:
        """Take the answers and the trees of ``places`` i64 [R], and free what they hold."""
        result = self._pool.answer(places)
        roots = root_statistics(result)
        for index, place in enumerate(places.tolist()):
            game = self.games[int(self._game[place])]
            game.tree = searched_tree(result, index)
            if self._evaluator.consulting is not None:
                self._evaluator.consulting.credit_tree(result.tree, place)
                game.tree.proposers = self._evaluator.consulting.proposers(result.tree, place)
            if self._evaluator.judged:
                _take_back_shifts(game.tree, result, index, self._evaluator.table.unjudged)
            end = _answer(game.tree, int(result.solution[index]))
            row = int(result.tree.state[place, end])
            game.tokens = game.tree.path(end)
            game.text = self._evaluator.text(row).strip()
            game.forwarded = int(self._evaluator.spent[place])
            game.simulations = int(result.simulations[index])
            game.depth = int(result.depth[index])
            game.terminal_value = float(game.tree.raw_value[end])
            game.moves = [_root_move(result, roots, index, game)]
            game.value = game.moves[0].value
            if self._public:
                game.verdict = (game.terminal_value + 1.0) / 2.0 if game.tree.terminal[end] else 0.0
        self._evaluator.shut(places)


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
    game: Game,
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
        chosen=game.tokens[0] if game.tokens else NONE,
        responsibility=np.ones(1, np.float32),
        full=False,
    )
