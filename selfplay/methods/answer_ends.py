"""Whether an answer that has just grown by a token ends there, and what the public verdict on it is.

Answers are shown to the task as text. Gold answers are never seen, and what goes on is not priced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenzero.selfplay.game import End
from tokenzero.selfplay.outcomes import before_stop
from tokenzero.selfplay.parts import Parts
from tokenzero.tasks import PublicProblem


class Grown(NamedTuple):
    """An answer to ``problem`` with its last token: at most ``limit`` tokens, and their whole ``text``."""

    problem: PublicProblem
    limit: int
    tokens: Sequence[int]
    text: str


class Reading(NamedTuple):
    """``text`` of the answer, cut before a stop string; what ended it, None where it may go on; and the
    public verdict's score, None where only gold could tell.
    """

    text: str
    end: End | None
    verdict: float | None


class AnswerReader:
    """Reads the ends of answers for ``parts``: a stop string, the task's verdict, the end mark, lack of room,
    or a detector, in this order.

    Where the verdict is public, an answer that ends without one is worth 0.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._unfinished = 0.0 if parts.task.public_verifier else None

    def __call__(self, grown: Sequence[Grown]) -> list[Reading]:
        """How each answer stands. One verdict is asked for each."""
        found = [self._read(answer) for answer in grown]
        if self._parts.terminal is not None:
            going = [index for index, reading in enumerate(found) if reading.end is None]
            prompts = [grown[index].problem.prompt for index in going]
            flags = self._parts.terminal.finished_batch(prompts, [found[index].text for index in going])
            for index, finished in zip(going, flags.tolist(), strict=True):
                if finished:
                    found[index] = found[index]._replace(end="ended")
        return found

    def _read(self, grown: Grown) -> Reading:
        problem, text = grown.problem, grown.text
        kept = before_stop(text, problem.stop)
        verdict = self._parts.task.verdict(problem, kept)
        score = verdict.score if verdict.done else self._unfinished
        if len(kept) < len(text):
            return Reading(kept, "stop", score)
        if verdict.done or grown.tokens[-1] == self._parts.student.eos_id:
            return Reading(text, "ended", score)
        return Reading(text, "length" if len(grown.tokens) >= grown.limit else None, score)


def certain(text: str, stop: Sequence[str]) -> int:
    """Characters of ``text`` that no continuation can take back: all but an ending with which one of the
    ``stop`` strings may begin.
    """
    for length in range(min(len(text), max(map(len, stop), default=0)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return len(text) - length
    return len(text)
