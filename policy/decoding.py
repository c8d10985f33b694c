"""Decoding without a tree: sampling with the usual filters, on the same engine and ledger that search uses.

Many continuations grow in one batch; a caller's ``stop`` ends each. It does not verify answers and does not choose
among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, Ids, Step

Stop = Callable[[int, list[int]], bool]
"""(row, tokens so far) -> whether this continuation is finished."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 filter nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; give 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a number above 0 and at most 1")

    def choose(self, logits: torch.Tensor, rng: np.random.Generator) -> Ids:
        """Next token of each row of ``logits`` f32 [L, V], by the Gumbel-max trick; i64 [L]."""
        if self.temperature == 0:
            return np.asarray(logits.argmax(dim=-1).cpu().numpy(), np.int64)
        scores = self._filtered(logits / self.temperature).cpu().numpy()
        noise = rng.gumbel(size=scores.shape).astype(np.float32)
        return np.asarray((scores + noise).argmax(axis=-1), np.int64)

    def _filtered(self, scores: torch.Tensor) -> torch.Tensor:
        if self.top_k:
            kth = scores.topk(min(self.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < kth, -torch.inf)
        if self.top_p < 1:
            ordered, order = scores.sort(dim=-1, descending=True)
            share = ordered.softmax(dim=-1)
            beyond = share.cumsum(dim=-1) - share >= self.top_p
            scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
        return scores


def sample(
    engine: Engine,
    start: Step,
    sampling: Sampling,
    rng: np.random.Generator,
    stop: Stop,
    *,
    banned: Sequence[int] = (),
    max_new_tokens: int,
) -> tuple[list[list[int]], list[float]]:
    """One continuation of each state of ``start`` (its logits are those of the next token).

    Returns the tokens, the last one being the one that stopped it, and each continuation's log-probability under
    the unfiltered policy. A token that ends a continuation is not forwarded. States made here are released.
    """
    rows = np.arange(len(start.states))
    states, logits = start.states, start.logits
    tokens: list[list[int]] = [[] for _ in rows]
    log_probability = [0.0] * len(rows)
    made: list[Ids] = []
    try:
        while rows.size:
            if len(banned):
                logits = logits.clone()
                logits[:, list(banned)] = -torch.inf
            chosen = sampling.choose(logits, rng)
            picked = torch.from_numpy(chosen).to(logits.device)[:, None]
            shares = logits.log_softmax(-1).gather(1, picked)[:, 0].tolist()
            going = np.ones(len(rows), np.bool_)
            for index, (row, token) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
                tokens[row].append(token)
                log_probability[row] += shares[index]
                going[index] = not (stop(row, tokens[row]) or len(tokens[row]) >= max_new_tokens)
            rows = rows[going]
            if rows.size:
                step = engine.extend(states[going], chosen[going])
                states, logits = step.states, step.logits
                made.append(states)
    finally:
        for created in reversed(made):
            engine.release(created)
    return tokens, log_probability
