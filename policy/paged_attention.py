"""Attention over a pool of keys and values for one batch of query tokens, float32 on the CPU, on several
threads.

The arithmetic is in `kernels`. No paths are built here and no memory is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from tokenzero.policy.kernels import I32, Floats, attend, attend_backward

NO_WINDOW = 2**31 - 1
WORK_PER_THREAD = 1 << 18
"""Products of queries and keys below which a second thread costs more than it saves."""


@lru_cache(maxsize=1)
def _helpers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="attention")


class Attend:
    """`attend` over one batch, on up to ``threads`` threads; their number changes no bit.

    ``read`` i32 [N, P], ``lengths`` i32 [N]: what the N query tokens of the batch attend to.
    """

    def __init__(self, read: I32, lengths: I32, threads: int) -> None:
        self.read, self.lengths, self.threads = read, lengths, threads
        self.score = np.empty((threads, 2, read.shape[1]), np.float32)

    def __call__(
        self, query: Floats, keys: Floats, values: Floats, window: int, scale: np.float32, out: Floats
    ) -> None:
        """Attention of ``query`` f32 [N, H, D] over the pools into ``out`` f32 [N, H, Dv]."""
        read, lengths = self.read, self.lengths

        def tokens(start: int, stop: int, score: Floats) -> None:
            attend(query, keys, values, read, lengths, window, scale, start, stop, score[0], out)

        self._share(tokens, len(read), self._work(query, window))

    def backward(
        self, query: Floats, keys: Floats, values: Floats, window: int, scale: np.float32, of_out: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Gradients of ``query``, ``keys`` and ``values``, of their shapes, from that of ``out``."""
        read, lengths = self.read, self.lengths
        found = np.empty_like(query), np.zeros_like(keys), np.zeros_like(values)

        # Tokens share ancestors: threads take groups of heads, so that no two add to one place.
        def groups(start: int, stop: int, score: Floats) -> None:
            attend_backward(
                query, keys, values, read, lengths, window, scale, start, stop, score[0], score[1],
                of_out, found[0], found[1], found[2],
            )  # fmt: skip

        self._share(groups, keys.shape[1], 3 * self._work(query, window))
        return found

    def _work(self, query: Floats, window: int) -> int:
        return min(int(self.read.shape[1]), window) * int(query.size)

    def _share(self, run: Callable[[int, int, Floats], None], count: int, work: int) -> None:
        """``run(start, stop, scratch)`` over ``count`` parts, on as many threads as the work is worth."""
        threads = min(self.threads, count, work // WORK_PER_THREAD)
        if threads <= 1:
            run(0, count, self.score[0])
            return
        cuts = [count * part // threads for part in range(threads + 1)]
        others = [
            _helpers(self.threads).submit(run, cuts[part], cuts[part + 1], self.score[part])
            for part in range(1, threads)
        ]
        run(0, cuts[1], self.score[0])
        for other in others:
            other.result()
