"""A length budget that moves over the rounds: long answers are free at first, short ones pay in the end.

It does not cut answers off and does not know how long they may be; it scores those that are finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import NOTHING_GIVEN, Given, Reals, check_lengths

Shape = Literal["linear", "cosine"]


@dataclass(frozen=True)
class BudgetSchedule:
    """From `start` to `end` units of length over `rounds` rounds, then `end` for good.

    With progress p = min(1, round / rounds): linear start + (end - start) p, cosine
    end + (start - end) (1 + cos(pi p)) / 2. Raises InputError for a budget not above 0, rounds below 1 or
    another shape.
    """

    start: float
    end: float
    rounds: int = 1
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if not (0.0 < self.start < math.inf and 0.0 < self.end < math.inf):
            raise InputError(f"length budget goes from {self.start} to {self.end}; give lengths above 0")
        if self.rounds < 1:
            raise InputError(f"length budget moves over {self.rounds} rounds; give at least 1")
        if self.shape not in get_args(Shape):
            raise InputError(f"length schedule is {self.shape!r}; use one of {', '.join(get_args(Shape))}")

    def at(self, round_index: int) -> float:
        """The budget in a round that counts from 0."""
        progress = min(1.0, round_index / self.rounds)
        if self.shape == "linear":
            return self.start + (self.end - self.start) * progress
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * progress)) / 2.0


@dataclass(frozen=True)
class LengthReward:
    """clip(2 - length / budget, 0, 1): 1 within the budget, falling linearly to 0 at twice the budget."""

    schedule: BudgetSchedule
    length: Callable[[str], int]
    name: str = "length"

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals:
        """f64 [L], with the budget of `given.round_index`."""
        check_lengths(prompts, answers, references)
        lengths = np.array([self.length(answer) for answer in answers], dtype=np.float64)
        return np.clip(2.0 - lengths / self.schedule.at(given.round_index), 0.0, 1.0)
