"""How long a text is: in characters, words or tokens.

It knows no tokenizer: whoever wants tokens hands in a function that counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from tokenzero.mcts.errors import InputError

Unit = Literal["characters", "words", "tokens"]
CountTokens = Callable[[str], int]


def length_in(unit: Unit, count_tokens: CountTokens | None = None) -> Callable[[str], int]:
    """The function text -> length. Words are what white space separates.

    Raises InputError for another unit, and for tokens without a function that counts them.
    """
    if unit == "characters":
        return len
    if unit == "words":
        return lambda text: len(text.split())
    if unit != "tokens":
        raise InputError(f"length unit is {unit!r}; use one of {', '.join(get_args(Unit))}")
    if count_tokens is None:
        raise InputError(
            "length unit is 'tokens' but nothing counts them; hand in count_tokens, or use words"
        )
    return count_tokens
