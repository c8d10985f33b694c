"""What a problem, a verdict and a task are.

The split between `PublicProblem` and `Problem` is the safety rule of this project: whatever runs at test time
is handed a `PublicProblem`, a type with no place for the reference answer, so it cannot read one. `Problem`
adds the reference and is seen only by scoring and by self-play on training problems.

This file does not know any particular task, does not tokenize and does not search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

Ids = NDArray[np.int64]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class PublicProblem:
    """The part of a problem that anyone may see. It has no reference field, on purpose.

    id: unique within its task. prompt: the text put before the answer. tag: a context name (for example the
    data set) by which teachers may specialise; empty when there is none. limit: most answer tokens, where
    whoever asks wants fewer than the task allows. stop: strings that end the answer where they first appear.
    ids: the prompt's token ids, where whoever asks has cut it already; empty: the text is cut.
    """

    id: str
    prompt: str
    tag: str = ""
    limit: int | None = None
    stop: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its private reference: the gold answer, or None where the statement alone is enough."""

    public: PublicProblem
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said about a possibly unfinished answer.

    done and score 1.0: solved. done and 0.0: illegal or wrong, whatever is written next. done and None:
    finished, but only the gold reference can score it. not done: score is None and the answer may go on.
    """

    done: bool
    score: float | None


class Verdicts(NamedTuple):
    """L verdicts: ``done`` bool [L] and ``score`` f64 [L], NaN where `Verdict.score` is None."""

    done: NDArray[np.bool_]
    score: NDArray[np.float64]


ONGOING = Verdict(False, None)
SOLVED = Verdict(True, 1.0)
FAILED = Verdict(True, 0.0)


class Automaton(Protocol):
    """Verdicts on answers that grow by a token at a time, without their text; they are those of
    `Task.verdict`.

    A state, i64, stands for all there is to know of an answer so far, whatever the problem; a goal, i64, for
    what a problem asks for.
    """

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        """States of empty answers, and goals, both i64 [L]."""
        ...

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        """States after ``tokens``, and the verdicts there; all i64 [L]. What is done goes no further."""
        ...


class Task(ABC):
    """A set of problems with splits, a verifier and a stop rule. Immutable once built; safe to share.

    name: what `get_task` accepts. public_verifier: True when `verdict` needs only the problem statement, so
    that test-time search may call it. likelier_is_better: True for plain text, where search can only look for
    what is likely.
    """

    name: str
    public_verifier: ClassVar[bool]
    likelier_is_better: ClassVar[bool] = False

    @property
    @abstractmethod
    def max_answer_tokens(self) -> int:
        """A length limit in the task's own tokens (see `tokenizer_spec`), with one to spare for the end mark.

        No legal answer is longer where the rules bound the length; a generous guess where they do not.
        """

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train", "validation" or "test", in a fixed order. Raises InputError for other
        names.
        """

    @abstractmethod
    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """The verdict on an answer that may be unfinished; called after every token, so it takes
        microseconds.
        """

    def automaton(self, pieces: Sequence[str]) -> Automaton | None:
        """`verdict` as a machine on tokens, for a tokenizer whose token t always adds the text ``pieces[t]``;
        None (the default) where there is none, and `verdict` must be asked with the text.
        """
        return None

    def steps(self, answer: str) -> int:
        """How many finished steps a partial answer holds; it never falls as the answer grows. Search over
        steps ends one with the token that raises it. Default: its lines.
        """
        return answer.count("\n")

    def actions(self, problem: PublicProblem, answer: str) -> Sequence[str] | None:
        """What may be written next, each a text to put right after a partial answer, in a fixed order; empty
        where nothing may. None (the default): the task names no actions, and search goes by token or step.
        """
        return None

    def final_answer(self, answer: str) -> str:
        """What a complete answer comes to, so that answers of the same meaning can be counted together; ""
        where it states nothing. Default: its text, without the white space around it.
        """
        return answer.strip()

    @abstractmethod
    def score(self, problem: Problem, answer: str) -> float:
        """The score in [0, 1] of a complete answer; may read the reference. Malformed text gives 0.0."""

    @abstractmethod
    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """`count` (prompt, answer) pairs on training problems, to teach the writing and not the winning."""

    @abstractmethod
    def tokenizer_spec(self) -> dict[str, Any]:
        """What a fixed vocabulary for this task holds.

        {"kind": "words", "words": [...]} (text is split at spaces) or {"kind": "characters", "alphabet":
        "..."}.
        """

    def augment(self, prompt: str, rng: np.random.Generator) -> str:
        """An equivalent prompt: one with the same legal answers and the same verdicts. Default: the same
        prompt.
        """
        return prompt


def check_split(split: str) -> str:
    """Return `split` if it is one of SPLITS, else raise InputError."""
    if split not in SPLITS:
        raise InputError(f"split {split!r} does not exist; use one of {', '.join(SPLITS)}")
    return split
