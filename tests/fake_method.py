"""A method of answering without a model: each step adds one token to every game in play.

A game's tokens are those of its own random stream, so what runs beside it cannot change them. The problem's
prompt says what else happens: "refuse" is refused when it is added, "fail" breaks the session that plays it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.session import Asked, Method, Session

LENGTH = 4


class FakeSession:
    """Places and waiting games as a real session has them; ``open`` says how many are held."""

    def __init__(self, method: FakeMethod, places: int) -> None:
        self._method = method
        self._places = places
        self._waiting: deque[tuple[int, Asked]] = deque()
        self._playing: dict[int, tuple[Asked, Game]] = {}
        self._next = 0
        self.closed = False

    @property
    def live(self) -> int:
        return len(self._waiting) + len(self._playing)

    def add(self, asked: Sequence[Asked]) -> list[int]:
        for one in asked:
            if one.problem.prompt == "refuse":
                raise InputError("this prompt is refused; ask another")
        numbers = list(range(self._next, self._next + len(asked)))
        self._next += len(asked)
        self._waiting.extend(zip(numbers, asked, strict=True))
        return numbers

    def step(self) -> list[tuple[int, Game]]:
        self._method.gate.wait()
        while self._waiting and len(self._playing) < self._places:
            number, asked = self._waiting.popleft()
            self._playing[number] = asked, Game(asked.problem, [1])
        self._method.rows.append(len(self._playing))
        finished = []
        for number, (asked, game) in list(self._playing.items()):
            if asked.problem.prompt == "fail":
                raise RuntimeError("planted")
            token = int(asked.rng.integers(4, 10))
            game.tokens.append(token)
            game.forwarded += 1
            game.ledger.decode_tokens += 1
            if asked.on_tokens is not None:
                asked.on_tokens([token])
            over = len(game.tokens) == (asked.problem.limit or LENGTH)
            late = asked.deadline is not None and time.monotonic() >= asked.deadline
            if over or late:
                game.end = "budget" if late else "length"
                del self._playing[number]
                finished.append((number, game))
        return finished

    def drop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._playing.pop(number, None)
        self._waiting = deque(pair for pair in self._waiting if pair[0] not in numbers)
        self._method.dropped += len(numbers)

    def close(self) -> None:
        self.closed = True


class FakeMethod(Method):
    """``rows`` games in play at each step; ``gate`` holds every step until it is set; ``sessions`` made."""

    def __init__(self) -> None:
        self.name = "fake"
        self.ledger = Ledger()
        self.rows: list[int] = []
        self.sessions: list[FakeSession] = []
        self.dropped = 0
        self.gate = threading.Event()
        self.gate.set()

    def session(self, places: int = 8, clock: Callable[[], float] = time.monotonic) -> Session:
        made = FakeSession(self, places)
        self.sessions.append(made)
        return made
