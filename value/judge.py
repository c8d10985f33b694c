"""Judges: what a partial answer looks like from outside, as -1 reject, 0 neutral or +1 accept.

The verdict shifts the leaf value, clip(v + eta * judge, -1, 1), so that the search looks elsewhere sooner.
The idea is LMGT's (Deng et al. 2024, arXiv 2409.04744, "LMGT: Optimizing Exploration-Exploitation Balance in
Reinforcement Learning through Language Model Guided Trade-offs"), there on rewards. This file holds the
protocol, the shift and the checks that every judge needs; each kind of judge has a file of its own and is
built from settings by value/judge_config.py. It does not anneal eta (selfplay/) and verdicts never reach a
training target (value/targets.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError

Verdicts = NDArray[np.int8]


class Judge(Protocol):
    """judge(prompts, partials), both of length L -> int8 [L] in {-1, 0, 1}. Same version and pair, same
    verdict. What cannot be judged, for whatever reason, is 0 and is counted.
    """

    @property
    def name(self) -> str:
        """Stable, and unique among the judges that are combined: counts are kept under it."""

    @property
    def version(self) -> str:
        """Changes whenever a verdict may: a hash of settings, texts and weights."""

    @property
    def failures(self) -> int:
        """How many verdicts could not be made or read. They became 0."""

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length, and for nothing else."""


def shift(value: ArrayLike, verdict: ArrayLike, eta: float) -> NDArray[np.float32]:
    """clip(value + eta * verdict, -1, 1), float32, shapes broadcast. eta >= 0, else InputError."""
    if not 0.0 <= eta < float("inf"):
        raise InputError(f"judge eta is {eta}: use 0 (off) or a positive number, usually below 1")
    moved = np.asarray(value, dtype=np.float64) + eta * np.asarray(verdict, dtype=np.float64)
    return np.clip(moved, -1.0, 1.0).astype(np.float32)


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits of the SHA-256 of ``parts`` as JSON: the version of a judge made of them."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def paired(prompts: Sequence[str], partials: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs to judge. Raises InputError when the two lists differ in length."""
    if len(prompts) != len(partials):
        raise InputError(f"judge got {len(prompts)} prompts and {len(partials)} partials: give one each")
    return list(zip(prompts, partials, strict=True))


def checked_verdicts(raw: ArrayLike, length: int) -> Verdicts:
    """``raw`` as int8 [length]. Raises InputError when it is not one of -1, 0 and 1 for each pair: that is a
    fault in a judge's code, not a verdict that failed.
    """
    verdicts = np.asarray(raw)
    if verdicts.shape != (length,) or not np.isin(verdicts, (-1, 0, 1)).all():
        raise InputError(f"the judge must return {length} verdicts of -1, 0 or 1, got shape {verdicts.shape}")
    return verdicts.astype(np.int8)


def tokens_of(judge: Judge) -> int:
    """Tokens that a judge has forwarded so far. A judge that forwards none need not have ``tokens``."""
    return int(getattr(judge, "tokens", 0))


def close(judge: Judge) -> None:
    """Let go of what a judge holds open. A judge that holds nothing need not have ``close``."""
    let_go = getattr(judge, "close", None)
    if let_go is not None:
        let_go()


def forget(judge: Judge) -> None:
    """Have every memory of verdicts in a judge emptied, those of the judges inside it too."""
    empty = getattr(judge, "forget_verdicts", None)
    if empty is not None:
        empty()
    for inner in (getattr(judge, "inner", None), *getattr(judge, "members", ())):
        if inner is not None:
            forget(inner)
