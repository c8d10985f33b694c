"""Legal steps against the plain reference."""

from __future__ import annotations

from fractions import Fraction

import countdown_truth as truth
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.tasks.countdown_rules import Rules, legal_steps, results

VALUES = st.lists(
    st.one_of(st.integers(0, 40), st.fractions(min_value=0, max_value=40, max_denominator=12)),
    min_size=1,
    max_size=4,
)


@given(
    values=VALUES,
    zero=st.booleans(),
    fractions=st.booleans(),
    equals=st.booleans(),
    bound=st.integers(40, 400),
)
def test_legal_steps_are_the_distinct_legal_moves(
    values: list[Fraction], zero: bool, fractions: bool, equals: bool, bound: int
) -> None:
    if not fractions:
        values = [Fraction(int(value)) for value in values]
    rules = Rules(bound=bound, zero=zero, fractions=fractions, equals=equals)
    position = tuple(sorted(str(Fraction(value)) for value in values))
    mark = " = " if equals else " "
    expected = {
        f"{a} {op} {b}{mark}{c}": sorted(map(str, rest))
        for a, op, b, c, rest in truth.moves([Fraction(v) for v in values], bound, zero, fractions)
    }
    found = legal_steps(rules, position)
    assert {step: list(rest) for step, rest in found.items()} == expected
    assert not any(a != b and b.startswith(a) for a in found for b in found)


@given(values=st.lists(st.integers(1, 40), min_size=2, max_size=4), bound=st.integers(40, 100))
def test_play_never_gets_stuck(values: list[int], bound: int) -> None:
    rules = Rules(bound=bound)
    frontier = {rules.position(tuple(values))}
    while frontier:
        assert all(legal_steps(rules, position) for position in frontier if len(position) > 1)
        frontier = {
            following
            for position in frontier
            if len(position) > 1
            for following in list(legal_steps(rules, position).values())[:4]
        }


def test_a_position_is_sorted_text_and_steps_are_read_only() -> None:
    assert Rules().position((10, 4, 7)) == ("10", "4", "7")
    with pytest.raises(TypeError):
        legal_steps(Rules(), ("1", "2"))["x"] = ()  # type: ignore[index]


def test_division() -> None:
    assert dict(results(Rules(), 7, 2)) == {"+": 9, "-": 5, "*": 14}
    assert dict(results(Rules(fractions=True), 7, 2))["/"] == Fraction(7, 2)
    assert "/" not in dict(results(Rules(zero=True), 7, 0))
    assert dict(results(Rules(zero=True), 0, 7)) == {"+": 7, "*": 0, "/": 0}
