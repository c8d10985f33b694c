"""Log-probabilities of given sequences, for ``logprobs`` and ``echo``: one plain forward each, in batches.

They are those of the model itself: no temperature, no filter, no search. Nothing is sampled and no keys and
values are kept.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.value.continuation_log_probs import next_token_logits

ROWS = 16
LOGITS = 1 << 26
"""Most logits of one batch, unless a single sequence has more."""
LEAST = -9999.0
"""What the OpenAI API says for a probability of zero."""


@dataclass(frozen=True)
class Scored:
    """Of each token of a sequence but the first: its log-probability in nats given those before it, and the
    likeliest tokens at its place with theirs, best first.
    """

    log_probs: list[float]
    top: list[list[tuple[int, float]]]


def score(
    student: Student, sequences: Sequence[Sequence[int]], top: int
) -> Generator[None, None, list[Scored]]:
    """Score sequences of at least one token, with the ``top`` likeliest tokens at each place; one batch for
    each ``next``.

    Sequences of like length share a batch; a batch's width may change the last bits. Raises InputError for a
    sequence longer than the model's positions.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    if longest > student.max_length:
        raise InputError(f"a sequence has {longest} tokens, the model takes {student.max_length}; shorten it")
    found: list[Scored] = [Scored([], []) for _ in sequences]
    order = sorted((len(sequence), row) for row, sequence in enumerate(sequences) if len(sequence) > 1)
    while order:
        width = order[-1][0]
        rows = [row for _, row in order[-max(1, min(ROWS, LOGITS // (width * student.vocab_size))) :]]
        del order[-len(rows) :]
        batch = _forward(student, [sequences[row] for row in rows], top)
        for row, scored in zip(rows, batch, strict=True):
            found[row] = scored
        yield
    return found


def _forward(student: Student, sequences: Sequence[Sequence[int]], top: int) -> list[Scored]:
    ids, logits = next_token_logits(student, sequences)
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.gather(-1, ids[:, 1:, None])[..., 0].clamp(min=LEAST).tolist()
    if top:
        best = log_probs.topk(min(top, log_probs.shape[-1]), dim=-1)
        values, tokens = best.values.clamp(min=LEAST).tolist(), best.indices.tolist()
    scored: list[Scored] = []
    for row, sequence in enumerate(sequences):
        places = range(len(sequence) - 1)
        likeliest = [list(zip(tokens[row][t], values[row][t], strict=True)) if top else [] for t in places]
        scored.append(Scored(chosen[row][: len(places)], likeliest))
    return scored
