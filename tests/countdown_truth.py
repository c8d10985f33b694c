"""A slow, plain truth about Countdown answers, written without the package's rules: the tests' reference."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction


def moves(
    values: list[Fraction], bound: int, zero: bool, fractions: bool
) -> Iterator[tuple[Fraction, str, Fraction, Fraction, list[Fraction]]]:
    """(a, op, b, c, what is left with c), duplicates included."""
    for i in range(len(values)):
        for j in range(len(values)):
            if i == j:
                continue
            a, b = values[i], values[j]
            rest = [v for k, v in enumerate(values) if k != i and k != j]
            outcomes = {"+": a + b, "-": a - b, "*": a * b}
            if b != 0:
                outcomes["/"] = a / b
            for op, c in outcomes.items():
                if c > bound or c < 0 or (c == 0 and not zero) or (c.denominator != 1 and not fractions):
                    continue
                yield a, op, b, c, [*rest, c]


def all_answers(
    numbers: tuple[int, ...], bound: int, zero: bool = False, fractions: bool = False, equals: bool = False
) -> dict[str, Fraction]:
    """Every legal complete answer, with the value it writes last."""
    mark = " = " if equals else " "

    def extend(values: list[Fraction], text: str) -> Iterator[tuple[str, Fraction]]:
        if len(values) == 1:
            yield text, values[0]
            return
        for a, op, b, c, rest in moves(values, bound, zero, fractions):
            step = f"{a} {op} {b}{mark}{c}"
            yield from extend(rest, f"{text} {step}" if text else step)

    return dict(extend([Fraction(n) for n in numbers], ""))


def final_value(
    words: list[str],
    numbers: tuple[int, ...],
    bound: int,
    zero: bool = False,
    fractions: bool = False,
    equals: bool = False,
) -> Fraction | None:
    """The last value of a complete answer given as words, or None if it is not legal."""
    width = 5 if equals else 4
    if len(words) != width * (len(numbers) - 1):
        return None
    available = [str(n) for n in numbers]
    for start in range(0, len(words), width):
        a, op, b, *middle, c = words[start : start + width]
        if middle not in ([], ["="]):
            return None
        for operand in (a, b):
            if operand not in available:
                return None
            available.remove(operand)
        x, y = Fraction(a), Fraction(b)
        if op not in ("+", "-", "*", "/") or (op == "/" and y == 0):
            return None
        value = {"+": x + y, "-": x - y, "*": x * y}[op] if op != "/" else x / y
        legal = 0 <= value <= bound and (zero or value > 0) and (fractions or value.denominator == 1)
        if not legal or str(value) != c:
            return None
        available.append(c)
    return Fraction(available[0])
