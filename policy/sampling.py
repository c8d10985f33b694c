"""How the next token of an answer is drawn: penalties, temperature and the usual filters, row by row.

The order is that of transformers' ``generate``: bias, penalties, temperature, top-k, top-p, min-p; and each
filter keeps exactly what transformers' own keeps. Every row has its own options and its own random stream,
so its token does not depend on the rows beside it. Nothing is forwarded here and no answer is ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError

Ids = npt.NDArray[np.int64]

LARGEST_BIAS = 100.0
LARGEST_PENALTY = 2.0
"""The ranges of the OpenAI API."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The defaults draw from the policy as it is.

    temperature: divides the logits; 0 takes the likeliest token. temperature_end, temperature_tokens: the
        temperature moves in a straight line from ``temperature`` to ``temperature_end`` over the first
        ``temperature_tokens`` tokens of the answer, and stays there; None keeps it.
    top_k: the so many likeliest tokens stay; 0 is all. top_p: the fewest tokens stay whose probabilities add
        up to it. min_p: tokens stay with at least this share of the likeliest one's probability.
    repetition_penalty: divides positive and multiplies negative logits of the tokens in prompt and answer
        (CTRL, Keskar et al., arXiv:1909.05858, section 4.1). presence_penalty, frequency_penalty: taken off
        the logits of the answer's tokens, once and for each time (the OpenAI API's definition).
    logit_bias: (token, what is added to its logit) pairs, before everything else.

    Raises InputError for a number out of its range.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    temperature_end: float | None = None
    temperature_tokens: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("temperature", "temperature_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:  # False for NaN, as below
                raise InputError(f"{name} is {value}; give 0 (greedy) or more")
        for name in ("top_k", "temperature_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a number above 0 and at most 1 (off)")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; give a number from 0 (off) to 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty}; give a number above 0, where 1 is off"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not -LARGEST_PENALTY <= getattr(self, name) <= LARGEST_PENALTY:
                raise InputError(
                    f"{name} is {getattr(self, name)}; give a number from -2 to 2, where 0 is off"
                )
        if (self.temperature_end is None) != (self.temperature_tokens == 0):
            raise InputError(
                f"temperature_end is {self.temperature_end} and temperature_tokens is "
                f"{self.temperature_tokens}; give both or neither"
            )
        self._check_bias()

    def _check_bias(self) -> None:
        for token, bias in self.logit_bias:
            if token < 0 or not -LARGEST_BIAS <= bias <= LARGEST_BIAS:
                raise InputError(
                    f"logit_bias is {bias} for token {token}; give a number from -100 to 100 and a token of "
                    "at least 0"
                )
        times = Counter(token for token, _ in self.logit_bias)
        for token in times:
            if times[token] > 1:
                raise InputError(f"logit_bias names token {token} twice; name each once")

    def check_vocabulary(self, size: int) -> None:
        """Raise InputError for a bias on a token outside a vocabulary of ``size``."""
        for token, _ in self.logit_bias:
            if token >= size:
                raise InputError(f"logit_bias names token {token}; the vocabulary ends at {size - 1}")

    def temperature_at(self, length: int) -> float:
        """The temperature after ``length`` answer tokens."""
        if self.temperature_end is None:
            return self.temperature
        share = min(1.0, length / self.temperature_tokens)
        return self.temperature + share * (self.temperature_end - self.temperature)


@dataclass(slots=True)
class Row:
    """An answer in the making: how its tokens are drawn, its own random stream, and the tokens it has so
    far. The caller appends what is drawn to ``answer``.
    """

    sampling: Sampling
    rng: np.random.Generator
    prompt: Sequence[int] = ()
    answer: list[int] = field(default_factory=list)


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> Ids:
    """The next token of each row, i64 [L], for ``logits`` f32 [L, V], by the Gumbel-max trick.

    A logit of minus infinity is never drawn. A row takes V numbers from its stream for each token, whatever
    the filters keep, and none at temperature 0.
    """
    chosen = np.empty(len(rows), np.int64)
    for sampling, members in _alike(rows).items():
        own = [rows[index] for index in members]
        pick = torch.as_tensor(members, device=logits.device)
        scores = logits if len(members) == len(rows) else logits[pick]
        scores = penalised(scores, sampling, own)
        temperatures = [sampling.temperature_at(len(row.answer)) for row in own]
        best = scores.argmax(dim=-1).cpu().numpy()
        warm = [index for index, temperature in enumerate(temperatures) if temperature > 0]
        if warm:
            warmed = scores if len(warm) == len(own) else scores[torch.as_tensor(warm, device=scores.device)]
            divisor = torch.tensor([temperatures[i] for i in warm], dtype=scores.dtype, device=scores.device)
            kept = filtered(warmed / divisor[:, None], sampling).cpu().numpy()
            noise = np.empty(kept.shape)
            for at, index in enumerate(warm):
                noise[at] = own[index].rng.gumbel(size=kept.shape[1])
            noise += kept
            best[warm] = noise.argmax(axis=1)
        chosen[members] = best
    return chosen


def _alike(rows: Sequence[Row]) -> dict[Sampling, list[int]]:
    """The rows by their options."""
    first = rows[0].sampling
    if all(row.sampling is first for row in rows):  # nearly always, and cheaper than hashes
        return {first: list(range(len(rows)))}
    groups: dict[Sampling, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.sampling, []).append(index)
    return groups


def penalised(logits: torch.Tensor, sampling: Sampling, rows: Sequence[Row]) -> torch.Tensor:
    """``logits`` f32 [L, V] with the bias and the penalties of ``sampling``; ``rows`` say what was written.

    Tokens outside the vocabulary are passed over.
    """
    repeated = sampling.repetition_penalty != 1.0
    written = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
    if not (repeated or written or sampling.logit_bias):
        return logits
    logits = logits.clone()
    if sampling.logit_bias:
        tokens, bias = zip(*sampling.logit_bias, strict=True)
        logits[:, list(tokens)] += torch.tensor(bias, dtype=logits.dtype, device=logits.device)
    for scores, row in zip(logits, rows, strict=True):
        if repeated:
            seen = _inside({*row.prompt, *row.answer}, scores)
            known = scores[seen]
            penalty = sampling.repetition_penalty
            scores[seen] = torch.where(known < 0, known * penalty, known / penalty)
        if written:
            counts = torch.bincount(_inside(row.answer, scores), minlength=scores.shape[0])
            scores -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
    return logits


def _inside(tokens: Sequence[int] | set[int], scores: torch.Tensor) -> torch.Tensor:
    inside = [token for token in tokens if token < scores.shape[0]]
    return torch.tensor(inside, dtype=torch.int64, device=scores.device)


def filtered(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """``scores`` f32 [L, V], already divided by the temperature, with minus infinity where top-k, top-p or
    min-p leave a token out. The likeliest token always stays.
    """
    if sampling.top_k:
        kth = scores.topk(min(sampling.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = scores.sort(dim=-1, descending=False)
        beyond = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p
        beyond[:, -1] = False
        scores = scores.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    if sampling.min_p > 0:
        shares = scores.softmax(dim=-1)
        best, place = shares.max(dim=-1, keepdim=True)
        beyond = shares < sampling.min_p * best
        scores = scores.masked_fill(beyond.scatter(1, place, False), -torch.inf)
    return scores
