"""How well a student predicts text: nats, accuracy and perplexity of given tokens.

Plain forwards in the student's own precision, without gradients; nothing is sampled and no keys and values
are kept. It does not tokenize.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import Example
from tokenzero.policy.student import Student

LOGITS = 1 << 21
"""Most logits of one forward where nobody says how many rows it takes: 8 MB, which caches still serve."""


@dataclass(frozen=True)
class LanguageScore:
    """``tokens`` predictions T: mean negative log-probability ``nats_per_token``, its exponential
    ``perplexity``, and ``accuracy`` of the most probable token. ``nats_per_character`` of the text they
    spell; None where its characters were not given.

    Of each prediction, in order: ``log_probs`` f32 [T] of the token that came, ``confidence`` f32 [T] (the
    greatest probability of any token) and whether that token was ``correct`` bool [T].
    """

    nats_per_token: float
    nats_per_character: float | None
    accuracy: float
    perplexity: float
    tokens: int
    log_probs: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    correct: npt.NDArray[np.bool_]


def score_text(
    student: Student,
    tokens: npt.NDArray[np.integer],
    context: int,
    characters: int | None = None,
    batch: int | None = None,
) -> LanguageScore:
    """Score a running text, ``tokens`` int [N], cut into consecutive windows: window i predicts tokens
    i * ``context`` + 1 to (i + 1) * ``context`` and sees only its own, so that T is N - 1. The last window is
    as long as what is left.

    ``characters`` of the whole text: nats per character are nats per token times N / ``characters``.
    ``batch`` windows a forward; None takes what fits in about 32 MB of logits.

    Raises:
        InputError: fewer than two tokens, or ``context`` not from 1 to the model's positions.
    """
    count = len(tokens) - 1
    if count < 1:
        raise InputError(f"a text of {len(tokens)} tokens predicts nothing; give at least two tokens")
    if not 1 <= context <= student.max_length:
        raise InputError(f"context is {context}; give 1 to {student.max_length}, the model's positions")
    batch = batch or max(1, LOGITS // (context * student.vocab_size))
    whole = count // context
    seen = []
    for first in range(0, whole, batch):
        rows = min(batch, whole - first)
        span = np.asarray(tokens[first * context : (first + rows) * context + 1], np.int64)
        seen.append(_predictions(student, span[:-1].reshape(rows, -1), span[1:].reshape(rows, -1)))
    if whole * context < count:
        rest = np.asarray(tokens[whole * context :], np.int64)
        seen.append(_predictions(student, rest[None, :-1], rest[None, 1:]))
    return _score(seen, None if characters is None else characters / len(tokens))


def score_answers(student: Student, examples: Sequence[Example], batch: int = 16) -> LanguageScore:
    """Score the tokens after the prompt of each of ``examples``, in their order, given all before them.

    Raises:
        InputError: no examples, or one longer than the model's positions.
    """
    if not examples:
        raise InputError("there are no examples to score; give at least one (prompt, answer) pair")
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].tokens))
    found: list[list[npt.NDArray[np.float32]]] = [[]] * len(examples)
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        width = max(len(examples[row].tokens) for row in rows)
        ids = np.full((len(rows), width), student.pad_id)
        for place, row in enumerate(rows):
            ids[place, : len(examples[row].tokens)] = examples[row].tokens
        seen = _predictions(student, ids[:, :-1], ids[:, 1:])  # padding stands behind all that is scored
        for place, row in enumerate(rows):
            answer = slice(examples[row].prompt_length - 1, len(examples[row].tokens) - 1)
            found[row] = [one[place, answer] for one in seen]
    return _score(found, None)


@torch.inference_mode()
def _predictions(
    student: Student, ids: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Log-probabilities of ``targets`` [R, W], greatest probabilities, and 1 where that token came."""
    if ids.shape[1] > student.max_length:
        raise InputError(f"{ids.shape[1]} tokens do not fit the model's {student.max_length} positions")
    device = student.device
    logits = student.forward(torch.from_numpy(ids).to(device), use_cache=False).logits
    log_probs = logits.log_softmax(-1)
    wanted = torch.from_numpy(targets).to(device)
    greatest, best = log_probs.max(-1)
    came = log_probs.gather(-1, wanted[..., None]).squeeze(-1)
    return [one.float().cpu().numpy() for one in (came, greatest.exp(), best == wanted)]


def _score(seen: Sequence[Sequence[npt.NDArray[np.float32]]], characters: float | None) -> LanguageScore:
    """``characters`` a token, where they are known."""
    log_probs, confidence, correct = (
        np.concatenate([one.ravel() for one in part]) for part in zip(*seen, strict=True)
    )
    nats = -float(log_probs.mean(dtype=np.float64))
    return LanguageScore(
        nats_per_token=nats,
        nats_per_character=None if characters is None else nats / characters,
        accuracy=float(correct.mean(dtype=np.float64)),
        perplexity=math.exp(min(nats, 700.0)),
        tokens=len(log_probs),
        log_probs=log_probs,
        confidence=confidence,
        correct=correct.astype(np.bool_),
    )
