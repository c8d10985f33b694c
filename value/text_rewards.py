"""What each next token is worth at a context of a corpus: right, likely, or a product of experts' opinions.

Rewards are given to every action at once, so that one forward explores the whole vocabulary. It draws no
actions and computes no losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError


@dataclass(frozen=True)
class TextRewardConfig:
    """The reward of action a at a context whose next token is y:

    ``hard`` * [a = y] + ``soft`` * s(a), s the referee's probability of a ("probability") or its logarithm,
    not below ``floor`` nats, plus log of the vocabulary's size ("log-probability"); times 1 + ``bonus`` *
    b(t) * p(a) where a = y, p the student's probability and b falling in a straight line from 1 to 0 over
    ``bonus_share`` of the training. Contexts where the student's entropy is below ``min_entropy`` nats are
    not taught.

    A product of experts has log-weights ``student`` * log p + ``referee`` * log r + ``truth`` * [a = y] on
    the likeliest ``top`` tokens of student and referee and on y.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    hard: float = 1.0
    soft: float = 0.0
    scale: Literal["probability", "log-probability"] = "probability"
    floor: float = -10.0
    bonus: float = 0.0
    bonus_share: float = 0.5
    min_entropy: float = 0.0
    student: float = 0.5
    referee: float = 0.5
    truth: float = 2.0
    top: int = 8

    def __post_init__(self) -> None:
        for name in ("hard", "soft", "bonus", "min_entropy", "student", "referee", "truth"):
            if getattr(self, name) < 0:
                raise InputError(f"rewards.{name} is {getattr(self, name)}; give a number of at least 0")
        if self.floor >= 0:
            raise InputError(f"rewards.floor is {self.floor} nats; give a number below 0")
        if not 0 < self.bonus_share <= 1:
            raise InputError(f"rewards.bonus_share is {self.bonus_share}; give a share above 0, at most 1")
        if self.top < 1:
            raise InputError(f"rewards.top is {self.top}; give at least 1")
