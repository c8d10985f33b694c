"""What is handed to the conductor: problems to answer and other work on the model, with a future of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tokenzero.selfplay.game import Game
from tokenzero.selfplay.session import Asked, Session

log = logging.getLogger("tokenzero.server")
T = TypeVar("T")


class Full(Exception):
    """The queue has no room; ``retry_after`` is a guess in seconds of when it will."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Closed(Exception):
    """The server is being told to stop and takes nothing new."""


class Broken(Exception):
    """The model or a method failed while it worked on this; the cause is chained and was logged."""


@dataclass(eq=False)
class Ticket:
    """A problem on its way. ``group``: tickets of equal group share a session.

    ``game`` is set by the conductor: a finished Game, InputError for a problem that its method refuses, or
    Broken. ``number`` is that of its session; ``born`` an instant of ``time.monotonic``.
    """

    group: Hashable
    asked: Asked
    game: Future[Game] = field(default_factory=Future)
    number: int | None = None
    dropped: bool = False
    born: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Chore(Generic[T]):
    """Work on the model that is no game: every ``next`` is one forward."""

    work: Generator[None, None, T]
    result: Future[T] = field(default_factory=Future)


@dataclass(eq=False)
class Playing:
    """A session with its tickets by number; ``used`` is the instant when it last had any."""

    session: Session
    used: float
    tickets: dict[int, Ticket] = field(default_factory=dict)

    def close(self) -> None:
        """Give the session up, whatever it says."""
        try:
            self.session.close()
        except Exception as error:
            log.error("a session could not be closed", exc_info=error)


def broken(cause: Exception) -> Broken:
    """A failure that nobody foresaw, for those who wait."""
    found = Broken(type(cause).__name__)
    found.__cause__ = cause
    return found


def settle(future: Future[Any], result: Any) -> None:
    """Give a future its result or its exception, unless nobody waits for it any more."""
    try:
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
    except InvalidStateError:  # cancelled in this very moment: nobody waits for it
        pass
