"""Compiled float32 arithmetic on the CPU: attention over scattered slots, rotary embedding, the likeliest
tokens.

Every query token brings the list of slots it attends to (its ancestors and itself), so leaves of one tree
share what lies above them without a copy. Page size is one token. The kernels are compiled with
floating-point reassociation and contraction, nothing else of "fast math": a sum may be taken in lanes,
always the same ones, so results are the same bits from run to run. They build no paths and own no memory.

They stand in one file because cached compilation does not see changes in other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
I32 = NDArray[np.int32]
Ids = NDArray[np.int64]

BLOCK = 16  # tokens of which only the greatest logit is looked at when it is not large enough


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
def exp(x: np.float32) -> np.float32:
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
def _scores(q: Floats, keys: Floats, slots: I32, g: int, seen: int, scale: np.float32, score: Floats) -> None:
    """``scale`` * q . key of each slot into ``score``; four slots at a time, for one pass over q."""
    whole = seen - seen % 4
    for p in range(0, whole, 4):
        k0, k1, k2, k3 = (
            keys[slots[p], g],
            keys[slots[p + 1], g],
            keys[slots[p + 2], g],
            keys[slots[p + 3], g],
        )
        s0 = s1 = s2 = s3 = np.float32(0.0)
        for d in range(q.shape[0]):
            x = q[d]
            s0 += x * k0[d]
            s1 += x * k1[d]
            s2 += x * k2[d]
            s3 += x * k3[d]
        score[p], score[p + 1], score[p + 2], score[p + 3] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
    for p in range(whole, seen):
        k = keys[slots[p], g]
        dot = np.float32(0.0)
        for d in range(q.shape[0]):
            dot += q[d] * k[d]
        score[p] = dot * scale


@kernel
def _softmax(score: Floats, seen: int) -> None:
    top, total = np.float32(-np.inf), np.float32(0.0)
    for p in range(seen):
        top = max(top, score[p])
    for p in range(seen):
        e = exp(score[p] - top)
        score[p] = e
        total += e
    share = np.float32(1.0) / total
    for p in range(seen):
        score[p] *= share


@kernel
def _weigh(weight: Floats, values: Floats, slots: I32, g: int, seen: int, o: Floats) -> None:
    """Sum of the slots' values by ``weight`` into ``o``; four slots at a time, for one pass over o."""
    whole = seen - seen % 4
    for d in range(o.shape[0]):
        o[d] = np.float32(0.0)
    for p in range(0, whole, 4):
        v0, v1 = values[slots[p], g], values[slots[p + 1], g]
        v2, v3 = values[slots[p + 2], g], values[slots[p + 3], g]
        w0, w1, w2, w3 = weight[p], weight[p + 1], weight[p + 2], weight[p + 3]
        for d in range(o.shape[0]):
            o[d] += w0 * v0[d] + w1 * v1[d] + (w2 * v2[d] + w3 * v3[d])
    for p in range(whole, seen):
        w, v = weight[p], values[slots[p], g]
        for d in range(o.shape[0]):
            o[d] += w * v[d]


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
    heads = query.shape[1]
    shared = heads // keys.shape[1]
    for n in range(start, stop):
        seen = min(int(lengths[n]), window)
        for h in range(heads):
            g = h // shared
            _scores(query[n, h], keys, read[n], g, seen, scale, score)
            _softmax(score, seen)
            _weigh(score, values, read[n], g, seen, out[n, h])


@kernel
def _add(weight: np.float32, row: Floats, out: Floats) -> None:
    """``weight`` times ``row`` added to ``out``. In a function of its own it compiles to vector
    instructions.
    """
    for d in range(row.shape[0]):
        out[d] += weight * row[d]


@kernel
def attend_backward(
    query: Floats,
    keys: Floats,
    values: Floats,
    read: I32,
    lengths: I32,
    window: int,
    scale: np.float32,
    start: int,
    stop: int,
    weight: Floats,
    of_weight: Floats,
    of_out: Floats,
    of_query: Floats,
    of_keys: Floats,
    of_values: Floats,
) -> None:
    """Gradients of `attend` for the key groups ``start`` to ``stop`` and their query heads, all N tokens.

    ``of_out`` f32 [N, H, Dv] is the gradient of its result, ``of_query`` f32 [N, H, D] is written, and to
    ``of_keys`` f32 [S, G, D] and ``of_values`` f32 [S, G, Dv] is added. The weights are computed again rather
    than kept. ``weight`` and ``of_weight`` f32 [P] are scratch.
    """
    shared = query.shape[1] // keys.shape[1]
    for n in range(query.shape[0]):
        seen, slots = min(int(lengths[n]), window), read[n]
        for h in range(start * shared, stop * shared):
            g = h // shared
            q, o = query[n, h], of_out[n, h]
            _scores(q, keys, slots, g, seen, scale, weight)
            _softmax(weight, seen)
            _scores(o, values, slots, g, seen, np.float32(1.0), of_weight)
            mean = np.float32(0.0)
            for p in range(seen):
                mean += weight[p] * of_weight[p]
            for p in range(seen):
                of_weight[p] = weight[p] * (of_weight[p] - mean) * scale
            _weigh(of_weight, keys, slots, g, seen, of_query[n, h])
            for p in range(seen):
                _add(of_weight[p], q, of_keys[slots[p], g])
                _add(weight[p], o, of_values[slots[p], g])


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


