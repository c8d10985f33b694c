"""Teachers beside the student in the evaluation of leaves: whom to ask about which states of the table, and
what came of it.

A state is asked about when it is first met, or, with ``visits`` above 1, at the prompt and again when a
search found that it is worth it (see ``mcts.revision``). Continuations that a teacher thought out are
followed further down without asking again. It neither weighs teachers nor knows a search method.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, Revision, Tree
from tokenzero.policy.engine import Ids
from tokenzero.selfplay.ended_play_outs import ended_play_outs
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.state_table import StateTable
from tokenzero.teachers import Ensemble, Inquiry, Mixture, Path, followed, trace_weights


class Consulting:
    """The ``ensemble`` over the states of a ``table``. ``sequence`` gives a state's tokens, ``prompt_len``
    and ``tag`` those of a place; ``longest`` is the longest answer, ``banned`` tokens are no actions.
    ``pay`` is told the places that teachers were asked for in one call, i64 [L], and its tokens."""

    def __init__(
        self,
        ensemble: Ensemble,
        table: StateTable,
        pay: Callable[[Ids, int], None],
        sequence: Callable[[int], list[int]],
        prompt_len: Callable[[int], int],
        tag: Callable[[int], str],
        longest: int,
        banned: Collection[int],
    ) -> None:
        self.ensemble = ensemble
        self._table = table
        self._pay = pay
        self._sequence, self._prompt_len, self._tag = sequence, prompt_len, tag
        self._longest = longest
        self._banned = banned
        self._paths: dict[int, tuple[Path, ...]] = {}

    def met(self, rows: Ids) -> None:
        """States ``rows`` i64 [L] hold the student's candidates for the first time."""
        table, lazy = self._table, self.ensemble.config.visits > 1
        table.asked[rows] = False
        table.responsibility[rows] = 0.0
        table.responsibility[rows, :, 0] = 1.0
        self._inherit(rows)
        asking = table.length[rows] == 0 if lazy else np.ones(len(rows), np.bool_)
        leading = np.asarray([row in self._paths for row in rows.tolist()], np.bool_)
        heard = rows[asking | leading]
        if heard.size:
            found = self._consult(heard, asking[asking | leading])
            table.actions[heard] = found.actions
            table.logits[heard] = found.logits
            table.responsibility[heard] = found.responsibility

    def again(self, rows: Ids) -> Revision:
        """Ask about those of the states ``rows`` i64 [L] that nobody spoke on yet; see
        `StateTable.revise`."""
        fresh = rows[~self._table.asked[rows] & ~self._table.terminal[rows]]
        if fresh.size:
            found = self._consult(fresh, np.ones(len(fresh), np.bool_))
            self._table.revise(fresh, found.actions, found.logits, found.responsibility)
        return Revision(self._table.actions[rows], self._table.logits[rows])

    def credit_tree(self, tree: Tree, place: int) -> None:
        """Credit the proposals in a finished tree of frontier search, whose handles are still states.

        An action was worth what the play-outs through it came to, and counts by the prior it had, as if drawn
        from it: search looks at unlikely actions more often than their prior says.
        """
        nodes, width = slice(0, int(tree.size[place])), self._table.actions.shape[1]
        rows = tree.state[place, nodes]
        asked = np.flatnonzero(self._table.asked[rows] & ~tree.terminal[place, nodes])
        if not asked.size:
            return
        traced = ended_play_outs(tree, place, self.ensemble.config.trace)
        faded, earned = traced.through[asked][:, :width], traced.earned[asked][:, :width]
        through = ended_play_outs(tree, place).through[asked][:, :width].sum(axis=1, keepdims=True)
        fading = np.divide(
            faded.sum(axis=1, keepdims=True), through, out=np.zeros_like(through), where=through > 0
        )
        worth = np.divide(earned, faded, out=np.zeros_like(earned), where=faded > 0)
        eligible = fading * np.where(faded > 0, tree.prior[place, nodes][asked][:, :width], 0.0)
        contexts = [self._context(row) for row in rows[asked].tolist()]
        share = self._table.responsibility[rows[asked]]
        weights = self.ensemble.weights_in(contexts)
        self.ensemble.credit.add(contexts, share, weights, eligible, eligible * worth)

    def proposers(self, tree: Tree, place: int) -> npt.NDArray[np.float32]:
        """Whose proposals led to each node of a finished tree, f32 [n, 1 + teachers]; all 0 at the root."""
        nodes = slice(0, int(tree.size[place]))
        above, slot = tree.parent[place, nodes], tree.parent_slot[place, nodes]
        shares = self._table.responsibility[tree.state[place, nodes][above], slot]
        shares[0] = 0.0
        return shares

    def _inherit(self, rows: Ids) -> None:
        """Paths of the state above that lead on to each of ``rows``."""
        for row in rows.tolist():
            self._paths.pop(row, None)  # of a state that had this row before
            above = int(self._table.parent[row])
            told = self._paths.get(above, ()) if above != NONE else ()
            if told and (paths := followed(told, int(self._table.token[row]))):
                self._paths[row] = paths

    def _consult(self, rows: Ids, asking: npt.NDArray[np.bool_]) -> Mixture:
        table, ensemble = self._table, self.ensemble
        inquiries = [
            Inquiry(
                self._sequence(row),
                self._prompt_len(int(table.game[row])),
                self._context(row),
                self._paths.get(row, ()),
                bool(ask),
            )
            for row, ask in zip(rows.tolist(), asking, strict=True)
        ]
        before = ensemble.tokens.total()
        probs = np.exp(table.logits[rows]) * (table.actions[rows] >= 0)
        heard = ensemble.consult(inquiries, table.actions[rows], probs, table.actions.shape[1], self._banned)
        asked = rows[asking] if asking.any() else rows
        self._pay(table.game[asked], ensemble.tokens.total() - before)
        table.asked[rows] = heard.spoke
        for row, paths in zip(rows.tolist(), heard.paths, strict=True):
            if paths:
                self._paths[row] = paths
        return heard.mixture

    def _context(self, row: int) -> str:
        table = self._table
        tag = self._tag(int(table.game[row]))
        return self.ensemble.context(tag, int(table.length[row]), self._longest)


def credit_path(ensemble: Ensemble, game: Game, outcome: float, longest: int) -> None:
    """Credit the proposals at the positions of a game that ended with ``outcome`` in [-1, 1].

    The move that was played earned the outcome, the others what their search came to: a proposal that search
    saw through was worth that little. Both count by the prior that they had, as if drawn from it.
    """
    fading = trace_weights(len(game.moves), ensemble.config.trace)
    for index, move in enumerate(game.moves):
        if move.shares is None:
            continue
        width = len(move.shares)
        played = move.actions[:width] == move.chosen
        seen = (move.visits[:width] > 0) | played
        eligible = fading[index] * np.where(seen, move.prior[:width], 0.0)
        earned = eligible * np.where(played, outcome, np.clip(move.q[:width], -1.0, 1.0))
        context = ensemble.context(game.problem.tag, index, longest)
        weights = ensemble.weights_in([context])
        ensemble.credit.add([context], move.shares[None], weights, eligible[None], earned[None])
