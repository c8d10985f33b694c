"""The rules of writing a Countdown answer: which steps are legal, and what is left after each.

A position is the sorted tuple of the values still available, as canonical text ("28", "8/3"). A step takes
two of them, `a op b c` (or `a op b = c`), and puts c back. Working on text makes one code path serve whole
numbers and fractions, and refuses other spellings of a number ("07", "6/2") without parsing them.

From any position whose values are at most `bound` a legal step exists (of two values a >= b, either a - b, a
/ b or a + 0 is legal), so a text is the beginning of a legal answer exactly when each finished step is legal
and the unfinished one is the beginning of a legal step.

This file does not know targets, prompts or problems, and never looks ahead of the step being written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

OPERATORS = "+-*/"

Number = int | Fraction
Position = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """bound: largest value a step may write. zero: whether a step may write 0. fractions: whether a division
    may leave a fraction. equals: whether a step is written with "=" before its result. Negative values are
    never legal.
    """

    bound: int = 100
    zero: bool = False
    fractions: bool = False
    equals: bool = False

    @property
    def step_words(self) -> int:
        """Words in one written step."""
        return 5 if self.equals else 4

    def position(self, numbers: tuple[int, ...]) -> Position:
        """The position a problem with these numbers starts from."""
        return tuple(sorted(str(number) for number in numbers))

    def value(self, text: str) -> Number:
        """The number that canonical text stands for."""
        return Fraction(text) if self.fractions else int(text)


def results(rules: Rules, a: Number, b: Number) -> Iterator[tuple[str, Number]]:
    """Every legal (operator, a operator b), in the order of OPERATORS."""
    yield from (
        pair for pair in _raw_results(rules, a, b) if pair[1] <= rules.bound and (rules.zero or pair[1] > 0)
    )


def _raw_results(rules: Rules, a: Number, b: Number) -> Iterator[tuple[str, Number]]:
    yield "+", a + b
    if a >= b:
        yield "-", a - b
    yield "*", a * b
    if b != 0:
        if rules.fractions:
            yield "/", Fraction(a) / b
        elif a % b == 0:
            yield "/", a // b


@lru_cache(maxsize=65536)
def _written_results(rules: Rules, a: str, b: str) -> tuple[tuple[str, str], ...]:
    return tuple((op, str(c)) for op, c in results(rules, rules.value(a), rules.value(b)))


@lru_cache(maxsize=8192)
def legal_steps(rules: Rules, position: Position) -> Mapping[str, Position]:
    """Each legal step as it is written, with the position it leads to; a read-only mapping in a fixed order.

    The keys are distinct (a, op, b) by value: two equal numbers give one step, `a + b` and `b + a` give two.
    No key is the beginning of another. For a four-number position there are about 36; a cached call takes
    under 1 us.
    """
    middle = " = " if rules.equals else " "
    steps: dict[str, Position] = {}
    for i, a in enumerate(position):
        for j, b in enumerate(position):
            if i == j:
                continue
            rest = [text for k, text in enumerate(position) if k not in (i, j)]
            for op, c in _written_results(rules, a, b):
                steps.setdefault(f"{a} {op} {b}{middle}{c}", tuple(sorted([*rest, c])))
    return MappingProxyType(steps)


def expression(rules: Rules, answer: str) -> str:
    """The steps of ``answer`` as one expression with every result in it, whatever the order of the steps and
    of the two sides of + and *; the text itself where it is no sequence of whole steps. Nothing is checked.
    """
    words, width = answer.split(), rules.step_words
    made: dict[str, list[str]] = {}
    for first in range(0, len(words), width):
        step = words[first : first + width]
        if len(step) < width or step[1] not in OPERATORS:
            return " ".join(words)
        sides = [made[side].pop() if made.get(side) else side for side in (step[0], step[2])]
        if step[1] in "+*":
            sides.sort()
        made.setdefault(step[-1], []).append(f"({sides[0]} {step[1]} {sides[1]} = {step[-1]})")
    return " ".join(sorted(result for left in made.values() for result in left))
