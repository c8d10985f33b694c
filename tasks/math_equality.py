"""Whether two final answers written in LaTeX mean the same, by the package math-verify.

Plain numbers are compared exactly and never reach the package. Of the rest it sees only what is short and
cheap: towers of powers, large factorials, sums and integrals can keep computer algebra busy for ever, and so
can be equal to a reference only if they are written like it. The package's own time limit works by a signal,
which the main thread alone may set; elsewhere these bounds are all there is.

The package is optional (`pip install math-verify`). This file does not look for answers in text: see
``answer_extraction``.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import warnings
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import read_number, unwrapped

LONGEST = 200
TIME_LIMIT_S = 5
_DECIMALS = 12
"""Decimals of inexact numbers that must agree; the package's default of 6 would accept roundings."""

_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{[^{}]*\}")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_COSTLY = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|[dt]?binom|gamma|Gamma)(?![A-Za-z])|[0-9]{30}")
_SEVERAL = re.compile(r"\$|\\[()\[\]]|\\f?boxed")  # the package would pick one of several formulas
_FACTORIAL = re.compile(r"(?<![0-9])[0-9]{1,2}!(?!!)|(?<![A-Za-z0-9])[A-Za-z]!(?!!)")
_EXPONENT = re.compile(
    r"\^\s*(?:[0-9A-Za-z]|\{\s*-?\s*(?:[0-9]{0,2}[A-Za-z]?(?:[+-][0-9]{1,2})?|[0-9]{1,2}/[0-9]{1,2}"
    r"|\\frac\{[0-9]{1,2}\}\{[0-9]{1,2}\}|\\circ)\s*\}|\\circ(?![A-Za-z]))(?!\s*\^)"
)
_MOST_BRACKET_POWERS = 1
_WORDS = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS = {"sin", "cos", "tan", "log", "exp", "sqrt", "cot", "sec", "csc"}


@lru_cache(4096)
def math_equal(gold: str, answer: str) -> bool:
    """Whether ``answer`` means what the reference ``gold`` means. 50\\% is both 50 and 0.5, and a list is a
    set, as math-verify has it.

    Raises InputError when math-verify is not installed and the two are neither numbers nor the same text.
    """
    gold, answer = unwrapped(gold), unwrapped(answer)
    if not gold or not answer:
        return False
    if _squeezed(gold) == _squeezed(answer):
        return True
    numbers = read_number(gold, units=False), read_number(answer, units=False)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if not (_is_fit(gold) and _is_fit(answer)):
        return False
    return _verified(_written(gold, numbers[0]), _written(answer, numbers[1]))


def load_math_verify() -> Any:
    """The package. Raises InputError with what to install when it is missing."""
    try:
        package = importlib.import_module("math_verify")
    except ImportError as error:
        raise InputError("math-verify is not installed; run pip install math-verify") from error
    _silence()
    return package


@cache
def _silence() -> None:
    # it warns whenever it runs without its time limit, which is on purpose here
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _written(text: str, number: Fraction | None) -> str:
    # the package reads the mixed number 2 1/2 as 3/2, so numbers go to it in one plain form
    return text if number is None else f"\\frac{{{number.numerator}}}{{{number.denominator}}}"


def _is_fit(text: str) -> bool:
    """Whether computer algebra may see this: one short formula, no words, nothing unbounded."""
    bare = _COMMANDS.sub(" ", _TEXT.sub(" ", text))
    return (
        len(text) <= LONGEST
        and bool(bare.strip(" {}"))
        and not any(word not in _FUNCTIONS for word in _WORDS.findall(bare))
        and _COSTLY.search(text) is None
        and _SEVERAL.search(text) is None
        and len(_FACTORIAL.findall(text)) == text.count("!")
        and len(_EXPONENT.findall(text)) == text.count("^") + text.count("**")
        and len(re.findall(r"[)}\]|]\s*\^", text)) <= _MOST_BRACKET_POWERS
    )


def _verified(gold: str, answer: str) -> bool:
    package = load_math_verify()
    limit = TIME_LIMIT_S if threading.current_thread() is threading.main_thread() else None
    kinds = [package.LatexExtractionConfig()]

    def parsed(text: str) -> Any:
        return package.parse(f"${text}$", kinds, fallback_mode="no_fallback", parsing_timeout=limit)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted, given = parsed(gold), parsed(answer)
        # gold goes first: the comparison is not symmetric
        return bool(package.verify(wanted, given, float_rounding=_DECIMALS, timeout_seconds=limit))
