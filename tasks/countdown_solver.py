"""Exact answers about small Countdown problems: which targets can be reached, one solution, how many there
are.

Used to generate problems and to test; search never calls it.

`reachable` splits the numbers in two and combines what each half can reach, keeping every answer it has
worked out for a part, so a whole range of problems costs little more than its largest ones. Exponential in
the number count: meant for up to five numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

from tokenzero.tasks.countdown_rules import Number, Position, Rules, legal_steps, results

Numbers = tuple[int, ...]


@lru_cache(maxsize=16384)
def _reach(rules: Rules, numbers: Numbers) -> frozenset[Number]:
    if len(numbers) == 1:
        return frozenset([rules.value(str(numbers[0]))])
    found: set[Number] = set()
    for left, right in _halves(numbers):
        right_values = _reach(rules, right)
        for x in _reach(rules, left):
            for y in right_values:
                found.update(c for _, c in results(rules, x, y))
                found.update(c for _, c in results(rules, y, x))
    return frozenset(found)


def _halves(numbers: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Each way to cut sorted numbers into two non-empty parts, the smaller first, each pair of parts once."""
    seen: set[tuple[Numbers, Numbers]] = set()
    for size in range(1, len(numbers) // 2 + 1):
        for chosen in combinations(range(len(numbers)), size):
            left = tuple(numbers[i] for i in chosen)
            right = tuple(number for i, number in enumerate(numbers) if i not in chosen)
            if (left, right) not in seen and (right, left) not in seen:
                seen.add((left, right))
                yield left, right


def reachable(numbers: Numbers, rules: Rules) -> frozenset[Number]:
    """Every final value that some legal answer using all the numbers writes."""
    return _reach(rules, tuple(sorted(numbers)))


def reaches(numbers: Numbers, target: int, rules: Rules) -> bool:
    """Whether some legal answer writes the target last. Cheap: the last step is worked backwards."""
    if len(numbers) == 1 or target < 1:
        return target in reachable(numbers, rules)
    if target > rules.bound:
        return False
    for left, right in _halves(tuple(sorted(numbers))):
        right_values = _reach(rules, right)
        if any(y in right_values for x in _reach(rules, left) for y in _partners(rules, x, target)):
            return True
    return False


def _partners(rules: Rules, x: Number, target: int) -> Iterator[Number]:
    """Each y >= 0 for which x op y or y op x is the positive target."""
    yield target + x  # y - x
    yield target - x if x < target else x - target  # x + y or x - y
    if x == 0:
        return
    yield target * x  # y / x
    if rules.fractions:
        yield Fraction(target) / x  # x * y
        yield Fraction(x) / target  # x / y
    elif target % x == 0:
        yield target // x
    elif x % target == 0:
        yield x // target


def solve(numbers: Numbers, target: int, rules: Rules) -> list[str] | None:
    """The written steps of one solution, or None when there is none. Depth first; dead ends remembered."""
    dead: set[Position] = set()
    goal = (str(target),)

    def search(position: Position) -> list[str] | None:
        if len(position) == 1:
            return [] if position == goal else None
        if position in dead:
            return None
        for step, following in legal_steps(rules, position).items():
            rest = search(following)
            if rest is not None:
                return [step, *rest]
        dead.add(position)
        return None

    return search(rules.position(numbers))


def count_solutions(numbers: Numbers, target: int, rules: Rules) -> int:
    """How many different texts are solutions. Order of steps and of operands counts: they are different
    texts.
    """
    goal = (str(target),)
    known: dict[Position, int] = {}

    def count(position: Position) -> int:
        if len(position) == 1:
            return int(position == goal)
        if position not in known:
            known[position] = sum(count(following) for following in legal_steps(rules, position).values())
        return known[position]

    return count(rules.position(numbers))
