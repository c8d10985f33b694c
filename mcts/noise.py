"""Randomness of a search, drawn outside the kernels from the caller's generator.

Nothing here keeps a random state of its own: the same generator state gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gumbel_noise(rng: np.random.Generator, rows: int, candidates: int, scale: float) -> NDArray[np.float32]:
    """float32 [rows, candidates] standard Gumbel noise times `scale`. Draws from `rng` even when `scale` is
    0.
    """
    return (scale * rng.gumbel(size=(rows, candidates))).astype(np.float32)


def dirichlet_noise(rng: np.random.Generator, valid: NDArray[np.bool_], alpha: float) -> NDArray[np.float64]:
    """float64 [B, K]: one draw of Dirichlet(alpha) over the valid slots [B, K] of each row; 0 elsewhere."""
    noise = np.zeros(valid.shape)
    for b in range(valid.shape[0]):
        slots = np.flatnonzero(valid[b])
        if slots.size:
            noise[b, slots] = rng.dirichlet(np.full(slots.size, alpha))
    return noise


def draw(uniform: NDArray[np.float64], weights: NDArray[np.float64], temperature: float) -> NDArray[np.int64]:
    """One slot per row, int64 [B], with probability proportional to weights ** (1 / temperature).

    weights: [B, K], not negative. Temperature 0 takes the greatest weight, the lowest slot on ties. A row of
    zeros gives -1. uniform: [B] numbers in [0, 1), one per row, that decide.
    """
    chosen = np.full(weights.shape[0], -1, np.int64)
    for b in range(weights.shape[0]):
        row = weights[b]
        top = row.max(initial=0.0)
        if top <= 0.0:
            continue
        if temperature == 0.0:
            chosen[b] = int(np.argmax(row))
            continue
        odds = (row / top) ** (1.0 / temperature)  # relative to the top: no overflow at low temperature
        edges: NDArray[np.float64] = np.cumsum(odds)
        slot = int(np.searchsorted(edges, uniform[b] * edges[-1], side="right"))
        # uniform * total can round up to the total itself; the last slot with any weight is then meant.
        chosen[b] = min(slot, int(np.flatnonzero(odds)[-1]))
    return chosen
