"""How much an answer repeats itself.

It does not judge partial answers (the rule `repeats_ngram` of a judge does) and has no weights.
"""

from __future__ import annotations

from typing import Literal, get_args

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import RowReward

RepetitionUnit = Literal["words", "characters"]


def repeated_share(text: str, n: int, unit: RepetitionUnit = "words") -> float:
    """1 - distinct n-grams / n-grams, in [0, 1); 0.0 for a text with fewer than n units.

    This is seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319, "Neural Text Generation with Unlikelihood
    Training").
    """
    units = text.split() if unit == "words" else list(text)
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def repetition_reward(n: int = 4, unit: RepetitionUnit = "words", name: str = "repetition") -> RowReward:
    """1 - repeated_share: 1 says everything once. Raises InputError for n below 1 or another unit."""
    if n < 1 or unit not in get_args(RepetitionUnit):
        raise InputError(
            f"repetition counts {n}-grams of {unit!r}; give n of at least 1, of words or characters"
        )
    return RowReward(name, lambda prompt, answer, reference: 1.0 - repeated_share(answer, n, unit))
