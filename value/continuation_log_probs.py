"""How probable a causal language model finds given continuations of given contexts.

One plain forward for each batch of whole sequences, padded at the right; nothing is sampled and no keys and
values are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt

Reals = NDArray[np.float64]


def continuation_tokens(student: Student, text: str) -> list[int]:
    """Token ids of a text that goes on after another, without special tokens; [] when it has none.

    The text is tokenized by itself, as the student writes it: its tokens follow the prompt's and never merge
    with them. Raises InputError for symbols outside the vocabulary.
    """
    ids: list[int] = list(student.tokenizer(text, add_special_tokens=False)["input_ids"])
    if ids:
        encode_prompt(student.tokenizer, text)  # refuses what the vocabulary does not hold
    return ids


def continuation_log_probs(
    student: Student,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    batch_size: int = 16,
) -> list[Reals]:
    """Natural logarithms of the probability of each token of continuations[i], f64 [len(continuations[i])].

    Each is conditioned on contexts[i], which must not be empty, and on the tokens before it. Sequences of
    like length share a batch; a batch's width may change the last bits of a float32 forward. Raises
    InputError for an empty context and for a sequence longer than the model's positions.
    """
    for context, continuation in zip(contexts, continuations, strict=True):
        length = len(context) + len(continuation)
        if not context:
            raise InputError("a continuation needs a context of at least one token; give a prompt")
        if length > student.max_length:
            raise InputError(
                f"prompt and answer have {length} tokens, the scoring model holds {student.max_length}; "
                "use a model with more positions"
            )
    found: list[Reals] = [np.zeros(0)] * len(contexts)
    asked = [row for row, continuation in enumerate(continuations) if continuation]
    asked.sort(key=lambda row: len(contexts[row]) + len(continuations[row]))
    for start in range(0, len(asked), batch_size):
        rows = asked[start : start + batch_size]
        sequences = [[*contexts[row], *continuations[row]] for row in rows]
        log_probs = _next_token_log_probs(student, sequences)
        for place, row in enumerate(rows):
            first, last = len(contexts[row]) - 1, len(sequences[place]) - 1
            found[row] = log_probs[place, first:last]
    return found


def _next_token_log_probs(student: Student, sequences: Sequence[Sequence[int]]) -> Reals:
    """f64 [B, T - 1]: entry t is the log-probability of token t + 1 given those up to t."""
    ids, logits = next_token_logits(student, sequences)
    chosen = logits.gather(-1, ids[:, 1:, None]).squeeze(-1) - logits.logsumexp(-1)
    array: Reals = chosen.double().cpu().numpy()
    return array


@torch.no_grad()
def next_token_logits(
    student: Student, sequences: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids i64 [B, T] of B sequences, padded at the right to the longest, and logits [B, T - 1, V] in
    the model's own precision: those at t are for the token at t + 1. Both are on the student's device; what
    is said at padding means nothing. One forward, without gradients.
    """
    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), student.pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    ids, mask = ids.to(student.device), mask.to(student.device)
    logits: torch.Tensor = student.forward(ids, attention_mask=mask, use_cache=False).logits
    return ids, logits[:, :-1]
