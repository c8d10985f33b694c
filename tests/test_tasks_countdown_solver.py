"""The solver against writing out every legal answer."""

from __future__ import annotations

import countdown_truth as truth
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.tasks.countdown_rules import Rules
from tokenzero.tasks.countdown_solver import count_solutions, reachable, reaches, solve

NUMBERS = st.lists(st.integers(1, 13), min_size=1, max_size=3).map(tuple)


@given(numbers=NUMBERS, zero=st.booleans(), fractions=st.booleans(), bound=st.integers(13, 200))
def test_the_solver_agrees_with_brute_force(
    numbers: tuple[int, ...], zero: bool, fractions: bool, bound: int
) -> None:
    rules = Rules(bound=bound, zero=zero, fractions=fractions)
    answers = truth.all_answers(numbers, bound, zero, fractions)
    values = list(answers.values())
    assert reachable(numbers, rules) == set(values)
    for target in {0, 1, 7, 24, bound, bound + 1, *(int(value) for value in values)}:
        assert reaches(numbers, target, rules) == (target in values), target
        assert count_solutions(numbers, target, rules) == values.count(target)
        steps = solve(numbers, target, rules)
        if target in values:
            assert steps is not None
            assert answers[" ".join(steps)] == target
        else:
            assert steps is None


@settings(max_examples=5)
@given(numbers=st.lists(st.integers(1, 10), min_size=4, max_size=4).map(tuple))
def test_four_numbers_too(numbers: tuple[int, ...]) -> None:
    answers = truth.all_answers(numbers, 100)
    assert reachable(numbers, Rules()) == set(answers.values())
    assert count_solutions(numbers, 24, Rules()) == list(answers.values()).count(24)
    assert all(reaches(numbers, t, Rules()) == (t in answers.values()) for t in range(10, 41))


@pytest.mark.parametrize(
    ("numbers", "fractions", "solvable"),
    [
        ((1, 5, 5, 5), True, True),
        ((1, 5, 5, 5), False, False),
        ((3, 3, 8, 8), True, True),
        ((1, 1, 1, 1), True, False),
    ],
)
def test_well_known_games_of_24(numbers: tuple[int, ...], fractions: bool, solvable: bool) -> None:
    rules = Rules(bound=312, fractions=fractions)
    assert reaches(numbers, 24, rules) is solvable
    assert (solve(numbers, 24, rules) is not None) is solvable
