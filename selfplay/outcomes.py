"""Which states end an answer, and with what score: the task's public verdicts, and gold where a grader is
given.

Tasks that offer an automaton are asked by token and no text is ever made for them; others are shown the text
of each new state. This file does not price what goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.student import Student
from tokenzero.selfplay.state_table import StateTable
from tokenzero.tasks import Automaton, PublicProblem, Task, Verdicts
from tokenzero.value.terminal import CombinedDetector

Grader = Callable[[int, str], float]
"""(number of the game, finished answer) -> score in [0, 1]; bound to training problems by self-play."""

Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Scores f64 [L] of answers, NaN if nobody here can tell or they go on, and whether their last token ended
them.
"""


class Outcomes:
    """Ends of the answers in ``table``, for games in ``places`` places. Counts its calls in ``ledger``.

    An answer ends by the task's verdict, the end mark, for lack of room, or where ``terminal`` says so.
    """

    def __init__(
        self,
        student: Student,
        task: Task,
        pieces: Pieces,
        table: StateTable,
        places: int,
        grader: Grader | None,
        ledger: Ledger,
        terminal: CombinedDetector | None = None,
    ) -> None:
        self._terminal = terminal
        self._task = task
        self._eos_id = student.eos_id
        self._pieces = pieces
        self._table = table
        self._grader = grader
        self._ledger = ledger
        self._problems: list[PublicProblem] = [PublicProblem("", "")] * places
        self._number = np.zeros(places, np.int64)
        self._goal = np.zeros(places, np.int64)
        self._automaton = automaton_of(student, task, pieces)

    def open(
        self, places: Ids, roots: Ids, problems: Sequence[PublicProblem], numbers: Sequence[int]
    ) -> None:
        """Begin the answers to ``problems`` at ``roots``; a grader knows the games by ``numbers``."""
        self._number[places] = numbers
        for place, problem in zip(places.tolist(), problems, strict=True):
            self._problems[place] = problem
        if self._automaton is None:
            self._table.write(roots, [""] * len(roots))
        else:
            self._table.reading[roots], self._goal[places] = self._automaton.begin(problems)

    def problem(self, place: int) -> PublicProblem:
        """The problem of the game in a place."""
        return self._problems[place]

    def text(self, row: int) -> str:
        """The partial answer of a state."""
        if self._automaton is None:
            return self._table.text[row]
        return self._pieces.text(self._table.answer(row))

    def read(self, rows: Ids) -> Scores:
        """The outcomes of new states ``rows`` i64 [L]."""
        table = self._table
        tokens, places = table.token[rows], table.game[rows]
        full = table.length[rows] >= self._task.max_answer_tokens
        if self._automaton is None:
            verdicts = self._verdicts(places, self._grow(rows, tokens))
        else:
            before, goals = table.reading[table.parent[rows]], self._goal[places]
            table.reading[rows], verdicts = self._automaton.advance(before, tokens, goals)
        return self._scores(verdicts, places, tokens, full, lambda index: self.text(int(rows[index])))

    def read_texts(
        self, places: Ids, texts: Sequence[str], tokens: Ids, full: npt.NDArray[np.bool_]
    ) -> Scores:
        """The outcomes of answers outside the table; ``tokens`` i64 [L] are their last, ``full`` bool [L]
        says that there is no room for more.
        """
        return self._scores(self._verdicts(places, texts), places, tokens, full, texts.__getitem__)

    def _grow(self, rows: Ids, tokens: Ids) -> list[str]:
        """Write the texts of new states."""
        table, append = self._table, self._pieces.append
        whole = not self._pieces.independent
        texts = [
            append(table.text[parent], table.answer(parent) if whole else (), token)
            for parent, token in zip(table.parent[rows].tolist(), tokens.tolist(), strict=True)
        ]
        table.write(rows, texts)
        return texts

    def _verdicts(self, places: Ids, texts: Sequence[str]) -> Verdicts:
        problems = [self._problems[place] for place in places.tolist()]
        found = [self._task.verdict(problem, text) for problem, text in zip(problems, texts, strict=True)]
        return Verdicts(
            np.asarray([verdict.done for verdict in found], np.bool_),
            np.asarray([verdict.score for verdict in found], np.float64),  # None becomes NaN
        )

    def _scores(
        self,
        verdicts: Verdicts,
        places: Ids,
        tokens: Ids,
        full: npt.NDArray[np.bool_],
        text: Callable[[int], str],
    ) -> Scores:
        """What verdicts, end mark, length limit and grader come to; ``text(i)`` is answer i."""
        self._ledger.verifier_calls += len(tokens)
        ended = verdicts.done | full | (tokens == self._eos_id)
        if self._terminal is not None:
            going = np.flatnonzero(~ended)
            prompts = [self._problems[place].prompt for place in places[going].tolist()]
            ended[going] = self._terminal.finished_batch(prompts, [text(index) for index in going.tolist()])
        score = np.where(ended, verdicts.score, np.nan)
        unknown = np.flatnonzero(ended & np.isnan(score))
        if self._grader is not None:
            asked = zip(self._number[places[unknown]].tolist(), unknown.tolist(), strict=True)
            score[unknown] = [self._grader(number, text(index)) for number, index in asked]
            self._ledger.verifier_calls += len(unknown)
        elif self._task.public_verifier:
            score[unknown] = 0.0
        return score, ended


def automaton_of(student: Student, task: Task, pieces: Pieces) -> Automaton | None:
    """The task's automaton on the student's tokens, where there is one."""
    if not pieces.independent:
        return None
    return task.automaton([pieces.text([token]) for token in range(student.vocab_size)])
