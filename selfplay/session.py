"""What every method of answering looks like from outside: problems go in, one batched step at a time is made
for all of them, and finished games come out.

A session serves one caller with a list of problems and a server with requests that come and go alike. It
does not score against gold answers, and knows neither threads nor HTTP.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.sampling import Sampling
from tokenzero.selfplay.game import Game
from tokenzero.tasks import PublicProblem

OnGames = Callable[[int], None]
OnTokens = Callable[[list[int]], None]
PLACES = 512
"""Games in play at a time where nobody says otherwise."""


@dataclass(frozen=True)
class Budget:
    """What one problem may cost: ``tokens`` forwarded for it, its prompt included, and ``seconds`` from when
    it is asked. None is no limit. When either is spent the best answer so far is given.

    Raises InputError for a number out of its range.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"a budget of {self.tokens} tokens is none; give at least 1")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"a budget of {self.seconds} seconds is none; give a number above 0")


@dataclass(frozen=True)
class Asked:
    """A problem on its way into a session.

    ``rng`` is its own random stream: what runs beside it does not change its answer. ``tokens`` is its
    budget, ``deadline`` an instant of the session's clock. ``on_tokens`` is called with the answer tokens
    that have become certain since the last call. ``sampling`` says how its tokens are drawn by methods that
    draw; None is the method's own way. ``keep_tree`` has methods that search leave their trees in
    ``Game.trees``.
    """

    problem: PublicProblem
    rng: np.random.Generator
    tokens: int | None = None
    deadline: float | None = None
    on_tokens: OnTokens | None = None
    sampling: Sampling | None = None
    keep_tree: bool = False


class Session(Protocol):
    """Games in play. Life of one: ``add`` -> any number of ``step`` -> handed out by ``step``, or
    ``drop``."""

    @property
    def live(self) -> int:
        """Games that wait or are in play."""
        ...

    def add(self, asked: Sequence[Asked]) -> list[int]:
        """Let problems wait for their turn; their numbers, which count up from 0. Raises InputError, and adds
        none, for a prompt that is empty, too long or outside the vocabulary."""
        ...

    def step(self) -> list[tuple[int, Game]]:
        """Begin what there is room for, forward once for all that is in play, and hand out what has ended,
        each game with its number."""
        ...

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget games that nobody waits for any more, in play or not; finished ones are ignored."""
        ...

    def close(self) -> None:
        """Forget all games and pay what was spent into the method's ledger. To be called once, at last."""
        ...


class Method(ABC):
    """A way to answer problems. ``ledger`` is the total over everything it answered.

    Every method sees ``PublicProblem``s only.
    """

    name: str
    ledger: Ledger

    @abstractmethod
    def session(self, places: int = PLACES, clock: Callable[[], float] = time.monotonic) -> Session:
        """Begin to answer: at most ``places`` games in play; deadlines are instants of ``clock``."""

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        budget: Budget | None = None,
        on_games: OnGames | None = None,
    ) -> list[Game]:
        """One finished game for each problem, in order.

        Each game has a random stream of its own, spawned from ``rng``. ``on_games(n)`` is called as games
        finish, for progress bars. The seconds of ``budget`` begin with the call for all of them.
        """
        if not problems:
            return []
        return play_all(self.session(min(PLACES, len(problems))), problems, rng, budget, on_games)


def play_all(
    session: Session,
    problems: Sequence[PublicProblem],
    rng: np.random.Generator,
    budget: Budget | None,
    on_games: OnGames | None,
    keep_trees: bool = False,
) -> list[Game]:
    """`Method.play` with a new ``session``, whose clock is ``time.monotonic``; it is closed at the end."""
    limits = budget or Budget()
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    games: dict[int, Game] = {}
    try:
        streams = rng.spawn(len(problems))
        session.add(
            [
                Asked(p, own, limits.tokens, deadline, keep_tree=keep_trees)
                for p, own in zip(problems, streams, strict=True)
            ]
        )
        while session.live:
            finished = session.step()
            games.update(finished)
            if finished and on_games is not None:
                on_games(len(finished))
    finally:  # also when a verifier or the model fails: the engine serves others after us
        session.close()
    return [games[number] for number in range(len(problems))]
