"""The checkpoint teacher: the distribution of a past student, paid for by the token."""

from __future__ import annotations

import pytest
from tiny import make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Teacher
from tokenzero.teachers.checkpoint import CheckpointConfig, checkpoint_teacher


def test_proposes_the_top_k_and_reports_the_tokens_paid() -> None:
    student = make_student()
    teacher: Teacher = checkpoint_teacher("lag1", student)
    assert teacher.name == "lag1"
    proposal = teacher.propose([[1, 5, 6], [1, 5, 7]], 3)
    assert proposal.tokens == 4
    probs = plain(student, [1, 5, 7])[0].softmax(-1)
    assert proposal.actions[1].tolist() == probs.argsort(descending=True)[:3].tolist()
    assert proposal.probs[1].tolist() == pytest.approx(sorted(probs.tolist(), reverse=True)[:3], abs=1e-5)
    assert teacher.propose([[1, 5, 7, 4]], 3).tokens == 1, "the search went one token further"


def test_no_sequences_do_not_call_the_model() -> None:
    proposal = checkpoint_teacher("old", make_student()).propose([], 4)
    assert proposal.actions.shape == (0, 4)
    assert proposal.tokens == 0


def test_the_lag_is_at_least_a_round() -> None:
    assert CheckpointConfig(lag=2).kind == "checkpoint"
    with pytest.raises(InputError, match="lag is 0"):
        CheckpointConfig(lag=0)
