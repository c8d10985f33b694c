"""One bad row must not take its batch along: asks again in halves until the rows that fail stand alone.

It does not decide what may fail and keeps no counts; its callers do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ask_apart(
    ask: Callable[[Sequence[int]], NDArray[Any]], rows: Sequence[int], failed: Callable[[int], Any]
) -> NDArray[Any]:
    """ask(rows), an array with one entry per row; the entry of a row on which `ask` raises is failed(row).

    With f failing rows among L, `ask` is called at most about 2 f log2(L) + 1 times.
    """
    try:
        return ask(rows)
    # Rewards and detectors run the user's code and any model, which may raise anything.
    except Exception:  # noqa: BLE001
        if len(rows) == 1:
            return np.array([failed(rows[0])])
    half = len(rows) // 2
    return np.concatenate([ask_apart(ask, rows[:half], failed), ask_apart(ask, rows[half:], failed)])
