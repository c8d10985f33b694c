"""Attention over a pool of keys and values for one batch of query tokens, float32 on the CPU, on several
threads.

The arithmetic is in `kernels`. No paths are built here and no memory is kept.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from tokenzero.policy.kernels import I32, Floats, attend

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
        self.score = np.empty((threads, read.shape[1]), np.float32)

    def __call__(
        self, query: Floats, keys: Floats, values: Floats, window: int, scale: np.float32, out: Floats
    ) -> None:
        """Attention of ``query`` f32 [N, H, D] over the pools into ``out`` f32 [N, H, Dv]."""
        read, lengths, score = self.read, self.lengths, self.score
        tokens = len(read)
        work = tokens * min(read.shape[1], window) * query.shape[1] * query.shape[2]
        parts = min(self.threads, tokens, work // WORK_PER_THREAD)
        if parts <= 1:
            attend(query, keys, values, read, lengths, window, scale, 0, tokens, score[0], out)
            return
        cuts = [tokens * part // parts for part in range(parts + 1)]
        others = [
            _helpers(self.threads).submit(
                attend, query, keys, values, read, lengths, window, scale,
                cuts[part], cuts[part + 1], score[part], out,
            )
            for part in range(1, parts)
        ]  # fmt: skip
        attend(query, keys, values, read, lengths, window, scale, 0, cuts[1], score[0], out)
        for other in others:
            other.result()
