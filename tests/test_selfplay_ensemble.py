"""The teachers of a round: which checkpoint is asked, what it answers, what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TokenCounter, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import Example
from tokenzero.selfplay.config import TeacherConfig
from tokenzero.selfplay.ensemble import build_teachers, checkpoint_teacher

EXAMPLES = [Example([1, 4, 5, 6, 2], 2), Example([1, 4, 5, 7, 2], 2), Example([1, 8, 4, 5, 6, 2], 3)]


def checkpoints(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"round-{r}" for r in range(count)]
    for index, path in enumerate(paths):
        make_student(seed=index).save(path)
    return paths


def test_a_checkpoint_teacher_answers_as_its_student_and_says_what_it_cost() -> None:
    student = make_student()
    teacher = checkpoint_teacher("lag1", 4, student)
    counter = TokenCounter(student)
    sequences = [[1, 5, 6], [1, 4, 4, 7, 9]]
    proposal = teacher.propose(sequences, 4)
    assert teacher.name == "lag1@4"
    assert proposal.tokens == counter.tokens == 8
    for row, sequence in enumerate(sequences):
        probs = plain(student, sequence)[0].softmax(-1)
        best = probs.argsort(descending=True)[:4]
        assert proposal.actions[row].tolist() == best.tolist()
        np.testing.assert_allclose(proposal.probs[row], probs[best].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("round_index", "lag", "version"),
    [
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 1),
        (3, 2, 0),
        (3, 5, 0),
    ],  # round r is played by the student of round r - 1
)
def test_the_lag_counts_back_from_the_student_that_plays(
    tmp_path: Path, round_index: int, lag: int, version: int
) -> None:
    paths = checkpoints(tmp_path, round_index)
    (teacher,) = build_teachers([TeacherConfig("checkpoint", lag=lag)], round_index, paths, EXAMPLES, 10)
    assert teacher.name == f"lag{lag}@{version}"
    expected = plain(make_student(seed=version), [1, 5])[0].softmax(-1)
    assert teacher.propose([[1, 5]], 1).probs[0, 0] == pytest.approx(float(expected.max()), abs=1e-5)


def test_an_ngram_teacher_is_counted_on_the_demonstrations() -> None:
    (teacher,) = build_teachers([TeacherConfig("ngram", order=3)], 1, [], EXAMPLES, 10)
    proposal = teacher.propose([[1, 4, 5]], 10)
    assert proposal.actions[0, :2].tolist() == [6, 7], "after 4 5 comes 6 twice and 7 once"
    assert proposal.tokens == 0
    assert teacher.name == "3-gram"


def test_the_same_round_meets_the_same_teachers(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path, 2)
    configs = [TeacherConfig("ngram", order=2), TeacherConfig("checkpoint", lag=1)]
    one, other = (build_teachers(configs, 2, paths, EXAMPLES, 10) for _ in range(2))
    torch.manual_seed(1)
    for first, second in zip(one, other, strict=True):
        a, b = first.propose([[1, 4], [1, 8, 4]], 5), second.propose([[1, 4], [1, 8, 4]], 5)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.probs, b.probs)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="round-0"):
        build_teachers([TeacherConfig("checkpoint")], 1, [tmp_path / "round-0"], EXAMPLES, 10)
