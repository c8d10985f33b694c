"""Attention over scattered slots of a pool of keys and values, for float32 on the CPU.

Every query token brings the list of slots it attends to (its ancestors and itself), so leaves of one tree
share what lies above them without a copy. Page size is one token. The kernels are compiled with
floating-point reassociation and contraction, nothing else of "fast math": a dot product may be summed in
lanes, always the same ones, so results are the same bits from run to run. They build no paths and own no
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
I32 = NDArray[np.int32]
Ids = NDArray[np.int64]

NO_WINDOW = 2**31 - 1
WORK_PER_THREAD = 1 << 18
"""Products of queries and keys below which a second thread costs more than it saves."""


def kernel(function: F) -> F:
    """Compile a kernel that neither allocates nor holds the interpreter's lock."""
    options: dict[str, Any] = {
        "cache": True,
        "error_model": "numpy",
        "nogil": True,
        "fastmath": {"reassoc", "contract", "nsz"},
        "_nrt": False,
    }
    return cast("F", njit(**options)(function))


@kernel
def _exp(x: np.float32) -> np.float32:
    """e to the power of x <= 0, relative error below 2e-7; 0 below -87. Cephes' expf, which vectorises."""
    x = max(x, np.float32(-87.0))
    n = np.float32(np.rint(x * np.float32(1.44269504)))
    r = x - n * np.float32(0.693359375)
    r = r + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    y = p * r * r + r + np.float32(1.0)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@kernel
def write(keys: Floats, values: Floats, slots: Ids, key_pool: Floats, value_pool: Floats) -> None:
    """Row n of ``keys`` f32 [N, G, D] and ``values`` f32 [N, G, Dv] to place ``slots[n]`` of the pools."""
    for n in range(slots.shape[0]):
        slot = slots[n]
        for g in range(keys.shape[1]):
            for d in range(keys.shape[2]):
                key_pool[slot, g, d] = keys[n, g, d]
            for d in range(values.shape[2]):
                value_pool[slot, g, d] = values[n, g, d]


@kernel
def attend(
    query: Floats,
    keys: Floats,
    values: Floats,
    read: I32,
    lengths: I32,
    window: int,
    scale: np.float32,
    start: int,
    stop: int,
    score: Floats,
    out: Floats,
) -> None:
    """softmax(scale * query keys') values for query tokens ``start`` to ``stop``, into ``out`` f32 [N, H,
    Dv].

    query f32 [N, H, D]; keys f32 [S, G, D] and values f32 [S, G, Dv] with H a multiple of G; ``read`` i32
    [N, P] holds the slots, the token's own first, ``lengths`` i32 [N] of them. Only the first ``window``
    are attended to. ``score`` f32 [P] is scratch.
    """
    heads, depth = query.shape[1], query.shape[2]
    groups, width = keys.shape[1], values.shape[2]
    for n in range(start, stop):
        seen = min(int(lengths[n]), window)
        for h in range(heads):
            g = h // (heads // groups)
            q, o = query[n, h], out[n, h]
            top = np.float32(-np.inf)
            for p in range(seen):
                k = keys[read[n, p], g]
                dot = np.float32(0.0)
                for d in range(depth):
                    dot += q[d] * k[d]
                dot *= scale
                score[p] = dot
                top = max(top, dot)
            total = np.float32(0.0)
            for p in range(seen):
                e = _exp(score[p] - top)
                score[p] = e
                total += e
            for d in range(width):
                o[d] = np.float32(0.0)
            for p in range(seen):
                weight, v = score[p], values[read[n, p], g]
                for d in range(width):
                    o[d] += weight * v[d]
            share = np.float32(1.0) / total
            for d in range(width):
                o[d] *= share


@kernel
def rotate_and_write(
    projected: Floats,
    cos: Floats,
    sin: Floats,
    positions: Ids,
    slots: Ids,
    query: Floats,
    keys: Floats,
    values: Floats,
) -> None:
    """Split ``projected`` f32 [N, (H + 2G) * D] into queries, keys and values, rotate the first two and
    store them.

    Rotary embedding by halves (Su et al. 2021, in the layout of Llama); ``cos`` and ``sin`` f32 [M, D] by
    position.
    """
    heads, groups, depth = query.shape[1], keys.shape[1], keys.shape[2]
    half = depth // 2
    for n in range(slots.shape[0]):
        row, slot = projected[n], slots[n]
        c, s = cos[positions[n]], sin[positions[n]]
        for h in range(heads):
            at = h * depth
            for d in range(half):
                low, high = row[at + d], row[at + half + d]
                query[n, h, d] = low * c[d] - high * s[d]
                query[n, h, half + d] = high * c[half + d] + low * s[half + d]
        for g in range(groups):
            at = (heads + g) * depth
            for d in range(half):
                low, high = row[at + d], row[at + half + d]
                keys[slot, g, d] = low * c[d] - high * s[d]
                keys[slot, g, half + d] = high * c[half + d] + low * s[half + d]
        for g in range(groups):
            at = (heads + groups + g) * depth
            for d in range(depth):
                values[slot, g, d] = row[at + d]


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
        tokens, parts = len(read), 1
        if self.threads > 1:
            work = tokens * min(read.shape[1], window) * query.shape[1] * query.shape[2]
            parts = max(1, min(self.threads, tokens, work // WORK_PER_THREAD))
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
