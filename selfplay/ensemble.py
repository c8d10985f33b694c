"""The teachers of a run: opened as its config says, with the weights that the rounds so far earned them.

Past checkpoints, samples and beams follow the student from round to round, the others stay the same. A
round's teachers and weights depend on the config, the run's records and checkpoints alone, so a resumed run
meets the same ones. What proposals came to is credited elsewhere (see ``consulting``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.policy.pretrain import Example
from tokenzero.policy.student import Student
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.listener import Record
from tokenzero.teachers import GLOBAL, Credit, Ensemble, NgramTeacher, Teacher, TeacherWeights
from tokenzero.teachers.checkpoint import CheckpointConfig, checkpoint_teacher
from tokenzero.teachers.continuations import BeamConfig, BeamTeacher, SampleConfig, SampleTeacher
from tokenzero.teachers.kinds import AnyTeacherConfig
from tokenzero.teachers.local_model import ModelConfig, ModelTeacher
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.teachers.remote import RemoteTeacher, RemoteTeacherConfig
from tokenzero.teachers.scripted import ScriptedConfig, ScriptedTeacher
from tokenzero.teachers.text_bridge import BridgeConfig, BridgeTeacher

FOLLOWING = (CheckpointConfig, SampleConfig, BeamConfig)
"""Teachers made of the student of some rounds ago."""


class Teachers:
    """The teachers of ``config``."""

    def __init__(self, config: SelfPlayConfig) -> None:
        self._config = config
        self._lasting: dict[int, Teacher] = {}

    @property
    def any(self) -> bool:
        """Whether anyone may be heard at all."""
        return bool(self._config.teachers) and (self._config.ensemble.beta > 0 or self._later > 0)

    @property
    def _later(self) -> float:
        return self._config.ensemble.beta_end or 0.0

    @property
    def count_demonstrations(self) -> bool:
        """Whether the warm start's demonstrations are needed in every round."""
        return self.any and any(_counted(teacher) for teacher in self._config.teachers)

    def open(self, student: Student) -> None:
        """Open what lasts, apart from tables yet to be counted, so that mistakes show before the warm start.

        Raises InputError for models, functions and servers that cannot be opened.
        """
        for index, one in enumerate(self._config.teachers if self.any else ()):
            if not isinstance(one, FOLLOWING) and not _counted(one):
                self._lasting[index] = self._opened(one, student, list)

    def ensemble(
        self,
        round_index: int,
        student: Student,
        records: Sequence[Record],
        checkpoint: Callable[[int], Path],
        demonstrations: Callable[[], Sequence[Example]],
    ) -> Ensemble | None:
        """The ensemble of round ``round_index``, counted from 1, for a ``student`` with the run's
        tokenizer; None where nobody is heard.

        ``records`` are those of the rounds before it, ``checkpoint(r)`` the student after round r.
        """
        config = self._config.ensemble
        if not self.any or config.beta_in(round_index) == 0:
            return None
        teachers = []
        for index, one in enumerate(self._config.teachers):
            if isinstance(one, FOLLOWING):
                version = int(records[max(0, round_index - 1 - one.lag)]["incumbent"])
                teachers.append(self._of_student(one, version, checkpoint(version)))
            else:
                if index not in self._lasting:
                    self._lasting[index] = self._opened(one, student, demonstrations)
                teachers.append(self._lasting[index])
        weights = TeacherWeights([one.name for one in self._config.teachers], config.weights)
        told = [record["teachers"] for record in records if record.get("teachers")]
        if told:
            weights.load(told[-1])
        return Ensemble(teachers, weights, config, round_index, self._config.seed * 1000 + round_index)

    def rest(self) -> None:
        """The round is over: nothing is held that the next one would find or miss."""
        for teacher in self._lasting.values():
            if not isinstance(teacher, RemoteTeacher) and hasattr(teacher, "close"):
                teacher.close()

    def close(self) -> None:
        """Let go of everything."""
        for teacher in self._lasting.values():
            if hasattr(teacher, "close"):
                teacher.close()
        self._lasting = {}

    def _of_student(
        self, config: CheckpointConfig | SampleConfig | BeamConfig, version: int, path: Path
    ) -> Teacher:
        student = Student.load(path)
        if isinstance(config, CheckpointConfig):
            return checkpoint_teacher(config.name, student)
        if isinstance(config, SampleConfig):
            return SampleTeacher.open(config, student, self._config.seed)
        return BeamTeacher.open(config, student)

    def _opened(
        self, config: AnyTeacherConfig, student: Student, demonstrations: Callable[[], Sequence[Example]]
    ) -> Teacher:
        tokenizer = student.tokenizer
        match config:
            case NgramConfig():
                return NgramTeacher.open(
                    config, student.vocab_size, lambda: [example.tokens for example in demonstrations()]
                )
            case ModelConfig():
                return ModelTeacher.open(config, tokenizer)
            case BridgeConfig():
                return BridgeTeacher.open(config, tokenizer)
            case ScriptedConfig():
                return ScriptedTeacher.open(config, tokenizer)
            case RemoteTeacherConfig():
                return RemoteTeacher(config, tokenizer)
            case _:
                raise AssertionError(f"{config} follows the student")


def _counted(config: AnyTeacherConfig) -> bool:
    return isinstance(config, NgramConfig) and config.counted


def teachers_record(ensemble: Ensemble | None) -> dict[str, Any]:
    """What a round's record says of its teachers, after the round: by context and teacher weight, score and
    why it moved, see `TeacherWeights.update`; and what was asked of each, by name. Updates the weights.
    """
    if ensemble is None:
        return {"teachers": {}, "teacher_weights": {}, "consulted": {}}
    played_with = dict(zip(ensemble.weights.names, ensemble.weights.of().tolist(), strict=True))
    told = ensemble.weights.update({GLOBAL: _nothing(ensemble), **ensemble.credit.credits()})
    for name, entry in told[GLOBAL].items():
        entry["consulted"], entry["tokens"] = ensemble.consulted[name], ensemble.tokens[name]
        if ensemble.consulted[name] and not ensemble.spoke[name]:
            entry["reason"] = "said nothing usable: its text is none of the student's, or see its failures"
    consulted = {
        teacher.name: {
            "states": ensemble.consulted[teacher.name],
            "spoke": ensemble.spoke[teacher.name],
            "tokens": ensemble.tokens[teacher.name],
            "failures": ensemble.failures(teacher),
        }
        for teacher in ensemble.teachers
    }
    return {"teachers": told, "teacher_weights": played_with, "consulted": consulted}


def _nothing(ensemble: Ensemble) -> Credit:
    """The credit of a round without any."""
    none = np.zeros(len(ensemble.teachers))
    return Credit(none, none, 0.0)
