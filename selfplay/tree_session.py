"""Games of tree search in a fixed number of places: who waits, who plays where, what may still be spent, and
when time is up.

Whichever search plays in the places, games begin, end, and are dropped alike. It does not know what a search
is: see ``move_session`` and ``frontier_session``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.game import Game, VerifiedBy
from tokenzero.selfplay.kept_trees import KeptTrees, Watchable, mark_answer
from tokenzero.selfplay.place_costs import UNLIMITED
from tokenzero.selfplay.session import Asked

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """What all games of a session share: ``evaluator``, ``places``, the ``ledger`` to pay into, ``clock``,
    who verifies answers (``verified_by``), and whether games wait ``together``.

    Commits and prefills of many games at once cost less than the places that wait for them, so where only the
    time for all matters games are served together; where somebody waits for each they are served soon.
    """

    evaluator: LeafEvaluator
    places: int
    ledger: Ledger
    clock: Callable[[], float]
    verified_by: VerifiedBy
    together: bool


class Pool(Watchable, Protocol):
    """What a session asks of either pool of searches."""

    def ended(self) -> Ids: ...

    def forget(self, places: Ids) -> Ids: ...


@dataclass(slots=True)
class Seat:
    """A game, waiting or in play; ``told`` of its answer's tokens were passed on already."""

    number: int
    asked: Asked
    game: Game
    told: int = 0

    def tell(self, answer: Sequence[int]) -> None:
        """Pass on what is new of the ``answer`` so far."""
        if self.asked.on_tokens is not None and len(answer) > self.told:
            self.asked.on_tokens(list(answer[self.told :]))
            self.told = len(answer)


