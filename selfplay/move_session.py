"""Games played by PUCT or Gumbel search: a search for each position, and a move committed after it.

A game's budget is shared out over the m moves that may still come, the longest answer less what is
committed: the next search may use 2 / (m + 1) of the tokens and seconds that are left, so that shares fall in
a straight line, because early moves decide more and later searches go on in trees that are half known. A
token for each later move is set aside first. Where a share is too small for a search the policy's likeliest
token is played, so that an answer is complete as often as can be; when nothing is left the game ends as it
is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, SearchConfig
from tokenzero.mcts.answer import SearchResult
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.pool import SearchPool
from tokenzero.policy.engine import Ids
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.game import Move
from tokenzero.selfplay.gathering import gather
from tokenzero.selfplay.tree_session import Table, TreeSession

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Caps:
    """Simulations of a full and of a fast search, and the share of full ones; ``fast`` 0 makes all full.

    Raises InputError for a share outside (0, 1], or a fast search that is not the smaller one.
    """

    simulations: int
    fast: int
    full_share: float

    def __post_init__(self) -> None:
        if self.fast < 0 or (self.fast and self.fast >= self.simulations):
            raise InputError(
                f"fast_simulations is {self.fast}; give 0 (off) or a number below simulations, "
                f"which is {self.simulations}"
            )
        if not 0 < self.full_share <= 1:
            raise InputError(f"full_share is {self.full_share}; give a share above 0 and at most 1")
        if self.full_share < 1 and not self.fast:
            raise InputError(
                f"full_share is {self.full_share} and fast_simulations is 0, which turns fast searches off; "
                "give both or neither"
            )

    def draw(self, rng: np.random.Generator) -> bool:
        """Whether the next search is a full one."""
        return self.full_share == 1.0 or bool(rng.random() < self.full_share)


class MoveSession(TreeSession):
    """Arrays are over places: ``_row`` state that a game has come to; ``_goal`` solution it walks to, NONE
    while none is known; ``_carried`` simulations already made below the state; ``_full`` whether the search
    there is a full one; ``_cap`` and ``_until`` are tokens of the game and the instant at which the search is
    to end; ``_stuck`` whether the game could not pay for the last token of its answer. ``_moving`` are the
    places that wait for their next search.
    """

    def __init__(self, table: Table, config: SearchConfig, caps: Caps, gather_visits: int) -> None:
        places = table.places
        self._pool = SearchPool(places, config)
        super().__init__(table, self._pool, config)
        self._config = config
        self._caps = caps
        self._gather_visits = gather_visits
        self._row = np.full(places, NONE, np.int64)
        self._goal = np.full(places, NONE, np.int64)
        self._carried = np.zeros(places, np.int64)
        self._full = np.ones(places, np.bool_)
        self._cap = np.zeros(places, np.int64)
        self._until = np.full(places, np.inf)
        self._stuck = np.zeros(places, np.bool_)
        self._moving = np.zeros(0, np.int64)
        self._forward_s = 0.0
        self._one_length = _one_length(config, caps)

    def _opened(self, places: Ids, rows: Ids) -> None:
        self._row[places] = rows
        self._goal[places] = NONE
        self._carried[places] = 0
        self._stuck[places] = False
        if self._moving.size or places.size:
            self._plant(np.concatenate([self._moving, places]))
            self._moving = self._moving[:0]

    def _go_on(self) -> None:
        if not self._limited:
            self._turn()
            return
        self._end_searches()
        started, paid = self._shared.clock(), self._evaluator.ledger.decode_tokens
        self._turn()
        if self._evaluator.ledger.decode_tokens > paid:
            self._forward_s = self._shared.clock() - started

    def _turn(self) -> None:
        due = self._pool.ended()
        if due.size < self._enough() and self._pool.step(self._evaluator):
            return
        if not due.size:
            return
        self._advance(due)
        table = self._evaluator.table
        over = table.terminal[self._row[due]] | self._stuck[due]
        for place in due[~over].tolist():
            if self._seat(place).asked.on_tokens is not None:
                self._seat(place).tell(table.answer(int(self._row[place])))
        self._moving = np.concatenate([self._moving, due[~over]])
        if over.any():
            self._finish(due[over])

    def _enough(self) -> int:
        # Searches of one length end together anyway.
        if self._shared.together and self._one_length and not self._limited:
            return len(self._taken)
        return super()._enough()

    def _cut(self, places: Ids) -> None:
        found = self._pool.solved(places) & self._config.stop_on_solution
        if found.any():
            self._advance(places[found])  # which forwards nothing
        for place in places.tolist():
            self._kept.keep(place, self._seat(place).game)
        made = self._pool.forget(places)
        for place, simulations in zip(places.tolist(), made.tolist(), strict=True):
            self._seat(place).game.simulations += simulations
        self._finish(places)

    def _leave(self, places: Ids) -> None:
        super()._leave(places)
        self._moving = self._moving[~np.isin(self._moving, places)]

    def _plant(self, places: Ids) -> None:
        """Begin the search of the position that the game in each of ``places`` i64 [R] has come to."""
        self._full[places] = [self._caps.draw(self._seat(place).asked.rng) for place in places.tolist()]
        wanted = np.where(self._full[places], self._caps.simulations, self._caps.fast)
        allowed = self._allowed(places, wanted) if self._limited else wanted
        # Known simulations are made again before the new ones: without new ones the prior is to decide.
        carried = np.where((allowed == 0) & (wanted > 0), 0, self._carried[places])
        for full in (True, False):
            pick = self._full[places] == full
            chosen = places[pick]
            if not chosen.size:
                continue
            root = self._evaluator.roots(self._row[chosen])
            rngs = [self._seat(place).asked.rng for place in chosen.tolist()]
            self._pool.plant(
                chosen,
                root,
                gumbel=_gumbel(root.actions, rngs, self._config) if full else None,
                dirichlet=_dirichlet(root.actions, rngs, self._config) if full else None,
                simulations=allowed[pick],
                carried=carried[pick] if self._config.reuse_subtree else None,
            )
            self._watch(chosen)

    def _allowed(self, places: Ids, wanted: Ids) -> Ids:
        """Simulations that fit into the share of the next move in ``places`` i64 [R], at most ``wanted`` i64
        [R]: each costs a state at most, and the move itself may cost one. In time, too, there has to be room
        for a step of the search and for the move."""
        evaluator = self._evaluator
        moves = evaluator.moves(self._row[places])
        dear = evaluator.dearest(places)
        left = self._left(places)
        tokens = np.maximum(0, np.minimum(2 * (left // (moves + 1)), left - (moves - 1) * dear) - dear)
        self._cap[places] = evaluator.spent[places] + tokens
        now = self._shared.clock()
        seconds = 2 * (self._deadline[places] - now) / (moves + 1)
        self._until[places] = now + seconds
        return np.where(seconds < 2 * self._forward_s, 0, np.minimum(wanted, tokens // dear))

    def _end_searches(self) -> None:
        """End searches that have used up their share, or might by another step and the move."""
        places = np.flatnonzero(self._taken)
        left = self._pool.left(places)
        step = np.minimum(left, self._config.leaves) * self._evaluator.dearest(places)
        poor = self._evaluator.spent[places] + step > self._cap[places]
        late = self._shared.clock() + 2 * self._forward_s > self._until[places]
        self._pool.finish(places[(left > 0) & (poor | late)])

    def _advance(self, places: Ids) -> None:
        """Record the searches in ``places`` i64 [R], and move each game on: by its search's choice, or on the
        way to a known solution. What lies beside the move is forgotten.
        """
        evaluator, rows = self._evaluator, self._row[places]
        uniform = None
        if self._config.method == "puct":
            uniform = np.asarray([self._seat(place).asked.rng.random() for place in places.tolist()])
        result = self._pool.answer(places, uniform=uniform)
        for index, place in enumerate(places.tolist()):
            self._kept.keep(place, self._seat(place).game, result.weights[index])
        goals = np.where(self._goal[places] == NONE, result.solution_state, self._goal[places])
        slots = _committed(evaluator, result, rows, goals)
        if self._gather_visits:
            for index in np.flatnonzero(self._full[places]).tolist():
                game = self._seat(int(places[index])).game
                gather(self._pool, result, index, int(slots[index]), game, self._gather_visits)
        self._record(result, places, slots)
        chosen, visits = _taken(result.actions, slots), _taken(result.visits, slots)
        self._carried[places] = np.maximum(visits - 1, 0)
        self._goal[places] = goals
        going = (goals == NONE) | (not self._config.stop_on_solution)
        self._row[places] = goals
        if going.any():
            self._row[places[going]] = self._moved(places[going], rows[going], chosen[going])

    def _moved(self, places: Ids, rows: Ids, chosen: Ids) -> Ids:
        """The states after the moves ``chosen`` from ``rows`` (all i64 [R]), forwarded where they were not
        and that can be paid for; i64 [R]."""
        evaluator = self._evaluator
        following = np.empty(len(rows), np.int64)
        poor = np.zeros(len(rows), np.bool_)
        if self._limited:
            poor = self._left(places) < evaluator.dearest(places)
        if poor.any():
            following[poor], known = evaluator.append(rows[poor], chosen[poor])
            self._stuck[places[poor]] = ~known
        if not poor.all():
            following[~poor] = evaluator.expand(rows[~poor], chosen[~poor]).states
        evaluator.keep(following)
        return following

    def _record(self, result: SearchResult, places: Ids, slots: Ids) -> None:
        table, rows = self._evaluator.table, self._row[places]
        width = table.actions.shape[1]  # the search pads its answer to the slots it was told
        moves = zip(
            places.tolist(),
            result.simulations.tolist(),
            result.depth.tolist(),
            result.actions[:, :width],
            result.weights[:, :width],
            result.visits[:, :width],
            result.q[:, :width],
            np.exp(table.logits[rows]),
            result.value.tolist(),
            _taken(result.actions, slots).tolist(),
            table.responsibility[rows, slots],
            self._full[places].tolist(),
            [table.responsibility[row].copy() if table.asked[row] else None for row in rows.tolist()],
            strict=True,
        )
        for place, simulations, depth, *move in moves:
            game = self._seat(place).game
            game.depth = max(game.depth, len(game.moves) + depth)
            game.simulations += simulations
            game.moves.append(Move(*move))

    def _finish(self, places: Ids) -> None:
        """Take the answers of the games in ``places`` i64 [R], which have ended."""
        table = self._evaluator.table
        for place, row in zip(places.tolist(), self._row[places].tolist(), strict=True):
            game, ended = self._seat(place).game, bool(table.terminal[row])
            game.tokens = table.answer(row)
            game.text = self._evaluator.text(row).strip()
            game.end = self._evaluator.end(row) if ended else "budget"
            game.terminal_value = float(table.value[row])
            if self._shared.verified_by == "public":
                game.verdict = (game.terminal_value + 1.0) / 2.0 if ended else 0.0
            game.value = game.moves[0].value if game.moves else game.terminal_value
        self._hand_out(places)


def _gumbel(actions: Ids, rngs: Sequence[np.random.Generator], config: SearchConfig) -> F32 | None:
    """Root noise f32 [R, K] of the Gumbel method, a row from each game's own stream."""
    if config.method != "gumbel" or config.gumbel_scale == 0:
        return None
    noise = [rng.gumbel(size=actions.shape[1]) for rng in rngs]
    return (config.gumbel_scale * np.asarray(noise)).astype(np.float32)


