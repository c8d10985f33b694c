"""Addition, digit by digit: prompt "4 7 8 1 + 9 3 6 2 =", answer "1 4 1 4 3".

An answer has as many digits as the largest sum of such terms, leading zeros included, so its length says
nothing about it and needs no end mark. The highest digit comes first, which asks for every carry before it is
written; with reverse=True the lowest does. Anyone can check an answer by adding, so the verifier is public.

The verdict comes with the last digit and not before: to refuse a first wrong digit would give the answer
away, one digit in ten tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.arithmetic_problems import (
    ArithmeticConfig,
    Terms,
    build_splits,
    largest_sum,
    read_prompt,
    write_prompt,
)
from tokenzero.tasks.problem import (
    FAILED,
    ONGOING,
    SOLVED,
    Automaton,
    Problem,
    PublicProblem,
    Task,
    Verdict,
    Verdicts,
    check_split,
)

__all__ = ["ArithmeticConfig", "ArithmeticTask"]

Ids = NDArray[np.int64]

_EMPTY, _FAILED = 1, 0
_LONGEST = 9
"""Digits of the longest answer to any prompt."""


class ArithmeticTask(Task):
    """Addition under one `ArithmeticConfig`. Problems are built when first asked for, and then kept."""

    public_verifier: ClassVar[bool] = True

    def __init__(self, config: ArithmeticConfig | None = None, name: str = "arithmetic") -> None:
        self.config = config or ArithmeticConfig()
        self.name = name

    @property
    def max_answer_tokens(self) -> int:
        """The digits of the longest answer and one for the end mark."""
        return len(str(self.config.terms * (10**self.config.digits - 1))) + 1

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split; references are None, since the statement is enough to check an answer."""
        return build_splits(self.config, self.name)[check_split(split)]

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Ongoing while digits are missing; white space does not matter. Failed at once for other symbols.

        Raises InputError on a prompt that is not an addition.
        """
        right, digits = self._right_digits(read_prompt(problem.prompt)), _digits(answer)
        if digits is None or len(digits) > len(right):
            return FAILED
        if len(digits) < len(right):
            return ONGOING
        return SOLVED if digits == right else FAILED

    def automaton(self, pieces: Sequence[str]) -> Automaton:
        """`verdict` for answers that grow by tokens."""
        return ArithmeticAutomaton(self._right_digits, pieces)

    def score(self, problem: Problem, answer: str) -> float:
        """1.0 for the sum written in full, else 0.0."""
        return self.verdict(problem.public, answer).score or 0.0

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Random numbers on random training problems, uniform from 0 to the largest sum of such terms.

        They teach how an answer is written and nothing of adding: one of 19 is right by luck with two terms
        of one digit, one of 199 with two digits, and so on.
        """
        training = self.problems("train")
        if not training:
            raise InputError("arithmetic train is 0, so there is nothing to demonstrate on; use 1 or more")
        prompts = [training[i].public.prompt for i in rng.integers(len(training), size=count).tolist()]
        largest = [largest_sum(read_prompt(prompt)) for prompt in prompts]
        numbers = rng.integers(0, np.asarray(largest, np.int64), endpoint=True).tolist()
        return [
            (prompt, " ".join(self._written(number, most)))
            for prompt, number, most in zip(prompts, numbers, largest, strict=True)
        ]

    def augment(self, prompt: str, rng: np.random.Generator) -> str:
        """The same problem with its terms in a random order."""
        return write_prompt(tuple(rng.permutation(read_prompt(prompt)).tolist()))

    def tokenizer_spec(self) -> dict[str, Any]:
        """The words of every prompt and of every answer."""
        return {"kind": "words", "words": [*"0123456789", "+", "="]}

    def _right_digits(self, terms: Terms) -> str:
        return self._written(sum(terms), largest_sum(terms))

    def _written(self, number: int, largest: int) -> str:
        digits = str(number).zfill(len(str(largest)))
        return digits[::-1] if self.config.reverse else digits


class ArithmeticAutomaton:
    """The `Automaton` of additions for a tokenizer whose token t reads ``pieces[t]``.

    A state is the number written as 1 and the digits so far; a goal is that of the right answer.
    ``right_digits`` gives the right answer to some terms.
    """

    def __init__(self, right_digits: Any, pieces: Sequence[str]) -> None:
        self._right_digits = right_digits
        read = [_digits(piece) for piece in pieces]
        # A token that cannot belong to an answer takes any state to _FAILED.
        fits = [digits if digits is not None and len(digits) <= _LONGEST else None for digits in read]
        self._factor = np.asarray([0 if digits is None else 10 ** len(digits) for digits in fits], np.int64)
        self._summand = np.asarray([int(digits or 0) for digits in fits], np.int64)

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        """See `Automaton`. Raises InputError on a prompt that is not an addition."""
        goals = [int(f"1{self._right_digits(read_prompt(problem.prompt))}") for problem in problems]
        return np.full(len(problems), _EMPTY, np.int64), np.asarray(goals, np.int64)

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        """See `Automaton`."""
        after = states * self._factor[tokens] + self._summand[tokens]
        # Both begin with a 1: with a digit less than the goal a state is below a fifth of it, else above.
        done = (after == _FAILED) | (5 * after >= goals)
        return after, Verdicts(done, np.where(done, after == goals, np.nan))


def _digits(text: str) -> str | None:
    """The text without white space if only digits are left (or nothing), else None."""
    digits = "".join(text.split())
    return digits if not digits or (digits.isascii() and digits.isdecimal()) else None
