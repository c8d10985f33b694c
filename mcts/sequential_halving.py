"""The visiting order of sequential halving, as a table of visit counts.

Sequential halving (Karnin et al., ICML 2013; used at the root by Danihelka et al., ICLR 2022) spends a budget
in
phases: every considered arm is visited equally often, then the worse half is dropped. Written as visit
counts, step `t` visits the best arm among those with exactly `table[m, t]` visits, so no arm ever has to be
dropped by hand.
This file knows only counts: no scores, no noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def considered_visits(considered: int, simulations: int) -> list[int]:
    """For each of `simulations` steps, the visit count an arm must have to be visited, starting from
    `considered` arms.
    """
    if considered <= 1:
        return list(range(simulations))
    phases = (considered - 1).bit_length()  # ceil(log2(considered))
    order: list[int] = []
    arms, level = considered, 0  # every arm still in the race has been visited `level` times
    while len(order) < simulations:
        for _ in range(max(1, simulations // (phases * arms))):
            order.extend([level] * arms)
            level += 1
        arms = max(2, arms // 2)
    return order[:simulations]


@lru_cache(maxsize=64)
def _cached_table(considered: int, simulations: int) -> NDArray[np.int32]:
    rows = [considered_visits(m, simulations) for m in range(considered + 1)]
    return np.array(rows, np.int32).reshape(considered + 1, simulations)


def considered_table(considered: int, simulations: int) -> NDArray[np.int32]:
    """int32 [considered + 1, simulations]: row m is `considered_visits(m, simulations)`. The caller owns the
    copy.
    """
    return _cached_table(considered, simulations).copy()
