"""Who says that a finished answer will do, where the task has no public verifier: a judge, or the value.

It is no verifier: an answer that it accepts may be wrong, and whoever reports one has to say who accepted it.
It evaluates no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenzero.mcts.errors import InputError
from tokenzero.value import Judge


@dataclass(frozen=True)
class StandIn:
    """The ``judge``, which accepts with +1; without one the answer's value, from ``threshold`` in [-1, 1] on.

    Raises InputError without either, and for a threshold out of its range.
    """

    judge: Judge | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.judge is None and self.threshold is None:
            raise InputError("a stand-in needs a judge or a threshold; give stand_in a number from -1 to 1")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise InputError(f"stand_in is {self.threshold}; give a number from -1 to 1")

    @property
    def name(self) -> Literal["judge", "value"]:
        """Who accepts: what `Game.verified_by` says."""
        return "value" if self.judge is None else "judge"
