"""Addition's settings, the text of its prompts, and its problems cut into disjoint splits.

No sum of the validation and test problems appears in another split, in any order of its terms. This file does
not check answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.option_checks import check_kinds, check_sizes, require
from tokenzero.tasks.problem import Problem, PublicProblem

Terms = tuple[int, ...]

MAX_DIGITS = 8
MAX_TERMS = 9
"""A sum then has at most nine digits, and a state of the automaton stays below 2^63."""

_DRAWS_PER_PROBLEM = 100
_PROMPT = re.compile(rf"\d{{1,{MAX_DIGITS}}}(?:\+\d{{1,{MAX_DIGITS}}}){{1,{MAX_TERMS - 1}}}=", re.ASCII)


@dataclass(frozen=True)
class ArithmeticConfig:
    """What an addition problem is and how many there are.

    digits: of each term, without leading zeros. terms: how many are added. reverse: answers are written with
    the lowest digit first, so that a carry is known when it is needed. ladder: a training problem has 1 to
    `digits` digits, each number of digits as often, and so there are easy ones to begin with; validation and
    test problems always have `digits`. train, validation, test: problems per split; training problems are
    drawn with repetition. seed: of all of them.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    digits: int = 3
    terms: int = 2
    reverse: bool = False
    ladder: bool = True
    train: int = 20000
    validation: int = 1000
    test: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds("arithmetic", self)
        self._check(1 <= self.digits <= MAX_DIGITS, "digits", f"use 1 to {MAX_DIGITS}")
        self._check(2 <= self.terms <= MAX_TERMS, "terms", f"use 2 to {MAX_TERMS}")
        check_sizes("arithmetic", self)

    def _check(self, ok: bool, name: str, way_out: str) -> None:
        require("arithmetic", self, ok, name, way_out)


def write_prompt(terms: Terms) -> str:
    """The prompt of a sum, a space between symbols: "4 7 8 1 + 9 3 6 2 ="."""
    return " ".join("+".join(map(str, terms))) + " ="


@lru_cache(maxsize=1 << 14)
def read_prompt(prompt: str) -> Terms:
    """The terms of a prompt, white space left out. Raises InputError when it is not an addition."""
    text = "".join(prompt.split())
    if _PROMPT.fullmatch(text) is None:
        raise InputError(
            f"prompt {prompt[:80]!r} is not an addition; write 2 to {MAX_TERMS} terms of at most "
            f'{MAX_DIGITS} digits, as in "4 7 8 1 + 9 3 6 2 ="'
        )
    return tuple(map(int, text[:-1].split("+")))


def largest_sum(terms: Terms) -> int:
    """The largest sum of as many terms with as many digits as the longest of them."""
    return len(terms) * int("9" * max(len(str(term)) for term in terms))


@lru_cache(maxsize=8)
def build_splits(config: ArithmeticConfig, name: str) -> Mapping[str, tuple[Problem, ...]]:
    """Split name -> problems. The same arguments give the same problems.

    Each split has its own random numbers, so that none depends on the size of another. name is used as the
    tag and as the beginning of each id. Raises InputError when there are not so many sums.
    """
    held_out: set[Terms] = set()
    return MappingProxyType(
        {
            split: _draw(config, split, np.random.default_rng([config.seed, block]), held_out, name)
            for block, split in enumerate(("test", "validation", "train"))
        }
    )


def _draw(
    config: ArithmeticConfig, split: str, rng: np.random.Generator, held_out: set[Terms], name: str
) -> tuple[Problem, ...]:
    wanted, training = getattr(config, split), split == "train"
    lowest = 1 if training and config.ladder else config.digits
    lengths = rng.integers(lowest, config.digits, wanted, endpoint=True).tolist()
    found: list[Problem] = []
    for _ in range(wanted * _DRAWS_PER_PROBLEM):
        if len(found) == wanted:
            break
        digits = lengths[len(found)]
        low = 10 ** (digits - 1) if digits > 1 else 0
        terms = tuple(rng.integers(low, 10**digits, config.terms).tolist())
        content = tuple(sorted(terms))
        if content not in held_out:
            public = PublicProblem(f"{name}:{split}:{len(found)}", write_prompt(terms), name)
            found.append(Problem(public))
            if not training:
                held_out.add(content)
    if len(found) < wanted:
        raise InputError(
            f"arithmetic {split} is {wanted}, but only {len(found)} different sums were found; ask for "
            "fewer, or for more digits"
        )
    return tuple(found)
