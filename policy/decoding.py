"""Decoding without a tree: sampling with the usual filters, and beam search, on the engine and ledger that
search uses.

Many continuations grow in one batch; a caller's callback says when each ends. It does not verify answers;
sampling does not choose among them either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, Ids, Step

Stop = Callable[[int, list[int]], bool]
"""(row, tokens so far) -> whether this continuation is finished."""

End = Literal["going", "ended", "refused", "solved"]
"""What a callback says of a beam: it may grow, it is an answer, it can never be one, or nothing better is
needed.
"""

Judge = Callable[[int, list[int]], End]
"""(row, tokens so far) -> how this beam stands."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 filter
    nothing.
    """

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

    Returns the tokens, the last one being the one that stopped it, and each continuation's log-probability
    under the unfiltered policy. A token that ends a continuation is not forwarded. States made here are
    released.
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


@dataclass(frozen=True)
class Beam:
    """A continuation: ``tokens``, the sum of their ``log_probability`` in nats, and how it ended."""

    tokens: list[int]
    log_probability: float
    end: End = "going"
    state: int = -1

    @property
    def score(self) -> tuple[bool, bool, float]:
        """Solved before ended before refused; then the higher mean log-probability per token."""
        return self.end == "solved", self.end != "refused", self.log_probability / max(1, len(self.tokens))


def beam(
    engine: Engine,
    start: Step,
    width: int,
    judge: Judge,
    *,
    banned: Sequence[int] = (),
    max_new_tokens: int,
) -> tuple[list[list[Beam]], list[int]]:
    """Beam search from each state of ``start``: finished beams, best first, at least one a state; tokens
    forwarded for it.

    Each step keeps the ``width`` likeliest beams that ``judge`` lets grow, out of the likeliest 2 * ``width``
    continuations. A row is over when it is solved, has ``width`` answers or nothing left to grow. Refused
    beams are given only where there is nothing else. A token that ends a beam is not forwarded. Raises
    InputError for ``width`` below 1.
    """
    if width < 1:
        raise InputError(f"beam width is {width}; give at least 1")
    rows = len(start.states)
    live = [[Beam([], 0.0, state=int(state))] for state in start.states]
    finished: list[list[Beam]] = [[] for _ in range(rows)]
    forwarded = [0] * rows
    logits, made = start.logits, []
    for length in range(1, max_new_tokens + 1):
        growing: list[tuple[int, Beam]] = []
        first = 0
        for row, beams in enumerate(live):
            if not beams:
                continue
            block = logits[first : first + len(beams)]
            first += len(beams)
            grown = _grow(
                row, beams, block, width, judge, banned, finished[row], last=length == max_new_tokens
            )
            growing += [(row, hypothesis) for hypothesis in grown]
        live = [[] for _ in range(rows)]
        if not growing:
            break
        parents = np.asarray([hypothesis.state for _, hypothesis in growing], np.int64)
        step = engine.extend(parents, np.asarray([h.tokens[-1] for _, h in growing], np.int64))
        made.append(step.states)
        logits = step.logits
        for (row, hypothesis), state in zip(growing, step.states.tolist(), strict=True):
            forwarded[row] += 1
            live[row].append(Beam(hypothesis.tokens, hypothesis.log_probability, state=state))
    for created in reversed(made):
        engine.release(created)
    return [_best(beams) for beams in finished], forwarded


def _grow(
    row: int,
    beams: list[Beam],
    logits: torch.Tensor,
    width: int,
    judge: Judge,
    banned: Sequence[int],
    finished: list[Beam],
    *,
    last: bool,
) -> list[Beam]:
    """The beams of a row one token longer: those that ended go to ``finished``, at most ``width`` that grow
    come back.
    """
    if len(banned):
        logits = logits.clone()
        logits[:, list(banned)] = -torch.inf
    totals = (
        logits.log_softmax(-1)
        + torch.tensor([b.log_probability for b in beams], device=logits.device)[:, None]
    )
    best, places = totals.flatten().topk(min(2 * width, totals.numel()))
    growing: list[Beam] = []
    for total, place in zip(best.tolist(), places.tolist(), strict=True):
        parent, token = divmod(place, logits.shape[1])
        if total == -math.inf or len(growing) == width:
            break
        tokens = [*beams[parent].tokens, token]
        end = judge(row, tokens)
        if end == "going" and not last:
            growing.append(Beam(tokens, total, state=beams[parent].state))
        else:
            finished.append(Beam(tokens, total, "ended" if end == "going" else end))
    answers = sum(b.end != "refused" for b in finished)
    return [] if answers >= width or any(b.end == "solved" for b in finished) else growing


def _best(beams: list[Beam]) -> list[Beam]:
    ordered = sorted(beams, key=lambda b: b.score, reverse=True)
    return [b for b in ordered if b.end != "refused"] or ordered[:1]
