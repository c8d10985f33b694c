"""Scores of text against a loop over positions, one plain forward each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import Example
from tokenzero.policy.language_score import score_answers, score_text

STUDENT = make_student()
TOKENS = np.random.default_rng(4).integers(1, 10, 47).astype(np.uint16)


def naive(tokens: list[int], position: int, start: int) -> tuple[float, float, bool]:
    """Log-probability, confidence and correctness of ``tokens[position]`` given those from ``start`` on."""
    log_probs = plain(STUDENT, tokens[start:position])[0].log_softmax(-1)
    best = int(log_probs.argmax())
    return float(log_probs[tokens[position]]), float(log_probs.max().exp()), best == tokens[position]


@pytest.mark.parametrize("context", [1, 7, 23, 32])
@pytest.mark.parametrize("batch", [None, 1, 2])
def test_windows_are_those_of_a_loop_over_positions(context: int, batch: int | None) -> None:
    tokens = TOKENS.tolist()
    expected = [naive(tokens, p, (p - 1) // context * context) for p in range(1, len(tokens))]
    score = score_text(STUDENT, TOKENS, context, characters=94, batch=batch)
    log_probs, confidence, correct = (np.array(column) for column in zip(*expected, strict=True))
    np.testing.assert_allclose(score.log_probs, log_probs, atol=2e-5)
    np.testing.assert_allclose(score.confidence, confidence, atol=2e-5)
    assert score.correct.tolist() == correct.tolist()
    assert (score.log_probs.dtype, score.confidence.dtype, score.correct.dtype) == ("f4", "f4", bool)
    assert score.tokens == len(TOKENS) - 1
    assert score.nats_per_token == pytest.approx(-log_probs.mean(), abs=1e-5)
    assert score.nats_per_character == pytest.approx(-log_probs.mean() * 47 / 94, abs=1e-5)
    assert score.accuracy == pytest.approx(correct.mean())
    assert score.perplexity == pytest.approx(math.exp(-log_probs.mean()), rel=1e-4)


def test_the_weights_stay_trainable_and_no_gradient_is_kept() -> None:
    score_text(STUDENT, TOKENS, 8)
    assert all(
        p.requires_grad and not p.is_inference() and p.grad is None for p in STUDENT.model.parameters()
    )
    STUDENT.model(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()
    STUDENT.model.zero_grad()
    assert score_text(STUDENT, TOKENS, 8).nats_per_character is None


def test_answers_are_those_of_a_loop_over_positions() -> None:
    examples = [
        Example([1, 5, 6, 7, 2], 3),
        Example([1, 8, 4, 5, 6, 7, 2, 9, 9], 1),
        Example([1, 9, 2], 2),
        Example([4, 4, 1, 6, 2], 4),
    ]
    expected = [
        naive(example.tokens, position, 0)
        for example in examples
        for position in range(example.prompt_length, len(example.tokens))
    ]
    log_probs, confidence, correct = (np.array(column) for column in zip(*expected, strict=True))
    for batch in (1, 3, 16):
        score = score_answers(STUDENT, examples, batch)
        np.testing.assert_allclose(score.log_probs, log_probs, atol=2e-5)
        np.testing.assert_allclose(score.confidence, confidence, atol=2e-5)
        assert score.correct.tolist() == correct.tolist()
        assert score.nats_per_token == pytest.approx(-log_probs.mean(), abs=1e-5)
        assert score.tokens == len(expected)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="1 tokens predicts nothing"):
        score_text(STUDENT, TOKENS[:1], 8)
    for context in (0, 33):
        with pytest.raises(InputError, match=f"context is {context}; give 1 to 32"):
            score_text(STUDENT, TOKENS, context)
    with pytest.raises(InputError, match="no examples to score"):
        score_answers(STUDENT, [])
    with pytest.raises(InputError, match="33 tokens do not fit the model's 32 positions"):
        score_answers(STUDENT, [Example([1] * 34, 3)])