class TreeSession(ABC):
    """A `Session`. Arrays are over places: ``_taken``; ``_tokens`` that a game may forward, ``_deadline``.

    Each step begins games in free places, and then either goes on with all searches by one batch of new
    states, or moves on the games whose searches are over. Each of the two forwards once at most, and the
    clock is looked at before each: whoever's time is up is handed out without another forward.
    """

    def __init__(self, table: Table, pool: Pool, config: SearchConfig) -> None:
        self._evaluator = table.evaluator
        self._kept = KeptTrees(pool, table.evaluator, config)
        self._shared = table
        self._searches = pool
        self._waiting: deque[Seat] = deque()
        self._seats: list[Seat | None] = [None] * table.places
        self._taken = np.zeros(table.places, np.bool_)
        self._tokens = np.full(table.places, UNLIMITED, np.int64)
        self._deadline = np.full(table.places, np.inf)
        self._limited = False  # whether any game ever had a budget: most sessions never look
        self._numbered = 0
        self._simulations = 0
        self._seconds = 0.0
        self._over: list[tuple[int, Game]] = []

    @property
    def live(self) -> int:
        """Games that wait or are in play."""
        return len(self._waiting) + int(self._taken.sum()) + len(self._over)

    def add(self, asked: Sequence[Asked]) -> list[int]:
        """See `Session.add`; a problem that is not the task's is refused as well, and a budget below 1."""
        prompts = [self._evaluator.read(one.problem) for one in asked]
        for one in asked:
            if one.tokens is not None and one.tokens < 1:
                raise InputError(f"a budget of {one.tokens} tokens is none; give at least 1")
        first = self._numbered
        self._numbered += len(asked)
        for number, (one, prompt) in enumerate(zip(asked, prompts, strict=True), first):
            self._limited |= one.tokens is not None or one.deadline is not None
            self._waiting.append(Seat(number, one, Game(one.problem, prompt)))
        return list(range(first, self._numbered))

    def step(self) -> list[tuple[int, Game]]:
        """See `Session.step`."""
        started = time.perf_counter()
        for forward in (self._begin, self._go_on):
            if self._limited and self._expire():
                break
            forward()
        self._seconds += time.perf_counter() - started
        over, self._over = self._over, []
        return over

    def drop(self, numbers: Sequence[int]) -> None:
        """See `Session.drop`."""
        gone = set(numbers)
        self._waiting = deque(seat for seat in self._waiting if seat.number not in gone)
        places = [place for place, seat in enumerate(self._seats) if seat and seat.number in gone]
        if places:
            at = np.asarray(places, np.int64)
            self._abandon(at)
            self._evaluator.shut(at)

    def close(self) -> None:
        """See `Session.close`."""
        self._waiting.clear()
        self._over.clear()
        self._abandon(np.flatnonzero(self._taken))
        ledger = self._shared.ledger
        ledger.add(self._evaluator.close())
        ledger.simulations += self._simulations
        ledger.wall_s += self._seconds

    @abstractmethod
    def _opened(self, places: Ids, rows: Ids) -> None:
        """Games began in ``places`` i64 [R], at the states ``rows`` i64 [R]; searches are to begin wherever
        they may."""

    @abstractmethod
    def _go_on(self) -> None:
        """One batch of new states for all searches, or, where that is due, on with games whose searches are
        over."""

    @abstractmethod
    def _cut(self, places: Ids) -> None:
        """End the games in ``places`` i64 [R] now, with what they have come to."""

    def _seat(self, place: int) -> Seat:
        seat = self._seats[place]
        assert seat is not None
        return seat

    def _begin(self) -> None:
        """Begin the next games of the queue in free places."""
        free = np.flatnonzero(~self._taken)
        seats: list[Seat] = []
        while self._waiting and len(seats) < len(free):
            seat = self._waiting.popleft()
            budget = seat.asked.tokens
            if budget is not None and budget < self._evaluator.entry(seat.asked.problem, seat.game.prompt):
                self._refuse(seat)
            else:
                seats.append(seat)
        places = free[: len(seats)]
        rows = np.zeros(0, np.int64)
        if seats:
            asked = [seat.asked for seat in seats]
            rows = self._evaluator.open(
                places,
                [one.problem for one in asked],
                [one.rng for one in asked],
                [seat.number for seat in seats],
                [seat.game.prompt for seat in seats],
                [one.tokens for one in asked],
            )
            self._taken[places] = True
            self._tokens[places] = [UNLIMITED if one.tokens is None else one.tokens for one in asked]
            self._deadline[places] = [np.inf if one.deadline is None else one.deadline for one in asked]
            for place, seat in zip(places.tolist(), seats, strict=True):
                self._seats[place] = seat
        self._opened(places, rows)

    def _expire(self) -> bool:
        """End the games whose time is up; whether there were any."""
        now, waiting = self._shared.clock(), deque[Seat]()
        for seat in self._waiting:
            if seat.asked.deadline is not None and seat.asked.deadline <= now:
                self._refuse(seat)
            else:
                waiting.append(seat)
        self._waiting = waiting
        late = np.flatnonzero(self._taken & (self._deadline <= now))
        if late.size:
            self._cut(late)
        return bool(self._over)

    def _refuse(self, seat: Seat) -> None:
        """A game that cannot even begin within its budget."""
        seat.game.end = "budget"
        if self._shared.verified_by == "public":
            seat.game.verdict, seat.game.verified_by = 0.0, "public"
        self._over.append((seat.number, seat.game))

    def _hand_out(self, places: Ids) -> None:
        """The games in ``places`` i64 [R] are complete; free what they hold."""
        for place in places.tolist():
            seat = self._seat(place)
            game = seat.game
            game.verified_by = self._shared.verified_by
            game.ledger = self._evaluator.costs.ledger(place)
            game.ledger.simulations = game.simulations
            game.steps = self._evaluator.steps(place)
            game.forwarded = game.ledger.prefill_tokens + game.ledger.decode_tokens + game.ledger.value_tokens
            self._simulations += game.simulations
            mark_answer(game)
            seat.tell(game.tokens)
            self._over.append((seat.number, game))
        self._evaluator.shut(places)
        self._leave(places)

    def _abandon(self, places: Ids) -> None:
        """Give up the games in ``places`` i64 [R]; their simulations stay counted."""
        self._simulations += int(self._searches.forget(places).sum())
        self._simulations += sum(self._seat(place).game.simulations for place in places.tolist())
        self._leave(places)

    def _leave(self, places: Ids) -> None:
        self._taken[places] = False
        self._deadline[places] = np.inf
        for place in places.tolist():
            self._seats[place] = None
            self._kept.drop(place)

    def _watch(self, places: Ids) -> None:
        """Watch the searches just planted in ``places`` i64 [R] whose trees are wanted."""
        for place in places.tolist():
            if self._seat(place).asked.keep_tree:
                self._kept.watch(place)

    def _left(self, places: Ids) -> Ids:
        """Tokens that the games in ``places`` i64 [R] may still forward, i64 [R]."""
        return self._tokens[places] - self._evaluator.spent[places]

    def _enough(self) -> int:
        """Games whose searches are over that are worth a commit."""
        served = len(self._taken) if self._shared.together else int(self._taken.sum())
        return max(1, -(-served // 4))
