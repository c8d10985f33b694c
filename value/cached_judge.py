"""A judge with a memory: the verdict of each (version, prompt, partial) is asked for once.

It keeps verdicts in memory alone and judges nothing itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Judge, Verdicts, checked_verdicts, close, paired, tokens_of


class CachedJudge:
    """Remembers the verdict of each (prompt, partial) under the inner judge's version, so that another
    version is asked anew; repeats inside one batch are asked once.

    `calls` counts the pairs handed to the inner judge, `hits` those answered from memory. At most `capacity`
    verdicts are kept, the least recently used leave first. When the inner judge counts a failure, the
    neutral verdicts of that batch are not kept: one of them stands for the failure, and a server that was
    down may be up the next time. Raises InputError when the inner judge returns something other than one
    verdict of -1, 0 or 1 per pair.
    """

    def __init__(self, inner: Judge, capacity: int = 100_000) -> None:
        if capacity < 1:
            raise InputError(f"judge cache capacity is {capacity}: use 1 or more")
        self.inner = inner
        self.capacity = capacity
        self.calls = 0
        self.hits = 0
        self._known: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    @property
    def name(self) -> str:
        """The inner judge's."""
        return self.inner.name

    @property
    def version(self) -> str:
        """The inner judge's."""
        return self.inner.version

    @property
    def failures(self) -> int:
        """The inner judge's; a verdict from memory never failed."""
        return self.inner.failures

    @property
    def tokens(self) -> int:
        """Tokens that the inner judge forwarded."""
        return tokens_of(self.inner)

    def forget_verdicts(self) -> None:
        """Empty the memory."""
        self._known.clear()

    def close(self) -> None:
        """Close the inner judge."""
        close(self.inner)

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L], the inner judge's verdicts."""
        version = self.inner.version
        keys = [(version, prompt, partial) for prompt, partial in paired(prompts, partials)]
        unknown = [key for key in dict.fromkeys(keys) if key not in self._known]
        answers = {key: self._known[key] for key in keys if key in self._known}
        failures = self.inner.failures
        if unknown:
            raw = self.inner.judge([key[1] for key in unknown], [key[2] for key in unknown])
            answers.update(zip(unknown, checked_verdicts(raw, len(unknown)).tolist(), strict=True))
        failed = self.inner.failures > failures
        self.calls += len(unknown)
        self.hits += len(keys) - len(unknown)
        doubtful = {key for key in unknown if answers[key] == 0} if failed else set()
        for key in keys:
            if key not in doubtful:
                self._known[key] = answers[key]
                self._known.move_to_end(key)
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)
        return np.array([answers[key] for key in keys], dtype=np.int8)
