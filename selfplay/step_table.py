"""States that lie whole steps apart: a `StateTable` whose actions stand for several tokens.

It holds what each state offers; it neither draws nor forwards steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from tokenzero.policy.engine import Ids
from tokenzero.selfplay.game import End
from tokenzero.selfplay.state_table import NONE, StateTable


@dataclass(slots=True)
class Offer:
    """A step that may be taken. All of its ``tokens`` but the last were forwarded, up to the engine's
    ``state``; ``own`` says that it is the one to give this state back.

    ``text`` is the whole answer's with it, ``log_probability`` its own under the student. ``over`` says that
    it ends the answer, by ``end`` and with ``score``, NaN where nobody can tell.
    """

    tokens: tuple[int, ...]
    text: str
    log_probability: float
    over: bool = False
    end: End = "ended"
    score: float = nan
    state: int = NONE
    own: bool = False


class StepTable(StateTable):
    """Actions are numbers of steps: within a game, the same tokens have the same number.

    ``token[s]`` is the action that leads to a state, ``length[s]`` counts tokens.
    """

    def __init__(self, rows: int, candidates: int, proposers: int) -> None:
        self._steps: dict[int, list[tuple[int, ...]]] = {}  # by place
        self._numbers: dict[int, dict[tuple[int, ...], int]] = {}
        self._offers: dict[int, dict[int, Offer]] = {}
        super().__init__(rows, candidates, proposers)

    def plant(self, games: Ids) -> Ids:
        """See `StateTable`."""
        for game in games.tolist():
            self._steps[game], self._numbers[game] = [], {}
        return super().plant(games)

    def tokens(self, game: int, action: int) -> tuple[int, ...]:
        """The tokens of a step of the game in a place."""
        return self._steps[game][action]

    def steps(self, game: int) -> dict[int, tuple[int, ...]]:
        """The tokens of all steps of the game in a place, by action."""
        return dict(enumerate(self._steps[game]))

    def offer(self, row: int, offers: Sequence[Offer]) -> list[int]:
        """Keep what a state offers; the actions that stand for it."""
        game = int(self.game[row])
        steps, numbers = self._steps[game], self._numbers[game]
        actions = []
        for offer in offers:
            number = numbers.setdefault(offer.tokens, len(steps))
            if number == len(steps):
                steps.append(offer.tokens)
            actions.append(number)
        self._offers[row] = dict(zip(actions, offers, strict=True))
        return actions

    def offers(self, row: int) -> dict[int, Offer]:
        """What a state offers, by action."""
        return self._offers.get(row, {})

    def taken(self, row: int) -> Offer:
        """The step that leads to a state below a root."""
        return self._offers[int(self.parent[row])][int(self.token[row])]

    def answer(self, row: int) -> list[int]:
        """See `StateTable`."""
        game, tokens = int(self.game[row]), list[int]()
        while self.parent[row] != NONE:
            tokens += reversed(self.tokens(game, int(self.token[row])))
            row = int(self.parent[row])
        return tokens[::-1]

    def free_siblings(self, kept: Ids) -> Ids:
        """See `StateTable`; with the engine states of offers that are gone."""
        return self._freed(super().free_siblings, kept)

    def free_subtrees(self, tops: Ids) -> Ids:
        """See `StateTable`; with the engine states of offers that are gone."""
        return self._freed(super().free_subtrees, tops)

    def _freed(self, free: Callable[[Ids], Ids], rows: Ids) -> Ids:
        before = int(self.left[0])
        states = free(rows)
        gone = [self._offers.pop(row, {}) for row in self.free[before : int(self.left[0])].tolist()]
        own = [offer.state for offers in gone for offer in offers.values() if offer.own]
        return np.concatenate([np.asarray(own, np.int64), states])
