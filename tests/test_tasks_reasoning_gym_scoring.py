"""The guard in front of reasoning-gym's scorers, and the number games' own scorer."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.tasks.reasoning_gym_scoring import SCORER_ERRORS, is_harmless, number_game_score, raw_score


def _full_marks(answer: str, entry: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("10*(8 - 5) - 6", 1.0),
        ("(8-5)*10-6", 1.0),
        ("-6 + 10*(8-5)", 1.0),
        ("24", 0.0),  # numbers it was not given
        ("4*6*1*1", 0.0),
        ("10*(8 - 5) - 6 + 0", 0.0),
        ("10 + 8 + 5 + 6", 0.0),  # 29
        ("10*(8 - 5", 0.0),
        ("(10, 8, 5, 6)", 0.0),
        ("10 8 5 6", 0.0),
        ("5 + 10/(8-8)", 0.0),
        ("10**8 - 5 - 6", 0.0),
        ("10 // 8 + 5 + 6", 0.0),
        ("((" * 150, 0.0),
        ("(" * 99 + "6" + ")" * 99, 0.0),
        ("0o12*(8-5)-6", 0.0),
        ("True", 0.0),
        ("010*(8 - 5) - 6", 0.0),
    ],
)
def test_puzzle24_needs_exactly_its_numbers(answer: str, score: float) -> None:
    entry = {"answer": "10*(8 - 5) - 6", "metadata": {"numbers": [8, 5, 10, 6]}}
    assert raw_score("puzzle24", _full_marks, answer, entry) == score


def test_number_games_are_exact() -> None:
    assert number_game_score("8 / (3 - 8/3)", [8, 3, 8, 3], 24) == 1.0
    assert number_game_score("1 + 7*7/2", [1, 7, 7, 2], 25) == 0.0  # 25.5, which int() would round down
    assert (
        raw_score(
            "countdown", _full_marks, "94*4 - 61", {"metadata": {"numbers": [4, 61, 94], "target": 315}}
        )
        == 1
    )


@given(text=st.text(alphabet="0123456789+-*/() .e_x", max_size=30))
def test_number_games_never_raise(text: str) -> None:
    assert number_game_score(text, [1, 2, 3, 4], 24) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("dataset", "answer"),
    [
        ("n_queens", "_ Q _\nQ _ _"),
        ("spiral_matrix", "1 2 3 4"),
        ("string_insertion", "ABCDE"),
        ("simple_integration", "-34*x**8/15 - 5*x/4 + C"),
        ("intermediate_integration", "-4*(-2*x - 8)**(3/2)/3 + C"),
        ("intermediate_integration", "3*Integral(x**3*cos(3*x), x) + C"),
        ("polynomial_multiplication", "-701220*x**7 - 90480*x**6 + 0.5"),
        ("chain_sum", "__import__('os')"),  # compared as text only, so anything may pass
    ],
)
def test_honest_answers_pass_the_guard(dataset: str, answer: str) -> None:
    assert is_harmless(dataset, answer)
    assert raw_score(dataset, _full_marks, f" {answer}\n", {}) == 1.0


@pytest.mark.parametrize(
    ("dataset", "answer"),
    [
        ("n_queens", "__import__('os').system('true')"),
        ("spiral_matrix", "[9**9**9]"),
        ("binary_matrix", "print(1)"),
        ("string_insertion", "lambda: 0"),
        ("simple_integration", "x.__class__"),
        ("simple_integration", "x.T"),
        ("simple_integration", "x.diff"),
        ("simple_integration", "__import__('os')"),
        ("simple_integration", "open(x)"),
        ("polynomial_multiplication", "9**9**9"),
        ("polynomial_multiplication", "x**999"),
        ("polynomial_multiplication", "x**9**99"),
        ("polynomial_multiplication", "x**(9**9)"),
        ("polynomial_multiplication", "((((9)**99)**99)**99)**99"),
        ("polynomial_multiplication", "x" + "+x" * 300),
        ("intermediate_integration", "exec"),
    ],
)
def test_answers_that_would_run_or_never_end_score_nothing_unread(dataset: str, answer: str) -> None:
    def must_not_be_called(answer: str, entry: Any) -> float:
        raise AssertionError(answer)

    assert not is_harmless(dataset, answer)
    assert raw_score(dataset, must_not_be_called, answer, {}) == 0.0


def test_empty_text_scores_nothing_and_warnings_stay_inside() -> None:
    def noisy(answer: str, entry: Any) -> float:
        warnings.warn("seen on malformed answers", stacklevel=1)
        return 0.25

    assert raw_score("chain_sum", _full_marks, " \n", {}) == 0.0
    assert raw_score("chain_sum", noisy, "x", {}) == 0.25


def test_what_a_scorer_raises_comes_through() -> None:
    def broken(answer: str, entry: Any) -> float:
        raise KeyError(answer)

    with pytest.raises(SCORER_ERRORS):
        raw_score("chain_sum", broken, "x", {})
