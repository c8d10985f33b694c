"""Windows of tokens: what follows what, where they may begin, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.windows import windows


def test_windows_are_runs_of_the_text_placed_uniformly() -> None:
    tokens = np.arange(100, 110, dtype=np.uint16)
    found = windows(tokens, 6000, 3, np.random.default_rng(1))
    assert found.shape == (6000, 4)
    assert found.dtype == np.int64
    assert (np.diff(found, axis=1) == 1).all()
    starts = np.bincount(found[:, 0] - 100)
    assert len(starts) == 7, "10 tokens hold 7 windows of 4"
    # chi-squared with 6 degrees of freedom exceeds 22.5 once in a thousand
    assert ((starts - 6000 / 7) ** 2 / (6000 / 7)).sum() < 22.5


def test_the_same_stream_gives_the_same_windows() -> None:
    tokens = np.arange(50, dtype=np.uint32)
    first, second = (windows(tokens, 5, 8, np.random.default_rng([3, 4])) for _ in range(2))
    assert (first == second).all()
    assert windows(tokens, 1, 49, np.random.default_rng(0)).tolist() == [list(range(50))]


def test_too_short_a_text_is_refused() -> None:
    tokens = np.zeros(4, dtype=np.uint16)
    with pytest.raises(InputError, match="4 tokens hold none of context 4, which takes 5"):
        windows(tokens, 1, 4, np.random.default_rng(0))
    for rows, context in ((0, 2), (1, 0)):
        with pytest.raises(InputError, match="at least 1 of each"):
            windows(tokens, rows, context, np.random.default_rng(0))
