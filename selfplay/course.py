"""How a run goes on after a round: whose weights play, where the learner goes on from, and with what changes.

A pure function of the arena's verdict, the alarms and the course before; it is written into the round's
record, so a resumed run goes on alike. It measures nothing and moves no weights.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.listener import Record


@dataclass(frozen=True)
class Course:
    """``incumbent`` is the round whose weights play and ``learner_from`` the one whose checkpoint the learner
    goes on from; ``entropy_bonus`` is added to learner.entropy_weight and the learning rate multiplied by
    ``lr_factor``; ``refused`` candidates in a row were not promoted; a ``stopped`` run plays no more rounds.
    """

    promoted: bool = True
    incumbent: int = 0
    learner_from: int = 0
    entropy_bonus: float = 0.0
    lr_factor: float = 1.0
    refused: int = 0
    stopped: bool = False

    def after(
        self,
        round_index: int,
        won: bool,
        actions: Collection[str],
        health: HealthConfig,
        reset_after: int | None,
    ) -> Course:
        """The course after round ``round_index``, whose candidate ``won`` its promotion and raised alarms
        with these ``actions``. After ``reset_after`` refusals in a row (None: never) the learner goes back to
        the incumbent. A candidate that has to be rolled back, or stops the run, is never promoted.
        """
        sick = "roll_back" in actions or "stop" in actions
        course = replace(
            self,
            promoted=won and not sick,
            learner_from=self.learner_from if sick else round_index,
            entropy_bonus=self.entropy_bonus + health.entropy_bonus * ("raise_entropy" in actions),
            lr_factor=self.lr_factor * (health.lr_factor if "lower_lr" in actions else 1.0),
            refused=0 if won and not sick else self.refused + 1,
            stopped="stop" in actions,
        )
        if course.promoted:
            return replace(course, incumbent=round_index)
        if reset_after is not None and course.refused >= reset_after:
            return replace(course, learner_from=self.incumbent, refused=0)
        return course

    def as_record(self) -> Record:
        """Its part of a round's record."""
        return {
            "promoted": self.promoted,
            "incumbent": self.incumbent,
            "learner": {
                "from": self.learner_from,
                "entropy_bonus": self.entropy_bonus,
                "lr_factor": self.lr_factor,
            },
            "refused": self.refused,
            "stopped": self.stopped,
        }

    @classmethod
    def of(cls, record: Record) -> Course:
        """The course that a record was written with."""
        learner: dict[str, Any] = record["learner"]
        return cls(
            promoted=record["promoted"],
            incumbent=record["incumbent"],
            learner_from=learner["from"],
            entropy_bonus=learner["entropy_bonus"],
            lr_factor=learner["lr_factor"],
            refused=record["refused"],
            stopped=record["stopped"],
        )
