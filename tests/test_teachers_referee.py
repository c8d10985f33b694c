"""Referees: whole distributions from tables and models, finite, and counted where they cost something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TokenCounter, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Output, Student
from tokenzero.teachers.ngram import NgramTeacher
from tokenzero.teachers.referee import LEAST, ModelReferee, NgramReferee, Referee

VOCAB = 10  # of the tiny student


def text(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, size)


def expected(student: Student, tokens: np.ndarray) -> np.ndarray:
    return plain(student, tokens.tolist())[0].log_softmax(-1).numpy()


def table(held_out: bool = False) -> NgramReferee:
    return NgramReferee(NgramTeacher.fit([text(200)], 3, VOCAB), held_out=held_out)


def model() -> ModelReferee:
    return ModelReferee(make_student())


@pytest.mark.parametrize("make", [table, model])
def test_the_three_questions_agree(make: type) -> None:
    referee: Referee = make()
    ids = text(28, seed=1).reshape(4, 7)
    rows = referee.row_log_probs(ids)
    assert (rows.shape, rows.dtype) == ((4, 7, VOCAB), np.float32)
    np.testing.assert_allclose(np.exp(rows).sum(-1), 1.0, atol=1e-5)
    following = referee.next_log_probs([row[:5].tolist() for row in ids])
    assert following.dtype == np.float32
    np.testing.assert_allclose(following, rows[:, 4], atol=1e-5)
    own = referee.token_log_probs(ids[2])
    assert (own.shape, own.dtype) == ((7,), np.float64)
    np.testing.assert_allclose(own[1:], rows[2, np.arange(6), ids[2, 1:]], atol=1e-5)
    assert own[0] == pytest.approx(referee.next_log_probs([[]])[0, ids[2, 0]], abs=1e-5)
    assert referee.vocab_size == VOCAB
    assert referee.name == {"table": "3-gram", "model": "model"}[make.__name__]


def test_a_table_forwards_nothing() -> None:
    referee = table()
    referee.token_log_probs(text(50))
    referee.row_log_probs(text(8).reshape(2, 4))
    assert referee.forwarded == 0


def test_a_table_that_was_counted_on_the_text_can_forget_what_it_is_asked_about() -> None:
    knows, forgets = table(), table(held_out=True)
    ids = text(200)[:60].reshape(6, 10)
    truth = text(200)[1:61].reshape(6, 10)
    assert np.array_equal(forgets.row_log_probs(ids, truth), knows.teacher.row_log_probs(ids, truth))
    assert np.array_equal(knows.row_log_probs(ids, truth), knows.row_log_probs(ids))
    untold = forgets.row_log_probs(ids)
    assert np.array_equal(untold[:, :-1], forgets.row_log_probs(ids, truth)[:, :-1])
    assert np.array_equal(untold[:, -1], knows.row_log_probs(ids)[:, -1])
    at = np.ix_(range(6), range(10))
    assert (
        np.take_along_axis(forgets.row_log_probs(ids, truth)[at], truth[..., None], 2).mean()
        < np.take_along_axis(knows.row_log_probs(ids)[at], truth[..., None], 2).mean()
    )
    assert forgets.token_log_probs(text(200)).mean() < knows.token_log_probs(text(200)).mean()


@pytest.mark.parametrize("numbers", [1, 300, 1 << 24])
def test_a_model_says_what_a_plain_forward_says(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenzero.teachers.referee._LOGITS", numbers)
    student = make_student()
    counter, referee = TokenCounter(student), ModelReferee(student, "judge")
    ids = text(36, seed=1).reshape(4, 9)
    rows = referee.row_log_probs(ids)
    sequences = [[], text(3).tolist(), text(32).tolist(), text(50).tolist(), text(1).tolist()]
    following = referee.next_log_probs(sequences)
    assert referee.forwarded == counter.tokens == 36 + 3 + 32 + 32 + 1
    for row in range(4):
        for at in range(9):
            np.testing.assert_allclose(rows[row, at], expected(student, ids[row, : at + 1]), atol=1e-4)
    np.testing.assert_allclose(following[0], -np.log(VOCAB), atol=1e-6)
    for at in (1, 2, 3, 4):
        tail = np.array(sequences[at][-student.max_length :])
        np.testing.assert_allclose(following[at], expected(student, tail), atol=1e-4)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 32, 33, 34, 48, 49, 50, 100])
def test_a_long_text_is_read_with_half_of_the_positions_at_least(size: int) -> None:
    student = make_student()
    tokens, width = text(size), student.max_length
    counter, referee = TokenCounter(student), ModelReferee(student)
    own = referee.token_log_probs(tokens)
    assert own.shape == (size,)
    assert referee.forwarded == counter.tokens
    starts = [start for start in range(0, size, width // 2) if start + width < size]
    starts.append(max(0, size - 1 - width))
    for at in range(1, size):
        start = min(start for start in starts if at <= start + width)
        assert at - start >= min(at, width // 2)
        assert own[at] == pytest.approx(float(expected(student, tokens[start:at])[tokens[at]]), abs=1e-4)
    assert size == 0 or own[0] == pytest.approx(-np.log(VOCAB))


def test_rows_longer_than_the_model_are_refused() -> None:
    with pytest.raises(InputError, match="32 positions and was given rows of 33"):
        model().row_log_probs(text(33).reshape(1, 33))


def test_no_rows() -> None:
    referee = model()
    assert referee.row_log_probs(np.zeros((0, 4), np.int64)).shape == (0, 4, VOCAB)
    assert referee.row_log_probs(np.zeros((2, 0), np.int64)).shape == (2, 0, VOCAB)
    assert referee.next_log_probs([]).shape == (0, VOCAB)
    assert referee.forwarded == 0


def test_what_a_model_rules_out_is_very_unlikely_and_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_student()
    forward = student.forward

    def forbidding(*arguments: object, **options: object) -> Output:
        output = forward(*arguments, **options)  # type: ignore[arg-type]
        output.logits[..., 4] = -torch.inf
        return output

    monkeypatch.setattr(student, "forward", forbidding)
    referee = ModelReferee(student)
    assert (referee.row_log_probs(text(6).reshape(2, 3))[..., 4] == LEAST).all()
    assert np.isfinite(referee.token_log_probs(np.array([4, 4, 4, 5]))).all()


def test_damaged_weights_are_named() -> None:
    student = make_student()
    with torch.no_grad():
        next(student.model.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="referee judge: its output is not a number"):
        ModelReferee(student, "judge").next_log_probs([[1, 2]])
