"""The maze's settings, the text of its prompts, and its problems cut into disjoint splits.

A problem is a square grid with walls at random cells, a start and a goal, such that the shortest way between
them has a length within the limits. No two problems are equal, within a split or across splits.

This file does not check answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.option_checks import check_kinds, check_sizes, require
from tokenzero.tasks.problem import Problem, PublicProblem

Cells = NDArray[np.uint8]

WALL, FREE, START, GOAL = range(4)

MOST_MOVES = 31
"""An answer's moves, two bits each, are kept in one 64-bit integer."""

_BATCH = 4096
_DRAWS_PER_PROBLEM = 200


@dataclass(frozen=True)
class MazeConfig:
    """What a maze is and how many there are.

    size: cells along each side, 3 to 12. walls: the probability that a cell is a wall. shortest_low and
    shortest_high: limits of the shortest way from start to goal, in moves; 0 takes 2 * size - 2 (from corner
    to corner of an open grid) and 2 * size + 4. max_moves: moves after which an answer has failed; 0 takes
    2 * size + 8. No answer may have more than 31. train, validation, test: problems per split. seed: of all
    of them.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    size: int = 6
    walls: float = 0.3
    shortest_low: int = 0
    shortest_high: int = 0
    max_moves: int = 0
    train: int = 20000
    validation: int = 1000
    test: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds("maze", self)
        self._check(3 <= self.size <= 12, "size", "use 3 to 12")
        self._check(0 <= self.walls < 1, "walls", "use 0 or more, below 1")
        low, high = self.shortest
        self._check(0 <= self.max_moves <= MOST_MOVES, "max_moves", f"use 0 to {MOST_MOVES}")
        self._check(1 <= low <= high, "shortest_low", f"use 1 to shortest_high ({high})")
        self._check(high <= self.moves, "shortest_high", f"use at most max_moves ({self.moves})")
        check_sizes("maze", self)

    def _check(self, ok: bool, name: str, way_out: str) -> None:
        require("maze", self, ok, name, way_out)

    @property
    def shortest(self) -> tuple[int, int]:
        """The limits of the shortest way, in moves."""
        return self.shortest_low or 2 * self.size - 2, self.shortest_high or min(
            2 * self.size + 4, self.moves
        )

    @property
    def moves(self) -> int:
        """Most moves of an answer."""
        return self.max_moves or min(2 * self.size + 8, MOST_MOVES)


def cell_names(size: int) -> list[str]:
    """The names of the cells, row by row: "Aa" is the first of the first row, "Ab" the one to its right."""
    return [row + column for row in "ABCDEFGHIJKL"[:size] for column in "abcdefghijkl"[:size]]


def write_prompt(grid: Cells) -> str:
    """The prompt of a grid u8 [size, size]: a line per row, then start and goal."""
    size, cells = len(grid), grid.reshape(-1)
    names = cell_names(size)
    words = ["#" if cell == WALL else name for cell, name in zip(cells.tolist(), names, strict=True)]
    rows = [" ".join(words[first : first + size]) for first in range(0, size * size, size)]
    start, goal = names[int((cells == START).argmax())], names[int((cells == GOAL).argmax())]
    return "\n".join([*rows, f"{start} -> {goal} :"])


def read_prompt(prompt: str, size: int) -> Cells:
    """The grid u8 [size, size] of a prompt; how it is broken into lines does not matter.

    Raises InputError when it is not a maze of this size.
    """
    names, words = cell_names(size), prompt.split()
    ends = words[len(names) :]
    known = all(word in ("#", name) for word, name in zip(words, names, strict=False))
    free = {*words[: len(names)]} - {"#"}
    ending = len(ends) == 4 and ends[1::2] == ["->", ":"] and ends[0] != ends[2]
    if not (known and ending and {ends[0], ends[2]} <= free):
        raise InputError(
            f"prompt {prompt[:80]!r} is not a maze of {size} x {size} cells; write each cell, row by row, as "
            f'its name or #, then start and goal: "{names[0]} # {names[2]} ... {names[0]} -> {names[-1]} :"'
        )
    cells = np.asarray([WALL if word == "#" else FREE for word in words[: len(names)]], np.uint8)
    cells[names.index(ends[0])], cells[names.index(ends[2])] = START, GOAL
    return cells.reshape(size, size)


@lru_cache(maxsize=8)
def build_splits(config: MazeConfig, name: str) -> Mapping[str, tuple[Problem, ...]]:
    """Split name -> problems, all different. The same arguments give the same problems.

    Each split has its own random numbers, so that none depends on the size of another. name is used as the
    tag and as the beginning of each id. Raises InputError when the settings allow too few mazes.
    """
    seen: set[bytes] = set()
    return MappingProxyType(
        {
            split: _draw(config, split, np.random.default_rng([config.seed, block]), seen, name)
            for block, split in enumerate(("test", "validation", "train"))
        }
    )


def _draw(
    config: MazeConfig, split: str, rng: np.random.Generator, seen: set[bytes], name: str
) -> tuple[Problem, ...]:
    wanted, found = getattr(config, split), list[Cells]()
    for _ in range(1 + wanted * _DRAWS_PER_PROBLEM // _BATCH):
        if len(found) >= wanted:
            break
        for grid in _random_grids(config, rng):
            content = grid.tobytes()
            if content not in seen and len(found) < wanted:
                seen.add(content)
                found.append(grid)
    if len(found) < wanted:
        raise InputError(
            f"maze {split} is {wanted}, but only {len(found)} mazes like these were found; ask for fewer, or "
            "for shorter ways"
        )
    return tuple(
        Problem(PublicProblem(f"{name}:{split}:{number}", write_prompt(grid), name))
        for number, grid in enumerate(found)
    )


def _random_grids(config: MazeConfig, rng: np.random.Generator) -> Cells:
    """Grids u8 [B, size, size], B at most _BATCH: random walls, a start at a random cell, and a goal at a
    random one of the cells that lie as far from it as the limits say. Grids without such a cell are left out.
    """
    size, (low, high) = config.size, config.shortest
    grids = np.where(rng.random((_BATCH, size * size)) < config.walls, WALL, FREE).astype(np.uint8)
    start = rng.integers(size * size, size=_BATCH)
    lottery = rng.random((_BATCH, size * size))
    rows = np.arange(_BATCH)
    grids[rows, start] = START
    moves = distances(grids.reshape(-1, size, size), high).reshape(_BATCH, -1)
    lottery[(moves < low) | (moves > high)] = -1
    goal = lottery.argmax(1)
    kept = lottery[rows, goal] >= 0
    grids[rows, goal] = GOAL
    found: Cells = grids[kept].reshape(-1, size, size)
    return found


def distances(grids: Cells, limit: int) -> NDArray[np.int64]:
    """Moves of the shortest way from the start to each cell i64 [B, size, size], for grids u8 of that shape;
    limit + 1 where there is none of at most ``limit`` moves.

    Breadth-first: the cells reached grow by their neighbours, in all grids at once.
    """
    reached = np.pad(grids == START, ((0, 0), (1, 1), (1, 1)))
    inner = reached[:, 1:-1, 1:-1]
    passable = grids != WALL
    moves = np.where(inner, 0, np.int64(limit + 1))
    for length in range(1, limit + 1):
        beside = reached[:, :-2, 1:-1] | reached[:, 2:, 1:-1] | reached[:, 1:-1, :-2] | reached[:, 1:-1, 2:]
        new = beside & passable & ~inner
        moves[new] = length
        inner |= new
    return moves
