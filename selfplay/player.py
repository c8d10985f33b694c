"""A Player: an evaluator plus a search config, playing problems to the end.

Games are played in a fixed number of places; when one ends, the next problem of the queue begins in its
place, so that forwards stay full until the queue is empty (continuous batching). Self-play is a Player that
explores and records; test-time inference is a Player that does neither; the arena is two Players. With zero
simulations a Player is the raw policy: greedy with ``gumbel_scale`` 0, sampling with 1. It does not score
against gold answers (a ``Grader`` handed in by self-play may) and does not learn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, SearchConfig
from tokenzero.mcts.answer import SearchResult
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.pool import SearchPool
from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.selfplay.frontier_player import FrontierQueue
from tokenzero.selfplay.game import Game, Move
from tokenzero.selfplay.gathering import gather
from tokenzero.selfplay.outcomes import Grader
from tokenzero.selfplay.session import PLACES, Budget, Method, Session
from tokenzero.tasks import PublicProblem

F32 = npt.NDArray[np.float32]


class Player(Method):
    """Plays problems with one search configuration, ``games_in_flight`` at a time.

    Playout cap randomisation (Wu, arXiv:1902.10565, section 3.1) is on when ``fast_simulations`` is above 0:
    each move is searched in full with probability ``full_share``, and otherwise with ``fast_simulations``
    simulations and without noise at the root.

    With ``gather_visits`` above 0 a game keeps what its searches say of every state with that many visits,
    for targets off the played path (see ``gathering``).

    ``on_games(n)`` is called as games finish, for progress bars. ``ledger`` is the total over everything
    played.
    """

    def __init__(
        self,
        parts: Parts,
        search_config: SearchConfig,
        leaf: LeafConfig | None = None,
        *,
        games_in_flight: int = 512,
        fast_simulations: int = 0,
        full_share: float = 1.0,
        gather_visits: int = 0,
    ) -> None:
        if games_in_flight < 1:
            raise InputError(f"games_in_flight is {games_in_flight}; give at least 1")
        self.ledger = Ledger()
        self.name = search_config.method
        self._parts = parts
        self._config = search_config
        self._leaf = leaf or LeafConfig()
        self._in_flight = games_in_flight
        self._gather_visits = gather_visits
        self._caps = Caps(search_config.simulations, fast_simulations, full_share)

    def session(self, places: int = PLACES, clock: Callable[[], float] = time.monotonic) -> Session:
        raise NotImplementedError

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        budget: Budget | None = None,
        grader: Grader | None = None,
        on_games: Callable[[int], None] | None = None,
    ) -> list[Game]:
        """Play every problem; the games come back in the problems' order.

        Each game has a random stream of its own, spawned from ``rng``, so it does not depend on which others
        run beside it. ``grader`` knows a game by the index of its problem.
        """
        if not problems:
            return []
        places = min(self._in_flight, len(problems))
        started = time.perf_counter()
        evaluator = LeafEvaluator(self._parts, self._leaf, self._config.candidates, places, grader)
        public = self._parts.task.public_verifier
        queue: _Queue | FrontierQueue
        if self._config.method == "frontier":
            config = self._lazily(self._frontier_config(public or grader is not None))
            queue = FrontierQueue(evaluator, config, problems, rng, places, public)
        else:
            config = self._lazily(self._config)
            queue = _Queue(evaluator, config, self._caps, problems, rng, places, public)
            queue.gather_visits = self._gather_visits
        try:
            queue.play(on_games)
        finally:  # also when a verifier or the model fails: the engine serves others after us
            self.ledger.add(evaluator.close())
            self.ledger.simulations += sum(game.simulations for game in queue.games)
            self.ledger.wall_s += time.perf_counter() - started
        return queue.games

    def _lazily(self, config: SearchConfig) -> SearchConfig:
        """The config with the visits at which teachers are asked, where they are asked late."""
        ensemble = self._parts.ensemble
        late = ensemble is not None and ensemble.beta > 0 and ensemble.config.visits > 1
        return replace(config, revise_visits=ensemble.config.visits) if ensemble and late else config

    def _frontier_config(self, verified: bool) -> SearchConfig:
        """The config with the longest answer in it. Raises InputError where nobody can verify an answer."""
        if not verified:
            raise InputError(
                f"method frontier needs to know a solution when it has one, and {self._parts.task.name} has "
                "no public verifier; use method gumbel or puct"
            )
        longest = self._config.max_depth or self._parts.task.max_answer_tokens
        return replace(self._config, max_depth=longest)


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


class _Queue:
    """Problems waiting, and P places in which games are played. Arrays are over places.

    ``_game`` index of the game in a place; ``_row`` state it has come to; ``_goal`` solution it walks to,
    NONE while none is known; ``_carried`` simulations already made below the state; ``_full`` whether the
    search there is a full one.
    """

    def __init__(
        self,
        evaluator: LeafEvaluator,
        config: SearchConfig,
        caps: Caps,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        places: int,
        public: bool,
    ) -> None:
        self.games: list[Game] = []
        self.gather_visits = 0
        self._public = public
        self._evaluator = evaluator
        self._config = config
        self._caps = caps
        self._problems = problems
        self._rng = rng
        self._rngs = [rng] * places  # each replaced by its game's own
        self._pool = SearchPool(places, config)
        self._game = np.full(places, NONE, np.int64)
        self._row = np.full(places, NONE, np.int64)
        self._goal = np.full(places, NONE, np.int64)
        self._carried = np.zeros(places, np.int64)
        self._full = np.ones(places, np.bool_)
        # Commits and prefills of many games at once cost less than the places that wait for them; searches of
        # one length end together anyway.
        self._enough = places if _one_length(config, caps) else -(-places // 4)

    def play(self, on_games: Callable[[int], None] | None) -> None:
        """Play until no problem is left; ``games`` then holds them in the problems' order."""
        finished = 0
        self._plant(self._open(np.arange(len(self._game))))
        while finished < len(self._problems):
            ended = self._pool.ended()
            if ended.size < self._enough and self._pool.step(self._evaluator):
                continue
            self._commit(ended)
            over = self._evaluator.table.terminal[self._row[ended]]
            if over.any():
                self._finish(ended[over])
                finished += int(over.sum())
                if on_games is not None:
                    on_games(int(over.sum()))
            self._plant(np.concatenate([ended[~over], self._open(ended[over])]))

    def _open(self, free: Ids) -> Ids:
        """Begin the next games of the queue in ``free`` places, i64 [R]; returns the places that got one."""
        first = len(self.games)
        places = free[: len(self._problems) - first]
        if not places.size:
            return places
        problems = self._problems[first : first + len(places)]
        rngs = self._rng.spawn(len(places))
        numbers = np.arange(first, first + len(places))
        self._row[places] = self._evaluator.open(places, problems, rngs, numbers.tolist())
        self._game[places] = numbers
        self._goal[places] = NONE
        self._carried[places] = 0
        for place, own in zip(places.tolist(), rngs, strict=True):
            self._rngs[place] = own
        prompts = [self._evaluator.prompt(place) for place in places.tolist()]
        self.games += [Game(problem, prompt) for problem, prompt in zip(problems, prompts, strict=True)]
        return places

    def _plant(self, places: Ids) -> None:
        """Begin the search of the position that the game in each of ``places`` i64 [R] has come to."""
        self._full[places] = [self._caps.draw(self._rngs[place]) for place in places.tolist()]
        for full in (True, False):
            chosen = places[self._full[places] == full]
            if not chosen.size:
                continue
            budget = self._caps.simulations if full else self._caps.fast
            root = self._evaluator.roots(self._row[chosen])
            rngs = [self._rngs[place] for place in chosen.tolist()]
            self._pool.plant(
                chosen,
                root,
                gumbel=_gumbel(root.actions, rngs, self._config) if full else None,
                dirichlet=_dirichlet(root.actions, rngs, self._config) if full else None,
                simulations=np.full(len(chosen), budget, np.int64),
                carried=self._carried[chosen] if self._config.reuse_subtree else None,
            )

    def _commit(self, places: Ids) -> None:
        """Record the searches in ``places`` i64 [R], and move each game on: by its search's choice, or on the
        way to a known solution. What lies beside the move is forgotten.
        """
        evaluator, rows = self._evaluator, self._row[places]
        uniform = None
        if self._config.method == "puct":
            uniform = np.asarray([self._rngs[place].random() for place in places.tolist()])
        result = self._pool.answer(places, uniform=uniform)
        goals = np.where(self._goal[places] == NONE, result.solution_state, self._goal[places])
        slots = _committed(evaluator, result, rows, goals)
        if self.gather_visits:
            for index in np.flatnonzero(self._full[places]).tolist():
                game = self.games[int(self._game[places[index]])]
                gather(self._pool, result, index, int(slots[index]), game, self.gather_visits)
        self._record(result, places, slots)
        chosen, visits = _taken(result.actions, slots), _taken(result.visits, slots)
        self._carried[places] = np.maximum(visits - 1, 0)
        self._goal[places] = goals
        going = (goals == NONE) | (not self._config.stop_on_solution)
        self._row[places] = goals
        if going.any():
            following = evaluator.expand(rows[going], chosen[going]).states
            evaluator.keep(following)
            self._row[places[going]] = following

    def _record(self, result: SearchResult, places: Ids, slots: Ids) -> None:
        table, rows = self._evaluator.table, self._row[places]
        width = table.actions.shape[1]  # the search pads its answer to the slots it was told
        moves = zip(
            self._game[places].tolist(),
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
        for index, simulations, depth, *move in moves:
            game = self.games[index]
            game.depth = max(game.depth, len(game.moves) + depth)
            game.simulations += simulations
            game.moves.append(Move(*move))

    def _finish(self, places: Ids) -> None:
        """Take the answers of the games in ``places`` i64 [R], which have ended, and free what they hold."""
        table = self._evaluator.table
        spent = self._evaluator.spent[places].tolist()
        for index, row, forwarded in zip(
            self._game[places].tolist(), self._row[places].tolist(), spent, strict=True
        ):
            game = self.games[index]
            game.tokens = table.answer(row)
            game.text = self._evaluator.text(row).strip()
            game.forwarded = forwarded
            game.terminal_value = float(table.value[row])
            if self._public:
                game.verdict = (game.terminal_value + 1.0) / 2.0
            game.value = game.moves[0].value
        self._evaluator.shut(places)


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
