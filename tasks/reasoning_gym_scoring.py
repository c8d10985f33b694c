"""Scores for reasoning-gym answers, with a guard in front of the scorers that need one.

Read in reasoning-gym 0.1.25: nine scorers hand the answer to Python's own evaluation, directly or through
sympy, so a model could write code that runs, or a power tower that never ends; `puzzle24` also accepts
numbers it was not given and rounds 24.5 down to 24. Here the two number games are scored exactly by our own
reader of arithmetic, and the other seven see an answer only if it is made of harmless symbols. Everything
else goes to the package unchanged.

This file imports nothing of reasoning-gym: it is handed the package's `score_answer`. It sets no time limit,
and a scorer's own lenience (some give full marks to odd answers) is left as it is.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

# What the scorers are seen to raise on malformed answers; RecursionError is a RuntimeError.
SCORER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

_LONGEST = 400
_EVALUATES_PYTHON = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
_EVALUATES_ALGEBRA = {"intermediate_integration", "polynomial_multiplication", "simple_integration"}
_NUMBER_GAMES = {"countdown", "puzzle24"}

_PLAIN = re.compile(r"[A-Za-z0-9_\s]*")
_ARITHMETIC = re.compile(r"[0-9+\-*/()\s]*")
_ALGEBRA = re.compile(r"[A-Za-z0-9+\-*/(),.\s]*")
_ATTRIBUTE = re.compile(r"\.(?!\d)")
_WORD = re.compile(r"[A-Za-z]+")
_FUNCTIONS = {"sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"}
_FUNCTIONS |= {"exp", "log", "ln", "sqrt", "pi", "Integral"}
# A power is a letter or a bracket raised to at most two digits, or to a fraction of such, in brackets.
_POWER = re.compile(r"(?<=[A-Za-z)])\s*\*\*\s*(?:\d{1,2}(?![\d.])|\(\s*-?\d{1,2}(?:/\d{1,2})?\s*\))")
_MOST_BRACKET_POWERS = 3

Entry = Mapping[str, Any]


def raw_score(dataset: str, scorer: Callable[[str, Any], Any], answer: str, entry: Entry) -> float:
    """The score reasoning-gym means to give, any number; 0.0 for empty text and for text the guard refuses.

    Raises one of SCORER_ERRORS when the scorer does.
    """
    answer = answer.strip()
    if not answer:
        return 0.0
    if dataset in _NUMBER_GAMES:
        metadata = entry["metadata"]
        return number_game_score(answer, list(metadata["numbers"]), int(metadata.get("target", 24)))
    if not is_harmless(dataset, answer):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(scorer(answer, entry))


def is_harmless(dataset: str, answer: str) -> bool:
    """Whether the text may be given to this data set's scorer."""
    if dataset in _EVALUATES_PYTHON:
        return _PLAIN.fullmatch(answer) is not None
    if dataset in _EVALUATES_ALGEBRA:
        return (
            len(answer) <= _LONGEST
            and _ALGEBRA.fullmatch(answer) is not None
            and _ATTRIBUTE.search(answer) is None
            and all(len(word) == 1 or word in _FUNCTIONS for word in _WORD.findall(answer))
            and len(_POWER.findall(answer)) == answer.count("**")
            and len(re.findall(r"\)\s*\*\*", answer)) <= _MOST_BRACKET_POWERS
        )
    return True


def number_game_score(answer: str, numbers: list[int], target: int) -> float:
    """1.0 if the text is arithmetic using exactly these numbers, each once, to equal the target, else 0.0.

    + - * / and brackets only, exact rational arithmetic.
    """
    if len(answer) > _LONGEST or _ARITHMETIC.fullmatch(answer) is None:
        return 0.0
    used: list[int] = []
    try:
        value = _value(ast.parse(answer, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return 0.0
    return float(Counter(used) == Counter(numbers) and value == target)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, used)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, used), _value(node.right, used)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
    raise ValueError("only + - * / and whole numbers are arithmetic here")
