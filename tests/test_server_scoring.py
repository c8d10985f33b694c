"""Log-probabilities of given sequences against one plain forward of each."""

from __future__ import annotations

import pytest
import torch
from tiny import TokenCounter, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.server import scoring
from tokenzero.server.scoring import Scored, score

SEQUENCES = [[1, 4, 5, 6], [7], [1, 4], [9, 8, 7, 6, 5, 4, 4, 4], [1, 4, 5, 9]]


def scored(top: int, sequences: list[list[int]]) -> tuple[list[Scored], int]:
    """The scores, and how many forwards they took."""
    work, forwards = score(make_student(), sequences, top), 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: list[Scored] = end.value
            return found, forwards
        forwards += 1


def test_scores_are_those_of_plain_forwards() -> None:
    student = make_student()
    found, _ = scored(3, SEQUENCES)
    for sequence, one in zip(SEQUENCES, found, strict=True):
        assert len(one.log_probs) == len(one.top) == len(sequence) - 1
        for place, value in enumerate(one.log_probs, start=1):
            logs = plain(student, sequence[:place])[0].log_softmax(-1)
            assert value == pytest.approx(float(logs[sequence[place]]), abs=1e-5)
            best = torch.topk(logs, 3)
            assert [token for token, _ in one.top[place - 1]] == best.indices.tolist()
            assert [value for _, value in one.top[place - 1]] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_the_likeliest_token_has_its_own_score() -> None:
    student = make_student()
    greedy = int(plain(student, [1, 4])[0].argmax())
    one = scored(1, [[1, 4, greedy]])[0][0]
    assert one.top[1] == [(greedy, one.log_probs[1])]


def test_batches_are_bounded_and_pay_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, forwards = scored(1, SEQUENCES)
    assert forwards == 1
    monkeypatch.setattr(scoring, "ROWS", 2)
    parts, forwards = scored(1, SEQUENCES)
    assert forwards == 2
    monkeypatch.setattr(scoring, "LOGITS", 1)
    single, forwards = scored(1, SEQUENCES)
    assert forwards == 4
    for other in (parts, single):
        for one, two in zip(whole, other, strict=True):
            assert one.log_probs == pytest.approx(two.log_probs, abs=1e-5)
    student = make_student()
    counter = TokenCounter(student)
    list(score(student, SEQUENCES, 0))
    assert counter.tokens == sum(len(sequence) for sequence in SEQUENCES if len(sequence) > 1)


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="33 tokens"):
        next(score(make_student(), [[4] * 33], 0))
