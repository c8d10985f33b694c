"""A Python function as judge, and a judge that is wrong on purpose, for experiments with known truth.

Neither forwards a model. Which functions exist is not known here: settings name one as "package.module:name"
(value/judge_config.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Judge, Verdicts, checked_verdicts, close, fingerprint, paired, tokens_of


class FunctionJudge:
    """function(prompt, partial) -> -1, 0, 1, or True for +1 and False for -1 (it holds, it does not).

    version: the caller's promise; another one when the function's answers change. Anything else it returns,
    or raises, is 0 and counted in `failures`. Raises InputError for an empty name or version.
    """

    def __init__(self, name: str, function: Callable[[str, str], int | bool], version: str) -> None:
        if not name or not version:
            raise InputError(f"function judge has name {name!r} and version {version!r}: give both")
        self.name = name
        self.version = fingerprint("function", name, version)
        self.failures = 0
        self._function = function

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = paired(prompts, partials)
        return np.array([self._verdict(prompt, partial) for prompt, partial in pairs], dtype=np.int8)

    def _verdict(self, prompt: str, partial: str) -> int:
        try:
            said = self._function(prompt, partial)
        # The user's code may raise anything; the run must go on without it.
        except Exception:  # noqa: BLE001
            said = None
        if isinstance(said, (bool, np.bool_)):
            return 1 if said else -1
        if isinstance(said, (int, np.integer)) and said in (-1, 0, 1):
            return int(said)
        self.failures += 1
        return 0


class NoisyJudge:
    """The inner judge's verdict with probability `right`, its opposite otherwise.

    Which it is depends on (seed, prompt, partial) alone, so the same pair always gets the same verdict and
    another run too. A neutral verdict has no opposite and stays. Every partial answer draws for itself: the
    errors along one answer are independent. Raises InputError when `right` is outside [0, 1].
    """

    def __init__(self, inner: Judge, right: float, *, seed: int = 0, name: str = "noisy") -> None:
        self.name = name
        self.inner = inner
        self.right = check_right(right)
        self.seed = seed

    @property
    def version(self) -> str:
        """Hash of the inner judge's version, `right` and the seed."""
        return fingerprint("noisy", self.inner.version, self.right, self.seed)

    @property
    def failures(self) -> int:
        """The inner judge's."""
        return self.inner.failures

    @property
    def tokens(self) -> int:
        """Tokens that the inner judge forwarded."""
        return tokens_of(self.inner)

    def close(self) -> None:
        """Close the inner judge."""
        close(self.inner)

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = paired(prompts, partials)
        true = checked_verdicts(self.inner.judge(prompts, partials), len(pairs))
        draws = np.array([self._draw(prompt, partial) for prompt, partial in pairs])
        return np.where(draws < self.right, true, -true).astype(np.int8)

    def _draw(self, prompt: str, partial: str) -> float:
        """Uniform in [0, 1)."""
        key = json.dumps([self.seed, prompt, partial]).encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def check_right(right: float) -> float:
    """`right` itself. Raises InputError outside [0, 1]."""
    if not 0.0 <= right <= 1.0:
        raise InputError(f"a noisy judge is right with probability {right}: give a number from 0 to 1")
    return right
