"""Who says how likely text is while a student learns or plays: an n-gram table or a model, with one face.

A referee answers with whole distributions, where a teacher proposes a few candidates. It is never trained
here, and what its answers are worth as rewards is `value.text_rewards`' affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.teachers.ngram import NgramTeacher
from tokenzero.teachers.ngram_kernels import NONE

Ids = NDArray[np.int64]

LEAST = -100.0
"""Nats: what a model calls impossible is said to be this unlikely, so that no sum of rewards is infinite."""
_LOGITS = 1 << 24  # numbers in one batch of logits: 64 MiB of them


class Referee(Protocol):
    """Log-probabilities in nats of next tokens, all finite. Same tokens, same answer."""

    @property
    def name(self) -> str:
        """What records call it."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def forwarded(self) -> int:
        """Tokens forwarded so far, 0 for tables."""

    def row_log_probs(self, ids: Ids, truth: Ids | None = None) -> NDArray[np.float32]:
        """f32 [R, W, V]: the token after each position of ``ids`` i64 [R, W], given the tokens of its row up
        to and with that position.

        ``truth`` i64 [R, W] is the token that really came next, for referees that must forget that they have
        seen it; others take no notice.
        """

    def next_log_probs(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """f32 [L, V]: the token after each of L sequences, which may be empty."""

    def token_log_probs(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """f64 [T]: each token of a running text, given those before it."""


class NgramReferee:
    """A counted table; of what came before, the last order - 1 tokens matter. A row begins without context.

    ``held_out`` is for the very text that was counted: each answer is then that of a table from which the
    occurrence asked about was left out.
    """

    forwarded = 0

    def __init__(self, teacher: NgramTeacher, *, held_out: bool = False) -> None:
        self.teacher = teacher
        self.name = teacher.name
        self.vocab_size = teacher.vocab_size
        self.held_out = held_out

    def row_log_probs(self, ids: Ids, truth: Ids | None = None) -> NDArray[np.float32]:
        """See `Referee`. What is left out without ``truth`` is each next token of the row, and nothing at
        its end.
        """
        if self.held_out and truth is None:
            truth = np.concatenate([ids[:, 1:], np.full((len(ids), 1), NONE)], axis=1)
        return self.teacher.row_log_probs(ids, truth if self.held_out else None)

    def next_log_probs(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Referee`. Nothing is left out here: nobody knows which occurrence is meant."""
        return self.teacher.next_log_probs(sequences)

    def token_log_probs(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """See `Referee`. Raises InputError for a token outside the vocabulary."""
        return self.teacher.token_log_probs(tokens, held_out=self.held_out)


class ModelReferee:
    """A model with the student's tokenizer, asked by plain batched forwards without a cache.

    Where it has nothing to read (an empty sequence, the first token of a text) every token is as likely as
    any other. Of longer sequences than its positions it reads the last ones. In a running text each token
    but the first ones is judged by at least half of the model's positions.
    """

    def __init__(self, student: Student, name: str = "model") -> None:
        self.name = name
        self.vocab_size = student.vocab_size
        self.forwarded = 0
        self._student = student

    def row_log_probs(self, ids: Ids, truth: Ids | None = None) -> NDArray[np.float32]:
        """See `Referee`. Raises InputError for rows longer than the model's positions."""
        rows, width = ids.shape
        if width > self._student.max_length:
            raise InputError(
                f"referee {self.name} has {self._student.max_length} positions and was given rows of {width} "
                "tokens; give shorter windows"
            )
        out = np.empty((rows, width, self.vocab_size), dtype=np.float32)
        for part in self._batches(rows, max(1, width)):
            out[part] = self._forward(torch.from_numpy(np.ascontiguousarray(ids[part]))).cpu().numpy()
        return out

    def next_log_probs(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Referee`."""
        out = np.full((len(sequences), self.vocab_size), -np.log(self.vocab_size), dtype=np.float32)
        rows = [row for row, sequence in enumerate(sequences) if len(sequence) > 0]
        longest = min(self._student.max_length, max((len(sequences[row]) for row in rows), default=1))
        for places in self._batches(len(rows), longest):
            part = rows[places]
            tails = [list(sequences[row])[-longest:] for row in part]
            width = max(len(tail) for tail in tails)
            ids = torch.tensor([tail + [self._student.pad_id] * (width - len(tail)) for tail in tails])
            lengths = torch.tensor([len(tail) for tail in tails])
            last = self._forward(ids, lengths)[torch.arange(len(tails)), lengths - 1]
            out[part] = last.cpu().numpy()
        return out

    def token_log_probs(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """See `Referee`."""
        text = np.asarray(tokens, dtype=np.int64)
        out = np.full(len(text), -np.log(self.vocab_size), dtype=np.float64)
        width = min(self._student.max_length, max(1, len(text) - 1))
        stride = max(1, width // 2)
        starts = np.arange(0, max(1, len(text) - 1 - width + stride), stride)
        starts = np.unique(np.minimum(starts, len(text) - 1 - width)) if len(text) > 1 else starts[:0]
        judged = 1  # tokens of the text that have their answer
        for part in self._batches(len(starts), width):
            ids = text[starts[part, None] + np.arange(width + 1)]
            found = self._forward(torch.from_numpy(ids[:, :-1].copy())).cpu()
            own = found.gather(2, torch.from_numpy(ids[:, 1:, None].copy()))[:, :, 0].double().numpy()
            for start, log_probs in zip(starts[part].tolist(), own, strict=True):
                out[judged : start + width + 1] = log_probs[judged - start - 1 :]
                judged = start + width + 1
        return out

    def _batches(self, rows: int, width: int) -> list[slice]:
        size = max(1, _LOGITS // (width * self.vocab_size))
        return [slice(at, min(rows, at + size)) for at in range(0, rows, size)]

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Log-probabilities f32 [R, W, V]; ``lengths`` i64 [R] where rows end in padding."""
        if ids.numel() == 0:
            return torch.empty((*ids.shape, self.vocab_size))
        ids = ids.to(self._student.device)
        mask = {}
        if lengths is not None:
            places = torch.arange(ids.shape[1], device=ids.device)
            mask = {"attention_mask": (places < lengths.to(ids.device)[:, None]).long()}
        logits = self._student.forward(ids, use_cache=False, **mask).logits
        self.forwarded += ids.numel() if lengths is None else int(lengths.sum())
        found = logits.log_softmax(-1)
        if found.isnan().any():
            raise InputError(f"referee {self.name}: its output is not a number; its weights are damaged")
        return found.clamp_min(LEAST)
