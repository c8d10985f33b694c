"""The checkpoint teacher: top k of what the callable says, its cost passed on, its contract enforced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Teacher
from tokenzero.teachers.checkpoint import CheckpointTeacher


def last_token_plus_one(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], int]:
    probs = np.full((len(sequences), 5), 0.1, dtype=np.float32)
    for row, sequence in enumerate(sequences):
        probs[row, (sequence[-1] + 1) % 5] = 0.6
    return probs, sum(len(sequence) for sequence in sequences)


def test_proposes_the_top_k_and_reports_the_tokens_paid() -> None:
    teacher: Teacher = CheckpointTeacher("student", 3, last_token_plus_one)
    proposal = teacher.propose([[0, 1], [4, 4, 4]], 3)
    assert teacher.name == "student@3"
    assert proposal.actions.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert proposal.probs[:, 0].tolist() == pytest.approx([0.6, 0.6])
    assert proposal.tokens == 5


def test_no_sequences_do_not_call_the_model() -> None:
    def never(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], int]:
        raise AssertionError("called")

    proposal = CheckpointTeacher("old", 0, never).propose([], 4)
    assert proposal.actions.shape == (0, 4)
    assert proposal.tokens == 0


@pytest.mark.parametrize(
    "answer",
    [
        np.full((2, 4), 0.25),
        np.full(4, 0.25),
        np.array([[3.0, -1.0]]),
        np.array([[1.5, -0.5]]),
        np.full((1, 4), np.nan),
    ],
)
def test_answers_that_are_no_distributions_are_refused(answer: NDArray[np.float64]) -> None:
    teacher = CheckpointTeacher("old", 1, lambda sequences: (answer.astype(np.float32), 1))
    with pytest.raises(InputError, match="old@1"):
        teacher.propose([[1]], 2)
