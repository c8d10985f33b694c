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
from dataclasses import replace

import numpy as np

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.selfplay.frontier_session import FrontierSession
from tokenzero.selfplay.game import Game, VerifiedBy
from tokenzero.selfplay.move_session import Caps, MoveSession
from tokenzero.selfplay.outcomes import Grader
from tokenzero.selfplay.session import Budget, Method, OnGames, Session, play_all
from tokenzero.selfplay.stand_in import StandIn
from tokenzero.selfplay.tree_session import Table
from tokenzero.tasks import PublicProblem

EvaluatorFactory = Callable[[Parts, LeafConfig, int, int, Grader | None, StandIn | None], LeafEvaluator]
"""(parts, leaf, candidates, places, grader, stand_in) -> what evaluates the leaves of a session."""


class Player(Method):
    """Plays problems with one search configuration, ``games_in_flight`` at a time.

    Playout cap randomisation (Wu, arXiv:1902.10565, section 3.1) is on when ``fast_simulations`` is above 0:
    each move is searched in full with probability ``full_share``, and otherwise with ``fast_simulations``
    simulations and without noise at the root.

    With ``gather_visits`` above 0 a game keeps what its searches say of every state with that many visits,
    for targets off the played path (see ``gathering``).

    Frontier search has to know a solution when it has one. Where the task has no public verifier, and no
    grader is given, the judge of the parts stands in for it, or the value of a finished answer from
    ``stand_in`` on; ``Game.verified_by`` says so.

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
        stand_in: float | None = None,
        evaluator: EvaluatorFactory = LeafEvaluator,
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
        self._stand_in = stand_in
        self._evaluator = evaluator
        self._caps = Caps(search_config.simulations, fast_simulations, full_share)

    def session(self, places: int | None = None, clock: Callable[[], float] = time.monotonic) -> Session:
        """As `Method.session`; without ``places`` there are ``games_in_flight``. Raises InputError where
        nobody can verify an answer of frontier search."""
        return self._session(self._in_flight if places is None else places, clock)

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        budget: Budget | None = None,
        grader: Grader | None = None,
        on_games: OnGames | None = None,
    ) -> list[Game]:
        """Play every problem; the games come back in the problems' order.

        Each game has a random stream of its own, spawned from ``rng``, so it does not depend on which others
        run beside it. ``grader`` knows a game by the index of its problem.
        """
        if not problems:
            return []
        places = min(self._in_flight, len(problems))
        session = self._session(places, time.monotonic, grader, together=True)
        return play_all(session, problems, rng, budget, on_games)

    def _session(
        self,
        places: int,
        clock: Callable[[], float],
        grader: Grader | None = None,
        together: bool = False,
    ) -> Session:
        if places < 1:
            raise InputError(f"places is {places}; give at least 1")
        stand_in = self._substitute(grader)
        evaluator = self._evaluator(
            self._parts, self._leaf, self._config.candidates, places, grader, stand_in
        )
        verified_by: VerifiedBy = "" if stand_in is None else stand_in.name
        if self._parts.task.public_verifier:
            verified_by = "public"
        table = Table(evaluator, places, self.ledger, clock, verified_by, together)
        config = self._lazily(self._config)
        if config.method == "frontier":
            longest = config.max_depth or self._parts.task.max_answer_tokens
            return FrontierSession(table, replace(config, max_depth=longest))
        return MoveSession(table, config, self._caps, self._gather_visits)

    def _lazily(self, config: SearchConfig) -> SearchConfig:
        """The config with the visits at which teachers are asked, where they are asked late."""
        ensemble = self._parts.ensemble
        late = ensemble is not None and ensemble.beta > 0 and ensemble.config.visits > 1
        return replace(config, revise_visits=ensemble.config.visits) if ensemble and late else config

    def _substitute(self, grader: Grader | None) -> StandIn | None:
        """Who verifies answers of frontier search where neither task nor grader does. Raises InputError where
        nobody can."""
        verified = self._parts.task.public_verifier or grader is not None
        if verified or self._config.method != "frontier":
            return None
        if self._parts.judge is None and self._stand_in is None:
            raise InputError(
                f"method frontier needs to know a solution when it has one, and {self._parts.task.name} has "
                "no public verifier; give stand_in (a value from -1 to 1) or a judge, or use method gumbel "
                "or puct"
            )
        return StandIn(self._parts.judge, self._stand_in)
