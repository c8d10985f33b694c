"""The teachers of a run, built from its config at the start of each round, with equal weights.

A teacher is a pure function of what is on disk and of the demonstrations, so a resumed run meets the same
teachers. It does not weigh teachers by what their proposals led to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.policy.engine import RecomputeEngine
from tokenzero.policy.pretrain import Example
from tokenzero.policy.student import Student
from tokenzero.selfplay.config import TeacherConfig
from tokenzero.teachers import CheckpointTeacher, NgramTeacher, Teacher


def build_teachers(
    configs: Sequence[TeacherConfig],
    round_index: int,
    checkpoints: Sequence[Path],
    examples: Sequence[Example],
    vocab_size: int,
) -> list[Teacher]:
    """The teachers for round ``round_index``; ``checkpoints[r]`` is the student after round r.

    A checkpoint teacher whose lag reaches back before the warm start consults the warm start.
    """
    teachers: list[Teacher] = []
    for config in configs:
        if config.kind == "ngram":
            sequences = [example.tokens for example in examples]
            teachers.append(NgramTeacher.fit(sequences, config.order, vocab_size))
        else:
            version = max(0, round_index - 1 - config.lag)
            teachers.append(
                checkpoint_teacher(f"lag{config.lag}", version, Student.load(checkpoints[version]))
            )
    return teachers


def checkpoint_teacher(label: str, version: int, student: Student) -> CheckpointTeacher:
    """A past student as a teacher; each consultation forwards the whole sequence and says so."""

    def next_token_probs(sequences: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.float32], int]:
        engine = RecomputeEngine(student)
        with torch.inference_mode():
            step = engine.prefill(sequences)
            probs = step.logits.softmax(dim=-1).cpu().numpy()
        return probs, engine.ledger.forwarded_tokens

    return CheckpointTeacher(label, version, next_token_probs)