def _dirichlet(
    actions: Ids, rngs: Sequence[np.random.Generator], config: SearchConfig
) -> npt.NDArray[np.float64] | None:
    """Root noise f64 [R, K] of PUCT over the slots in use, a row from each game's own stream."""
    if config.method != "puct" or config.dirichlet_fraction == 0:
        return None
    noise = np.zeros(actions.shape)
    for row, rng in enumerate(rngs):
        used = np.flatnonzero(actions[row] >= 0)
        noise[row, used] = rng.dirichlet(np.full(used.size, config.dirichlet_alpha))
    return noise


def _taken(array: npt.NDArray[np.integer[Any]], slots: Ids) -> Ids:
    """The element of each row of ``array`` [R, K] at its slot, i64 [R]."""
    return array[np.arange(len(slots)), slots].astype(np.int64)


def _committed(evaluator: LeafEvaluator, result: SearchResult, rows: Ids, goals: Ids) -> Ids:
    """Root slot each game commits to, i64 [R]: the next step towards a solution once one is known, else the
    search's choice. Every position on the way is still searched, so that it can be learnt from.
    """
    table, slots = evaluator.table, result.chosen.copy()
    for index in np.flatnonzero(goals != NONE).tolist():
        step = int(goals[index])
        while table.parent[step] != rows[index]:
            step = int(table.parent[step])
        slots[index] = np.flatnonzero(result.actions[index] == table.token[step])[0]
    return slots


def _one_length(config: SearchConfig, caps: Caps) -> bool:
    """Whether every search makes the same number of simulations, a solved or settled tree apart."""
    early = (
        config.stop_on_solution or config.skip_exhausted or config.smart_pruning or config.min_kld_gain > 0
    )
    return not early and not caps.fast and not config.reuse_subtree
