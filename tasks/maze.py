"""Mazes: find a way from start to goal through a square grid, one cell at a time.

Prompt "Aa # Ac\\nBa # Bc\\nCa Cb Cc\\nAa -> Ac :": each cell is its name, row and column, or # for a wall;
then start and goal. Answer "Ba Ca Cb Cc Bc Ac": the cells entered. Each lies beside the one before, not over
a corner, is no wall and is entered once. An answer is solved as soon as it stands on the goal, and has failed
when no legal move is left or `max_moves` are used up. Anyone can check that from the prompt, so the verifier
is public.

Answers name cells, and not directions, because a small model must then not count to know where it stands:
after a warm start of 400 steps on random play, a model of 0.1 M parameters solves 5 % of mazes by sampling;
writing directions it solves 0.1 %, and 0.3 % after 1,500 steps.

This file does not look ahead: an answer whose way to the goal is cut off goes on until it is stuck.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isnan
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.maze_paths import (
    ILLEGAL,
    STANDING,
    STAY,
    Ids,
    advance,
    fenced,
    numbers_of_names,
    score_route,
    wander,
)
from tokenzero.tasks.maze_problems import (
    START,
    WALL,
    Cells,
    MazeConfig,
    build_splits,
    cell_names,
    read_prompt,
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

__all__ = ["MazeConfig", "MazeTask"]


class MazeTask(Task):
    """Mazes under one `MazeConfig`. Problems are built when first asked for, and then kept."""

    public_verifier: ClassVar[bool] = True

    def __init__(self, config: MazeConfig | None = None, name: str = "maze") -> None:
        self.config = config or MazeConfig()
        self.name = name
        self._numbers = numbers_of_names(self.config.size)

    @property
    def max_answer_tokens(self) -> int:
        """The most moves and one for the end mark."""
        return self.config.moves + 1

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split; references are None, since the statement is enough to check an answer."""
        return build_splits(self.config, self.name)[check_split(split)]

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Ongoing while `answer` is a legal way that can go on. White space does not matter: every two
        letters name a cell, and one more that names a row waits for its second.

        Raises InputError on a prompt that is not a maze of this size.
        """
        size, limit = self.config.size, self.config.moves
        grid, letters = _fenced_grid(problem.prompt, size), "".join(answer.split())
        pairs, rest = letters[: len(letters) // 2 * 2], letters[len(letters) // 2 * 2 :]
        names = [pairs[place : place + 2] for place in range(0, len(pairs), 2)]
        route = [self._numbers[name] for name in names if name in self._numbers]
        if len(route) < len(names) or (rest and f"{rest}a" not in self._numbers):
            return FAILED
        cells, marks = np.asarray(route, np.int64), np.zeros(len(grid), np.int64)
        score = score_route(grid, size + 2, cells, len(route), limit, marks, 1)
        if isnan(score):
            return ONGOING
        return SOLVED if score and not rest else FAILED

    def steps(self, answer: str) -> int:
        """Cells entered."""
        return len("".join(answer.split())) // 2

    def actions(self, problem: PublicProblem, answer: str) -> Sequence[str]:
        """The cells that may be entered next (up, down, left, right), or the rests of a name that was
        begun.
        """
        if self.verdict(problem, answer).done:
            return []
        letters, width = "".join(answer.split()), self.config.size + 2
        grid = _fenced_grid(problem.prompt, self.config.size)
        names = {cell: name for name, cell in self._numbers.items()}
        route = [int(np.flatnonzero(grid == START)[0])]
        route += [self._numbers[letters[place : place + 2]] for place in range(0, len(letters) - 1, 2)]
        beside = [route[-1] + step for step in (-width, width, -1, 1)]
        free = [names[cell] for cell in beside if grid[cell] != WALL and cell not in route]
        if len(letters) % 2:
            return [name[1:] for name in free if name[0] == letters[-1]]
        space = " " if answer and not answer[-1].isspace() else ""
        return [space + name for name in free]

    def automaton(self, pieces: Sequence[str]) -> Automaton | None:
        """`verdict` for answers that grow by tokens, where each token is one cell or no part of an answer."""
        entered = [self._entered(piece) for piece in pieces]
        if None in entered:
            return None
        return MazeAutomaton(self.config, np.asarray(entered, np.int64))

    def _entered(self, piece: str) -> int | None:
        """The cell that a piece of text enters, `STAY` or `ILLEGAL`; None for parts of names, or several."""
        letters = "".join(piece.split())
        if letters and set(letters) <= set("".join(self._numbers)):
            return self._numbers.get(letters)
        return ILLEGAL if letters else STAY

    def score(self, problem: Problem, answer: str) -> float:
        """1.0 for a way that ends on the goal, else 0.0."""
        return self.verdict(problem.public, answer).score or 0.0

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Random legal play on random training problems: each move uniform over the legal ones, until the
        goal, a dead end or the last move. It teaches the writing only; about 14 % reach their goal, by luck,
        and 4 % with size 8.
        """
        training = self.problems("train")
        if not training:
            raise InputError("maze train is 0, so there is nothing to demonstrate on; use 1 or more")
        size, limit = self.config.size, self.config.moves
        chosen, rows = np.unique(rng.integers(len(training), size=count), return_inverse=True)
        prompts = [training[i].public.prompt for i in chosen.tolist()]
        grids = np.stack([fenced(read_prompt(prompt, size)) for prompt in prompts])
        routes = wander(grids, rows, size + 2, limit, rng.random((count, limit)))
        names = {cell: name for name, cell in self._numbers.items()}
        answers = [" ".join([names[cell] for cell in route if cell != STAY]) for route in routes.tolist()]
        return [(prompts[row], answer) for row, answer in zip(rows.tolist(), answers, strict=True)]

    def tokenizer_spec(self) -> dict[str, Any]:
        """The words of every prompt and of every legal answer."""
        return {"kind": "words", "words": [*cell_names(self.config.size), "#", "->", ":"]}


class MazeAutomaton:
    """The `Automaton` of mazes for a tokenizer whose token t enters the cell ``entered[t]``.

    A state is a path (see `maze_paths`), so states need no memory; a goal is the number of a grid. Each grid
    is kept, some 64 to 196 bytes.
    """

    def __init__(self, config: MazeConfig, entered: Ids) -> None:
        self._config = config
        self._entered = entered
        self._number: dict[str, int] = {}
        self._grids = np.zeros((0, (config.size + 2) ** 2), np.uint8)

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        """See `Automaton`. Raises InputError on a prompt that is not a maze of this size."""
        numbers = [self._number_of(problem.prompt) for problem in problems]
        return np.full(len(problems), STANDING, np.int64), np.asarray(numbers, np.int64)

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        """See `Automaton`."""
        width, limit = self._config.size + 2, self._config.moves
        after, score = advance(self._grids, goals, width, states, self._entered[tokens], limit)
        return after, Verdicts(~np.isnan(score), score)

    def _number_of(self, prompt: str) -> int:
        number = self._number.get(prompt)
        if number is None:
            grid = _fenced_grid(prompt, self._config.size)
            number = self._number[prompt] = len(self._number)
            if number == len(self._grids):
                self._grids = np.concatenate([self._grids, np.zeros_like(self._grids), grid[np.newaxis]])
            self._grids[number] = grid
        return number


@lru_cache(maxsize=1 << 14)
def _fenced_grid(prompt: str, size: int) -> Cells:
    return fenced(read_prompt(prompt, size))
