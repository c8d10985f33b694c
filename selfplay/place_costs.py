"""What each game in play has cost so far, and all of them together.

Whoever does the work pays here, once, for the games and for the total alike. It decides no budgets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger

UNLIMITED = 2**62
"""Tokens of a game without a budget."""

STUDENT = ("prefill_tokens", "decode_tokens", "value_tokens")
COUNTED = (
    *STUDENT,
    "cached_tokens",
    "teacher_tokens",
    "judge_tokens",
    "judge_calls",
    "verifier_calls",
)
"""Fields of a `Ledger` that are kept by place."""


class PlaceCosts:
    """Costs of the games in P places, and what each may cost; ``total`` is a ledger of everything paid.

    A game pays for itself alone: its whole prompt, and one token a state, whatever it shares with others. The
    total is what was really forwarded, so the two differ by what prompts have in common.
    """

    def __init__(self, places: int) -> None:
        self.total = Ledger()
        self._most = np.full(places, UNLIMITED, np.int64)
        self._counts = {name: np.zeros(places, np.int64) for name in COUNTED}

    @property
    def spent(self) -> Ids:
        """Tokens that the student forwarded for the game in each place, prompt included, i64 [P]."""
        forwarded: Ids = np.sum([self._counts[name] for name in STUDENT], axis=0, dtype=np.int64)
        return forwarded

    def pay(
        self, name: str, places: Ids, each: int | npt.NDArray[np.integer] = 1, total: int | None = None
    ) -> None:
        """The games in ``places`` i64 [L], some of them perhaps named twice, cost ``each`` (a number, or i64
        [L]) more; ``total`` is what was paid for all of them where that is not the sum."""
        amounts = np.broadcast_to(np.asarray(each, np.int64), places.shape)
        np.add.at(self._counts[name], places, amounts)
        paid = int(amounts.sum()) if total is None else total
        setattr(self.total, name, getattr(self.total, name) + paid)

    def divide(self, name: str, places: Ids, amount: int) -> None:
        """One call for the games in ``places`` i64 [L] cost ``amount``: an even share each, and one more for
        the first ones where it does not divide."""
        if amount:
            share, rest = divmod(amount, len(places))
            self.pay(name, places, share + (np.arange(len(places)) < rest))

    def left(self, places: Ids) -> Ids:
        """Tokens that the student may still forward for the games in ``places`` i64 [R], i64 [R]."""
        return self._most[places] - self.spent[places]

    def clear(self, places: Ids, tokens: Sequence[int | None] | None = None) -> None:
        """New games begin in ``places`` i64 [R], for which the student may forward ``tokens`` each, None
        where there is no limit."""
        self._most[places] = UNLIMITED
        if tokens is not None:
            self._most[places] = [UNLIMITED if most is None else most for most in tokens]
        for counts in self._counts.values():
            counts[places] = 0

    def ledger(self, place: int) -> Ledger:
        """What the game in ``place`` has cost."""
        return Ledger(**{name: int(counts[place]) for name, counts in self._counts.items()})
