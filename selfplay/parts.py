"""What an evaluation of leaves is made of, and how a leaf is priced.

Records only: the evaluator itself is in ``evaluator``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.student import Student
from tokenzero.selfplay.edge_rewards import EdgeRewards
from tokenzero.tasks import Task
from tokenzero.teachers import Ensemble
from tokenzero.value import Judge, ValueHead
from tokenzero.value.terminal import CombinedDetector


@dataclass(frozen=True)
class LeafConfig:
    """How a leaf is priced and which actions it offers.

    ``prior_temperature`` divides the student's logits; ``rollout_share`` (rho) blends a sampled play-out's
    outcome into the value; ``judge_eta`` scales the judge's shift, and sinks to nothing in a straight line
    over ``judge_rounds`` rounds of self-play (0: it stays).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    prior_temperature: float = 1.0
    rollout_share: float = 0.0
    judge_eta: float = 0.0
    judge_rounds: int = 0

    def __post_init__(self) -> None:
        if self.prior_temperature <= 0:
            raise InputError(f"leaf.prior_temperature is {self.prior_temperature}; give a number above 0")
        for name in ("rollout_share", "judge_eta"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"leaf.{name} is {getattr(self, name)}; give a number from 0 to 1")
        if self.judge_rounds < 0:
            raise InputError(f"leaf.judge_rounds is {self.judge_rounds}; give at least 0, where 0 keeps eta")

    def in_round(self, round_index: int) -> LeafConfig:
        """The same with the judge's share of that round, counted from 1."""
        if not self.judge_rounds:
            return self
        left = max(0.0, 1.0 - (round_index - 1) / self.judge_rounds)
        return replace(self, judge_eta=left * self.judge_eta)


@dataclass
class Parts:
    """Everything a leaf's evaluation may consult. Absent parts cost nothing."""

    student: Student
    engine: Engine
    task: Task
    value_head: ValueHead | None = None
    ensemble: Ensemble | None = None
    judge: Judge | None = None
    terminal: CombinedDetector | None = None
    edge_rewards: EdgeRewards | None = None
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.student.tokenizer)
