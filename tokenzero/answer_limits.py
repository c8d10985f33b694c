"""Tasks that only the front door needs: free text without a verifier, and any task with another answer
length.

It knows no checkpoint and no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import ONGOING, Automaton, Problem, PublicProblem, Task, Verdict, Verdicts

FREE_TEXT = "free text"
Ids = NDArray[np.int64]


class _Endless:
    """Says of every answer that it may go on."""

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        nothing = np.zeros(len(problems), np.int64)
        return nothing, nothing

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        return states, Verdicts(np.zeros(len(states), np.bool_), np.full(len(states), np.nan))


class FreeText(Task):
    """Any prompt, any answer: only the end mark or the length limit ends one, and nothing can be scored."""

    public_verifier: ClassVar[bool] = False

    def __init__(self, max_answer_tokens: int) -> None:
        self.name = FREE_TEXT
        self._limit = _checked(max_answer_tokens)

    @property
    def max_answer_tokens(self) -> int:
        """The limit it was made with."""
        return self._limit

    def problems(self, split: str) -> Sequence[Problem]:
        """Raises InputError: free text has no problems."""
        raise InputError(
            "this model names no task, so there are no problems; give --task, for example countdown"
        )

    def automaton(self, pieces: Sequence[str]) -> Automaton:
        """No text has to be read."""
        return _Endless()

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Always ongoing."""
        return ONGOING

    def score(self, problem: Problem, answer: str) -> float:
        """Raises InputError, as ``problems``."""
        self.problems("test")
        return 0.0

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Raises InputError, as ``problems``."""
        self.problems("train")
        return []

    def tokenizer_spec(self) -> dict[str, Any]:
        """Raises InputError: free text has no vocabulary of its own."""
        raise InputError("free text has no vocabulary of its own; use the model's tokenizer")


def with_limit(task: Task, limit: int) -> Task:
    """The same task with answers of at most ``limit`` tokens. Raises InputError for a limit below 1."""
    _checked(limit)

    class Limited(Task):
        """Everything as in ``task``, except the length."""

        name = task.name
        public_verifier = task.public_verifier
        likelier_is_better = task.likelier_is_better

        @property
        def max_answer_tokens(self) -> int:
            return limit

        def problems(self, split: str) -> Sequence[Problem]:
            return task.problems(split)

        def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
            return task.verdict(problem, answer)

        def automaton(self, pieces: Sequence[str]) -> Automaton | None:
            return task.automaton(pieces)

        def steps(self, answer: str) -> int:
            return task.steps(answer)

        def actions(self, problem: PublicProblem, answer: str) -> Sequence[str] | None:
            return task.actions(problem, answer)

        def final_answer(self, answer: str) -> str:
            return task.final_answer(answer)

        def score(self, problem: Problem, answer: str) -> float:
            return task.score(problem, answer)

        def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
            return task.demonstrations(count, rng)

        def tokenizer_spec(self) -> dict[str, Any]:
            return task.tokenizer_spec()

        def augment(self, prompt: str, rng: np.random.Generator) -> str:
            return task.augment(prompt, rng)

    return Limited()


def _checked(limit: int) -> int:
    if limit < 1:
        raise InputError(f"max_new_tokens is {limit}; give at least 1")
    return limit
