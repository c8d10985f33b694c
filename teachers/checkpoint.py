"""A past checkpoint of the student as a teacher: a model teacher that follows the run at a distance.

Which rounds there are and where they lie is the caller's to know (selfplay/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.teachers.local_model import ModelTeacher
from tokenzero.teachers.prefix_states import PrefixStates


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """The student ``lag`` rounds ago."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["checkpoint"] = "checkpoint"
    lag: int = 1

    def __post_init__(self) -> None:
        if self.lag < 1:
            raise InputError(f"teacher lag is {self.lag}; give at least 1 round")

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return f"lag{self.lag}"


def checkpoint_teacher(name: str, student: Student) -> ModelTeacher:
    """A past student as a teacher called ``name``, the same from round to round: its score follows the lag,
    not one checkpoint.
    """
    return ModelTeacher(name, student, PrefixStates(student, open_engine(student, EngineConfig())))
