"""The one thread that owns the model, and the queue before it.

Requests of equal settings share a session, and with it every forward; the sessions take turns. The rest of
the server hands in tickets and chores and waits for their futures; it never touches the model. Nothing here
knows HTTP or text.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.session import Method
from tokenzero.server.tickets import Chore, Closed, Full, Playing, Ticket, broken, settle

log = logging.getLogger("tokenzero.server")
T = TypeVar("T")
LONGEST_WAIT = 60


class Conductor:
    """Owns the sessions of ``method_of(group)``. At most ``places`` games are in play over all of them, at
    most ``waiting`` more are taken, at most ``sessions`` groups are open at a time.

    ``on_game(ticket, game)`` is called from its thread, for measurements.
    """

    def __init__(
        self,
        method_of: Callable[[Any], Method],
        *,
        places: int = 64,
        waiting: int = 1024,
        sessions: int = 8,
        idle_s: float = 60.0,
        on_game: Callable[[Ticket, Game], None] = lambda ticket, game: None,
    ) -> None:
        self._method_of = method_of
        self._places, self._room, self._most_sessions = places, places + waiting, sessions
        self._idle_s = idle_s
        self._on_game = on_game
        self._thread = threading.Thread(target=self._run, name="tokenzero-conductor", daemon=True)
        self._wake = threading.Condition()
        # Shared with callers, under the lock of _wake:
        self._arrived: list[Ticket] = []
        self._gone: list[Ticket] = []
        self._new_chores: list[Chore[Any]] = []
        self._taken = 0
        self._draining = self._closing = False
        # The thread's own:
        self._waiting: deque[Ticket] = deque()
        self._chores: deque[Chore[Any]] = deque()
        self._playing: dict[Hashable, Playing] = {}
        self._seconds = 1.0  # a running mean of how long a game takes

    # ---- for callers, on any thread

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take all of ``tickets``, or none: raises Full or Closed."""
        with self._wake:
            self._refuse_when_closed()
            if self._taken + len(tickets) > self._room:
                turns = self._taken / self._places
                raise Full(max(1, min(LONGEST_WAIT, math.ceil(turns * self._seconds))))
            self._taken += len(tickets)
            self._arrived += tickets
            self._wake.notify()

    def call(self, work: Generator[None, None, T]) -> Future[T]:
        """Run ``work`` between the steps of the games, one ``next`` at a time; the future holds what it
        returns, InputError, or Broken. Cancelling the future ends the work. Raises Full or Closed.
        """
        with self._wake:
            self._refuse_when_closed()
            if len(self._new_chores) + len(self._chores) >= self._room:
                raise Full(1)
            chore = Chore(work)
            self._new_chores.append(chore)
            self._wake.notify()
        return chore.result

    def drop(self, tickets: Sequence[Ticket]) -> None:
        """Forget tickets that nobody waits for any more; finished ones are ignored."""
        with self._wake:
            self._gone += tickets
            self._wake.notify()

    def drain(self) -> None:
        """Take nothing new; what was taken is finished."""
        with self._wake:
            self._draining = True

    def close(self) -> None:
        """Stop. What was taken and is unfinished fails with Closed."""
        with self._wake:
            self._draining = self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether new work is taken."""
        return self._thread.is_alive() and not self._draining

    @property
    def taken(self) -> int:
        """Games that wait or are in play."""
        return self._taken

    @property
    def in_play(self) -> int:
        """Games in play."""
        return sum(len(playing.tickets) for playing in list(self._playing.values()))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to finish."""
        return not (self._taken or self._chores or self._new_chores)

    def _refuse_when_closed(self) -> None:
        if self._draining:
            raise Closed("the server is stopping")

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._listen():
                self._begin()
                self._do_chore()
                for group in list(self._playing):
                    self._step(group)
                self._close_idle()
        finally:
            self._give_up()

    def _listen(self) -> bool:
        """Wait for something to do and take it in; False when it is time to end."""
        with self._wake:
            if not (self._waiting or self._chores or self.in_play):
                while not (self._arrived or self._gone or self._new_chores or self._closing):
                    if not self._wake.wait(self._idle_s if self._playing else None):
                        break
            gone, self._gone = self._gone, []
            self._waiting += self._arrived
            self._chores += self._new_chores
            self._arrived, self._new_chores = [], []
            closing = self._closing
        self._forget(gone)
        return not closing

    def _forget(self, gone: Sequence[Ticket]) -> None:
        for ticket in gone:
            playing = self._playing.get(ticket.group)
            if ticket.number is None:
                ticket.dropped = True  # it may wait; _begin passes it over
            elif playing is not None and playing.tickets.get(ticket.number) is ticket:
                del playing.tickets[ticket.number]
                self._end(ticket)
                try:
                    playing.session.drop([ticket.number])
                except Exception as error:  # noqa: BLE001  whatever it is, only this session is broken
                    self._fail(ticket.group, error)

    def _begin(self) -> None:
        """Let waiting tickets into their sessions, first come first served; a group that finds no session
        free waits, and others pass by. What waits beyond its deadline gets an empty answer, at no cost.
        """
        free = self._places - self.in_play
        now = time.monotonic()
        kept: deque[Ticket] = deque()
        for ticket in self._waiting:
            deadline = ticket.asked.deadline
            if ticket.dropped:
                self._end(ticket)
            elif deadline is not None and deadline <= now:
                self._end(ticket, Game(ticket.asked.problem, [], end="budget"))
            elif free > 0 and self._open(ticket):
                free -= ticket.number is not None
            else:
                kept.append(ticket)
        self._waiting = kept

    def _open(self, ticket: Ticket) -> bool:
        """Add a ticket to its session, or end it when that can never be; False when it has to wait."""
        playing = self._playing.get(ticket.group)
        try:
            if playing is None:
                if len(self._playing) >= self._most_sessions and not self._close_oldest():
                    return False
                session = self._method_of(ticket.group).session(self._places, time.monotonic)
                playing = self._playing[ticket.group] = Playing(session, time.monotonic())
            ticket.number = playing.session.add([ticket.asked])[0]
        except InputError as error:
            self._end(ticket, error)
            return True
        except Exception as error:  # noqa: BLE001  a method may fail in any way; the server goes on
            self._end(ticket, broken(error))
            self._fail(ticket.group, error)
            return True
        playing.tickets[ticket.number] = ticket
        return True

    def _do_chore(self) -> None:
        """One forward of the oldest chore."""
        while self._chores and self._chores[0].result.cancelled():
            self._chores.popleft().work.close()
        if not self._chores:
            return
        chore = self._chores[0]
        try:
            next(chore.work)
            return
        except StopIteration as end:
            settle(chore.result, end.value)
        except InputError as error:
            settle(chore.result, error)
        except Exception as error:
            log.error("work on the model failed", exc_info=error)
            settle(chore.result, broken(error))
        self._chores.popleft()

    def _step(self, group: Hashable) -> None:
        playing = self._playing.get(group)
        if playing is None or not playing.tickets:
            return
        try:
            finished = playing.session.step()
        except Exception as error:  # noqa: BLE001  as above
            self._fail(group, error)
            return
        playing.used = time.monotonic()
        for number, game in finished:
            ticket = playing.tickets.pop(number, None)
            if ticket is not None:
                self._seconds += 0.1 * (playing.used - ticket.born - self._seconds)
                self._on_game(ticket, game)
                self._end(ticket, game)

    def _fail(self, group: Hashable, error: Exception) -> None:
        """Give up a session: its tickets fail, and the next ticket of its group opens another."""
        log.error("a session failed; its requests are answered with 503", exc_info=error)
        playing = self._playing.pop(group, None)
        if playing is None:
            return
        for ticket in playing.tickets.values():
            self._end(ticket, broken(error))
        playing.close()

    def _end(self, ticket: Ticket, result: Game | Exception | None = None) -> None:
        """Count a ticket out and hand over its result, where there is one and somebody waits for it."""
        with self._wake:
            self._taken -= 1
        if result is not None:
            settle(ticket.game, result)

    def _close_idle(self) -> None:
        now = time.monotonic()
        for group, playing in list(self._playing.items()):
            if not playing.tickets and now - playing.used >= self._idle_s:
                self._playing.pop(group).close()

    def _close_oldest(self) -> bool:
        """Close the session that has been idle for longest; False when all are in use."""
        idle = [(playing.used, group) for group, playing in self._playing.items() if not playing.tickets]
        if not idle:
            return False
        oldest = min(idle, key=lambda pair: pair[0])[1]
        self._playing.pop(oldest).close()
        return True

    def _give_up(self) -> None:
        ending = Closed("the server stopped before this was finished")
        with self._wake:
            self._draining = self._closing = True
            left = [*self._waiting, *self._arrived]
            chores = [*self._chores, *self._new_chores]
        for playing in self._playing.values():
            left += playing.tickets.values()
            playing.close()
        self._playing.clear()
        for ticket in left:
            self._end(ticket, ending)
        for chore in chores:
            settle(chore.result, ending)
