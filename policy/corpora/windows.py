"""Random windows of a long run of tokens, the batches of language modelling. It keeps nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError


def windows(tokens: NDArray[Any], rows: int, context: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``rows`` windows of ``context`` + 1 tokens that follow each other in ``tokens`` [T] (integers, memory
    mapped or not): i64 [rows, context + 1]. Every window of the text is equally likely, each time anew.

    Raises InputError when ``tokens`` holds no such window, or ``rows`` or ``context`` is below 1.
    """
    if rows < 1 or context < 1:
        raise InputError(f"windows: {rows} rows of context {context}; give at least 1 of each")
    if len(tokens) < context + 1:
        raise InputError(
            f"windows: {len(tokens)} tokens hold none of context {context}, which takes {context + 1}; "
            "give more text or a shorter context"
        )
    starts = rng.integers(0, len(tokens) - context, size=rows)
    return np.asarray(tokens[starts[:, None] + np.arange(context + 1)], dtype=np.int64)
