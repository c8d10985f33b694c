"""Which states end an answer, what ends it, and with what score: the task's public verdicts, and gold where a
grader is given.

Tasks that offer an automaton are asked by token, and text is made for them only where a problem has stop
strings; others are shown the text of each new state. This file does not price what goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.student import Student
from tokenzero.selfplay.game import End
from tokenzero.selfplay.place_costs import PlaceCosts
from tokenzero.selfplay.state_table import StateTable
from tokenzero.tasks import Automaton, PublicProblem, Task, Verdicts
from tokenzero.value.terminal import CombinedDetector

Grader = Callable[[int, str], float]
"""(number of the game, finished answer) -> score in [0, 1]; bound to training problems by self-play."""

Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Scores f64 [L] of answers, NaN if nobody here can tell or they go on, and whether their last token ended
them.
"""


ENDS: tuple[End, ...] = ("ended", "stop", "length")
"""What `StateTable.end` numbers."""
_STOP, _LENGTH = ENDS.index("stop"), ENDS.index("length")


class Outcomes:
    """Ends of the answers in ``table``, for games in ``places`` places. Its calls are paid into ``costs``.

    An answer ends where one of the problem's stop strings appears, by the task's verdict, the end mark, for
    lack of room, or where ``terminal`` says so. With a stop string the verdict is that on the text before it.
    """

    def __init__(
        self,
        student: Student,
        task: Task,
        pieces: Pieces,
        table: StateTable,
        places: int,
        grader: Grader | None,
        costs: PlaceCosts,
        terminal: CombinedDetector | None = None,
    ) -> None:
        self._terminal = terminal
        self._task = task
        self._eos_id = student.eos_id
        self._pieces = pieces
        self._table = table
        self._grader = grader
        self._costs = costs
        self._problems: list[PublicProblem] = [PublicProblem("", "")] * places
        self._number = np.zeros(places, np.int64)
        self._goal = np.zeros(places, np.int64)
        self.limit = np.full(places, task.max_answer_tokens, np.int64)
        self._stopping = np.zeros(places, np.bool_)
        self._automaton = automaton_of(student, task, pieces)

    def open(
        self, places: Ids, roots: Ids, problems: Sequence[PublicProblem], numbers: Sequence[int]
    ) -> None:
        """Begin the answers to ``problems`` at ``roots``; a grader knows the games by ``numbers``."""
        self._number[places] = numbers
        self.limit[places] = [longest_answer(self._task, problem) for problem in problems]
        self._stopping[places] = [bool(problem.stop) for problem in problems]
        for place, problem in zip(places.tolist(), problems, strict=True):
            self._problems[place] = problem
        if self._automaton is None:
            self._table.write(roots, [""] * len(roots))
        else:
            self._table.reading[roots], self._goal[places] = self._automaton.begin(problems)

    def check(self, problem: PublicProblem) -> None:
        """Raise InputError for a problem that is not the task's, before it is in play beside others."""
        if longest_answer(self._task, problem) < 1:
            raise InputError(f"limit is {problem.limit}; give room for at least 1 token, or None")
        if "" in problem.stop:
            raise InputError("a stop string is empty; give text, or leave it out")
        if self._automaton is None:
            self._task.verdict(problem, "")
        else:
            self._automaton.begin([problem])

    def problem(self, place: int) -> PublicProblem:
        """The problem of the game in a place."""
        return self._problems[place]

    def text(self, row: int) -> str:
        """The partial answer of a state, up to a stop string."""
        return before_stop(self._whole(row), self._problems[int(self._table.game[row])].stop)

    def _whole(self, row: int) -> str:
        if self._automaton is None:
            return self._table.text[row]
        return self._pieces.text(self._table.answer(row))

    def read(self, rows: Ids) -> Scores:
        """The outcomes of new states ``rows`` i64 [L]."""
        table = self._table
        tokens, places = table.token[rows], table.game[rows]
        full = table.length[rows] >= self.limit[places]
        if self._automaton is None:
            verdicts = self._verdicts(places, self._grow(rows, tokens))
        else:
            before, goals = table.reading[table.parent[rows]], self._goal[places]
            table.reading[rows], verdicts = self._automaton.advance(before, tokens, goals)
        score, ended, table.end[rows] = self._scores(
            verdicts, places, tokens, full, lambda index: self._whole(int(rows[index]))
        )
        return score, ended

    def read_texts(
        self, places: Ids, texts: Sequence[str], tokens: Ids, full: npt.NDArray[np.bool_]
    ) -> Scores:
        """The outcomes of answers outside the table; ``tokens`` i64 [L] are their last, ``full`` bool [L]
        says that there is no room for more.
        """
        return self.read_ends(places, texts, tokens, full)[:2]

    def read_ends(
        self, places: Ids, texts: Sequence[str], tokens: Ids, full: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
        """As `read_texts`, and what ended each answer (see `ENDS`), i8 [L]."""
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
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
        """What stop strings, verdicts, end mark, length limit and grader come to, and what ended each answer;
        ``text(i)`` is answer i, whole."""
        self._costs.pay("verifier_calls", places)
        done, score = verdicts.done, verdicts.score
        cut = self._cut(places, text)
        if cut:
            stopped = np.asarray(list(cut), np.int64)
            again = self._verdicts(places[stopped], list(cut.values()))
            self._costs.pay("verifier_calls", places[stopped])
            done, score = done.copy(), score.copy()
            done[stopped], score[stopped] = True, np.where(again.done, again.score, np.nan)
        ended = done | (tokens == self._eos_id)
        end = np.where(ended | ~full, 0, _LENGTH).astype(np.int8)
        end[list(cut)] = _STOP
        ended = ended | full
        if self._terminal is not None:
            going = np.flatnonzero(~ended)
            prompts = [self._problems[place].prompt for place in places[going].tolist()]
            ended[going] = self._terminal.finished_batch(prompts, [text(index) for index in going.tolist()])
        score = np.where(ended, score, np.nan)
        unknown = np.flatnonzero(ended & np.isnan(score))
        if self._grader is not None:
            asked = zip(self._number[places[unknown]].tolist(), unknown.tolist(), strict=True)
            score[unknown] = [
                self._grader(number, cut[index] if index in cut else text(index)) for number, index in asked
            ]
            self._costs.pay("verifier_calls", places[unknown])
        elif self._task.public_verifier:
            score[unknown] = 0.0
        return score, ended, end

    def _cut(self, places: Ids, text: Callable[[int], str]) -> dict[int, str]:
        """The answers among those in ``places`` i64 [L] in which a stop string appears, by their index, each
        up to there."""
        found: dict[int, str] = {}
        for index in np.flatnonzero(self._stopping[places]).tolist():
            whole = text(index)
            short = before_stop(whole, self._problems[int(places[index])].stop)
            if len(short) < len(whole):
                found[index] = short
        return found


def before_stop(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the strings ``stop`` in it; all of it where there is none."""
    found = [at for at in map(text.find, stop) if at >= 0]
    return text[: min(found)] if found else text


def longest_answer(task: Task, problem: PublicProblem) -> int:
    """Most answer tokens of a problem: the task's, or fewer where its own limit says so."""
    return min(task.max_answer_tokens, task.max_answer_tokens if problem.limit is None else problem.limit)


def automaton_of(student: Student, task: Task, pieces: Pieces) -> Automaton | None:
    """The task's automaton on the student's tokens, where there is one."""
    if not pieces.independent:
        return None
    return task.automaton([pieces.text([token]) for token in range(student.vocab_size)])