@kernel
def softmax_mean(raw: Floats, worth: Floats, scratch: Floats, out: Floats) -> None:
    """Mean of ``worth`` f32 [B] under softmax(raw), clipped to [-1, 1], for each row of ``raw`` f32 [L, B]
    into ``out`` f32 [L]; NaN for a row that is not all finite. ``scratch`` is f32 [B].
    """
    for i in range(raw.shape[0]):
        mean, whole = np.float32(0.0), np.float32(0.0)
        for b in range(worth.shape[0]):
            scratch[b] = raw[i, b]
            whole += raw[i, b]
        if np.isnan(whole) or abs(whole) == np.inf:  # reassociation would fold away what isfinite computes
            out[i] = np.nan
            continue
        _softmax(scratch, worth.shape[0])
        for b in range(worth.shape[0]):
            mean += scratch[b] * worth[b]
        out[i] = max(np.float32(-1.0), min(np.float32(1.0), mean))


@kernel
def _insert(values: Floats, ids: Ids, last: int, x: np.float32, token: int) -> None:
    """Put x into the descending ``values`` up to place ``last``, after equals; what stood there falls out."""
    at = last
    while at > 0 and values[at - 1] < x:
        values[at], ids[at] = values[at - 1], ids[at - 1]
        at -= 1
    values[at], ids[at] = x, token


@kernel
def _greatest(row: Floats, tops: Floats, values: Floats, ids: Ids) -> None:
    """The greatest of ``row`` f32 [V] in descending order, the lowest token first among equals.

    ``tops`` f32 [V / BLOCK, rounded up] holds the maxima of its blocks. The K-th greatest of these is a
    bound that K numbers reach, and most blocks lie below it.
    """
    width = values.shape[0]
    for b in range(tops.shape[0]):
        if b < width:
            _insert(values, ids, b, tops[b], b)
        elif tops[b] > values[width - 1]:
            _insert(values, ids, width - 1, tops[b], b)
    bar = values[width - 1] if tops.shape[0] >= width else np.float32(-np.inf)
    found = 0
    for b in range(tops.shape[0]):
        if tops[b] < bar:
            continue
        for v in range(b * BLOCK, min((b + 1) * BLOCK, row.shape[0])):
            if row[v] >= bar:
                if found < width:
                    _insert(values, ids, found, row[v], v)
                    found += 1
                elif row[v] > values[width - 1]:
                    _insert(values, ids, width - 1, row[v], v)


@kernel
def _block_maxima(row: Floats, tops: Floats) -> None:
    whole = row.shape[0] // BLOCK
    for b in range(whole):
        top = np.float32(-np.inf)
        for v in range(BLOCK):  # a fixed length, for the compiler
            top = max(top, row[b * BLOCK + v])
        tops[b] = top
    if whole < tops.shape[0]:
        top = np.float32(-np.inf)
        for v in range(whole * BLOCK, row.shape[0]):
            top = max(top, row[v])
        tops[whole] = top


@kernel
def likeliest(
    logits: Floats,
    mask: Floats,
    scale: np.float32,
    row: Floats,
    tops: Floats,
    values: Floats,
    ids: Ids,
) -> None:
    """The likeliest tokens of softmax(scale * logits + mask) into ``ids`` i64 [L, K], their
    log-probabilities into ``values`` f32 [L, K]; NaN in a row that holds NaN or +inf. ``row`` f32 [V] and
    ``tops`` f32 [V / BLOCK, rounded up] are scratch.
    """
    for i in range(logits.shape[0]):
        given = logits[i]
        whole, total, top = np.float32(0.0), np.float32(0.0), np.float32(-np.inf)
        for v in range(row.shape[0]):
            row[v] = given[v] * scale + mask[v]
            whole += given[v]
        _block_maxima(row, tops)
        for b in range(tops.shape[0]):
            top = max(top, tops[b])
        if np.isnan(whole) or top == np.inf:  # a maximum alone does not tell of NaN
            values[i, :] = np.nan
            ids[i, :] = 0
            continue
        for v in range(row.shape[0]):
            total += exp(row[v] - top)
        log_total = np.float32(top + np.float32(np.log(np.float64(total))))
        _greatest(row, tops, values[i], ids[i])
        for k in range(values.shape[1]):
            values[i, k] -= log_total
