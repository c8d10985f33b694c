"""What the text of a Countdown answer says, read from its beginning or on from where reading stopped.

`Reader` reads texts; `CountdownAutomaton` does the same for answers that grow by tokens, and remembers what
each token did after each beginning, so that search asks it for a small fraction of a microsecond. Games with
the same numbers left share what is remembered. What is legal is said in `countdown_rules`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.tasks.countdown_problems import read_prompt
from tokenzero.tasks.countdown_rules import Position, Rules, legal_steps
from tokenzero.tasks.problem import FAILED, ONGOING, SOLVED, PublicProblem, Verdict, Verdicts

Ids = NDArray[np.int64]

PLACES = 1 << 14
"""Most positions that a reader remembers, a few kB each."""

STARTS = 1 << 14
"""Most prompts that it remembers."""

_FAILED, _UNSEEN = -1, -(1 << 62)


class Place(NamedTuple):
    """A position with its legal steps; ``written`` holds them sorted, ``name`` is the position as text."""

    name: str
    position: Position
    steps: Mapping[str, Position]
    written: list[str]


class Reader:
    """Reads answers under one set of `Rules`. A copy begins with an empty memory."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._places: dict[Position, Place] = {}
        self._starts: dict[str, tuple[Place, str]] = {}

    def __reduce__(self) -> tuple[type[Reader], tuple[Rules]]:
        return Reader, (self._rules,)

    def start(self, prompt: str) -> tuple[Place, str]:
        """Where a prompt's play begins, and the target as it would be written.

        Raises InputError on a prompt that is not Countdown.
        """
        found = self._starts.get(prompt)
        if found is None:
            if len(self._starts) >= STARTS:
                self._starts.clear()
            numbers, target = read_prompt(prompt)
            found = self._starts[prompt] = self.place(self._rules.position(numbers)), str(target)
        return found

    def place(self, position: Position) -> Place:
        """The place of a position."""
        place = self._places.get(position)
        if place is None:
            if len(self._places) >= PLACES:
                self._places.clear()
            steps = legal_steps(self._rules, position)
            place = self._places[position] = Place(" ".join(position), position, steps, sorted(steps))
        return place

    def read(self, place: Place, text: str) -> tuple[Place, str] | str | None:
        """Where ``text``, read on from ``place``, leads: to a place and the unfinished step after it, to the
        result of a whole answer, or (None) nowhere, because no legal answer goes on like that.
        """
        width = self._rules.step_words
        while len(place.position) > 2:
            words = text.split(" ", width)
            if len(words) <= width:  # no space after this step: its last word may be unfinished
                return self._unfinished(place, text)
            following = place.steps.get(" ".join(words[:width]))
            if following is None:
                return None
            place, text = self.place(following), words[width]
        end = place.steps.get(text.rstrip())
        return self._unfinished(place, text) if end is None else end[0]

    def continuations(self, prompt: str, answer: str) -> list[str]:
        """What makes the step at the end of ``answer``, or the next one after it, a whole legal step."""
        text = answer.removeprefix(" ")
        found = self.read(self.start(prompt)[0], text)
        if found is None or isinstance(found, str):
            return []
        place, begun = found
        whole = place.steps.get(begun)
        if whole is not None:  # nothing but the space after it is missing
            return [f" {step}" for step in self.place(whole).written]
        return [step.removeprefix(begun) for step in place.written if step.startswith(begun)]

    @staticmethod
    def _unfinished(place: Place, text: str) -> tuple[Place, str] | None:
        # In sorted order whatever begins with a text comes right at it.
        index = bisect_left(place.written, text)
        begins = index < len(place.written) and place.written[index].startswith(text)
        return (place, text) if begins else None

    def verdict(self, prompt: str, answer: str) -> Verdict:
        """As `CountdownTask.verdict`."""
        place, target = self.start(prompt)
        found = self.read(place, answer.removeprefix(" "))
        if found is None:
            return FAILED
        if isinstance(found, str):
            return SOLVED if found == target else FAILED
        return ONGOING


class CountdownAutomaton:
    """The `Automaton` of Countdown for a tokenizer whose token t reads ``pieces[t]``.

    A state is a place and the unfinished step after it. A goal is a result's number. ``size`` counts the
    moves remembered, about 150 bytes each; they are never forgotten, so the owner makes a new one when it is
    large.
    """

    def __init__(self, reader: Reader, pieces: Sequence[str]) -> None:
        self._reader = reader
        self._pieces = list(pieces)
        # state * number of tokens + token -> state, _FAILED, or -2 - number of a result
        self._next: dict[int, int] = {}
        # By state: the place, and what is written after it, None before an answer begins. Flat lists and
        # texts as keys, because many small tuples would keep the garbage collector busy.
        self._places: list[Place] = []
        self._written: list[str | None] = []
        self._number: dict[str, int] = {}
        self._results: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Moves remembered."""
        return len(self._next)

    def reads(self, pieces: Sequence[str]) -> bool:
        """Whether it was made for these pieces."""
        return self._pieces == list(pieces)

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        """See `Automaton`. Raises InputError on a prompt that is not Countdown."""
        starts = [self._reader.start(problem.prompt) for problem in problems]
        states = [self._state(place, None) for place, _ in starts]
        goals = [self._result(target) for _, target in starts]
        return np.asarray(states, np.int64), np.asarray(goals, np.int64)

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        """See `Automaton`."""
        moves = (states * len(self._pieces) + tokens).tolist()
        after = np.asarray(list(map(self._next.get, moves, repeat(_UNSEEN))), np.int64)
        for index in np.flatnonzero(after == _UNSEEN).tolist():
            after[index] = self._move(moves[index])
        score = np.where(after >= 0, np.nan, after == -2 - goals)
        return after, Verdicts(after < 0, score)

    def _move(self, move: int) -> int:
        known = self._next.get(move)  # it may have been made a moment ago
        if known is None:
            state, token = divmod(move, len(self._pieces))
            written, piece = self._written[state], self._pieces[token]
            text = written
            if piece:
                # One space may come before an answer.
                text = piece.removeprefix(" ") if written is None else written + piece
            known = self._next[move] = state if text is None else self._outcome(self._places[state], text)
        return known

    def _outcome(self, place: Place, text: str) -> int:
        found = self._reader.read(place, text)
        if found is None:
            return _FAILED
        if isinstance(found, str):
            return -2 - self._result(found)
        return self._state(*found)

    def _state(self, place: Place, written: str | None) -> int:
        name = f"{place.name}:{written}" if written is not None else place.name
        number = self._number.setdefault(name, len(self._places))
        if number == len(self._places):
            self._places.append(place)
            self._written.append(written)
        return number

    def _result(self, text: str) -> int:
        return self._results.setdefault(text, len(self._results))
