"""What a finished answer earns: scores in [0, 1], 1 is best, one part at a time.

This file holds the protocol, the rewards that look at one row at a time (exact match, the task's verifier,
any function of one answer) and nothing that needs a model. It does not weigh parts against each other
(`reward_mix`) and reads no configuration (`reward_config`). References here are gold: rewards score games
of self-play on training problems, and none that reads a reference is handed to a search at test time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

Reals = NDArray[np.float64]
RowFunction = Callable[[str, str, str | None], float]
Measure = Callable[[str, str], float]


@dataclass(frozen=True)
class Given:
    """What is known of a batch besides its texts.

    round_index: rounds finished before this one, read by schedules. verified: the scores of the task's
    verifier on the same L answers, each in [0, 1]; None where nothing was verified.
    """

    round_index: int = 0
    verified: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.round_index < 0:
            raise InputError(f"round index is {self.round_index}: rounds count from 0")

    def of(self, rows: Sequence[int]) -> Given:
        """The same for some of the rows."""
        verified = None if self.verified is None else [self.verified[row] for row in rows]
        return Given(self.round_index, verified)


NOTHING_GIVEN = Given()


class Reward(Protocol):
    """One part of a reward.

    score(prompts, answers, references), each of length L -> f64 [L] in [0, 1], 1 is best. A reference is the
    gold answer, or None where a problem has none. May raise for rows it cannot score; a mix then finds out
    which rows these are.
    """

    @property
    def name(self) -> str: ...

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals: ...


@dataclass(frozen=True)
class RowReward:
    """A reward that is a function of one row: function(prompt, answer, reference) -> a score in [0, 1]."""

    name: str
    function: RowFunction

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals:
        """f64 [L]. Raises InputError when the lists differ in length, and whatever the function raises."""
        check_lengths(prompts, answers, references)
        rows = zip(prompts, answers, references, strict=True)
        return np.array([self.function(*row) for row in rows], dtype=np.float64)


class VerifierReward:
    """The score that the task's verifier has given already, handed in as `Given.verified`."""

    def __init__(self, name: str = "verifier") -> None:
        self.name = name

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals:
        """f64 [L]. Raises InputError when no scores, or not one for each answer, are handed in."""
        check_lengths(prompts, answers, references)
        if given.verified is None or len(given.verified) != len(answers):
            held = "none" if given.verified is None else len(given.verified)
            raise InputError(
                f"reward {self.name!r} needs {len(answers)} verifier scores and got {held}: "
                "hand them in as Given(verified=...)"
            )
        return np.array(given.verified, dtype=np.float64)


def check_lengths(prompts: Sequence[str], answers: Sequence[str], references: Sequence[str | None]) -> None:
    """Raise InputError unless there are as many prompts and references as answers."""
    if not len(prompts) == len(answers) == len(references):
        raise InputError(
            f"a reward got {len(prompts)} prompts, {len(answers)} answers and {len(references)} references: "
            "give one each"
        )


def present(reference: str | None, name: str) -> str:
    """The reference, or InputError where there is none: reward `name` compares with it."""
    if reference is None:
        raise InputError(f"reward {name!r} needs a reference and the problem has none: leave the reward out")
    return reference


def against_reference(name: str, measure: Measure) -> RowReward:
    """The reward measure(answer, reference). A row without a reference raises InputError."""
    return RowReward(name, lambda prompt, answer, reference: measure(answer, present(reference, name)))


# ---- exact match

_PLAIN = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?")
_RATIO = re.compile(r"[+-]?[0-9]+ ?/ ?[0-9]+")
_AROUND = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"  # straight, curly and angle quotes
_AFTER = ".!?,;:"


def exact_match(answer: str, reference: str, numbers: bool = True) -> float:
    """1.0 when both are the same text after `normalised`, or with `numbers` the same number, else 0.0.

    Numbers are compared without rounding: 1,000 is 1000.0 and 1e3, 0.5 is 1/2, 0.33 is not 1/3.
    """
    left, right = normalised(answer), normalised(reference)
    if left == right:
        return 1.0
    if not numbers:
        return 0.0
    value = _number(left)
    return float(value is not None and value == _number(right))


def normalised(text: str) -> str:
    """Case folded, white space as single spaces, quotes around and punctuation at the end taken off.

    Unicode is composed (NFC) but not made compatible (NFKC), which would turn 10² into 102.
    """
    folded = unicodedata.normalize("NFC", text).casefold().replace("\N{MINUS SIGN}", "-")
    return " ".join(folded.split()).strip(_AROUND).rstrip(_AFTER).strip(_AROUND).strip()


def _number(text: str) -> Fraction | None:
    plain = _PLAIN.fullmatch(text) is not None and any(letter.isdigit() for letter in text.split("e")[0])
    if not plain and not _RATIO.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(",", "").replace(" ", ""))
    except (ValueError, ZeroDivisionError):  # thousands of digits, or a zero below the line
        return None
