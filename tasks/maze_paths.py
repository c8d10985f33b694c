"""Paths through mazes, and what they come to.

A legal path is kept as an integer: 1 followed by two bits per move, the last move lowest. So it is a state
that needs no memory, and reading one is walking it again. A route is the same as a list of the cells entered.
Cells are numbered row by row in the grid with a wall around it, where no step leads around an edge.

The kernels trust their inputs and draw no random numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tokenzero.tasks.maze_problems import GOAL, MOST_MOVES, START, WALL, Cells, cell_names

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

STANDING, NOWHERE = 1, 0
"""The path without moves, and what is kept of one that is not legal."""

STAY, ILLEGAL = 0, -1
"""Instead of a cell to enter: none, and a text that names none."""


def fenced(grid: Cells) -> Cells:
    """A grid u8 [size, size] with a wall around it, as the kernels take it: u8 [(size + 2)^2]."""
    return np.pad(grid, 1, constant_values=WALL).reshape(-1)


def numbers_of_names(size: int) -> dict[str, int]:
    """The number of each cell, by its name."""
    cells = ((place // size + 1) * (size + 2) + place % size + 1 for place in range(size * size))
    return dict(zip(cell_names(size), cells, strict=True))


@njit(cache=True)
def _start_of(cells: Any) -> Any:
    cell = 0
    while cells[cell] != START:
        cell += 1
    return cell


@njit(cache=True)
def unroll(cells: Any, width: int, path: Any, route: Any) -> Any:
    """Write the cells that a path enters to ``route`` i64 [`MOST_MOVES` or more]; returns how many."""
    count = 0
    while path >> (2 * count) > 3:
        count += 1
    cell = _start_of(cells)
    for place in range(count):
        move = (path >> (2 * (count - 1 - place))) & 3
        cell += (-width, width, -1, 1)[move]
        route[place] = cell
    return count


@njit(cache=True)
def _move_between(width: int, cell: Any, other: Any) -> Any:
    """The number of the move from a cell to another beside it, -1 where it is not."""
    for move in range(4):
        if cell + (-width, width, -1, 1)[move] == other:
            return move
    return -1


@njit(cache=True)
def score_route(cells: Any, width: int, route: Any, count: int, limit: int, marks: Any, mark: int) -> Any:
    """1.0 when the first ``count`` cells of ``route`` are a way that ends on the goal; 0.0 when it goes where
    it may not, goes on after the goal, stands where no move is left, or has used ``limit`` moves; else NaN.

    cells u8 [width * width]: a fenced grid. marks i64 [width * width]: visited cells get ``mark``, which it
    must not hold before.
    """
    cell = _start_of(cells)
    marks[cell] = mark
    for place in range(count):
        to = route[place]
        out = cells[cell] == GOAL or place >= limit or _move_between(width, cell, to) < 0
        if out or cells[to] == WALL or marks[to] == mark:
            return 0.0
        cell = to
        marks[cell] = mark
    if cells[cell] == GOAL:
        return 1.0
    stuck = True
    for step in (-width, width, -1, 1):
        stuck &= cells[cell + step] == WALL or marks[cell + step] == mark
    return 0.0 if stuck or count >= limit else np.nan


@njit(cache=True)
def advance(grids: Any, rows: Any, width: int, paths: Any, entered: Any, limit: int) -> Any:
    """Paths after ``entered`` cells, and their scores as those of `score_route`: i64 and f64 [L].

    grids u8 [P, width * width], fenced; rows i64 [L]: the grid of each path; paths i64 [L], each able to go
    on; entered i64 [L]: cells, `STAY` or `ILLEGAL`.
    """
    after = np.zeros(len(paths), np.int64)
    scores = np.zeros(len(paths), np.float64)
    marks = np.zeros(grids.shape[1], np.int64)
    route = np.zeros(MOST_MOVES + 1, np.int64)
    for i in range(len(paths)):
        if paths[i] == NOWHERE or entered[i] == ILLEGAL:
            continue
        cells = grids[rows[i]]
        count = unroll(cells, width, paths[i], route)
        after[i] = paths[i]
        if entered[i] != STAY:
            cell = route[count - 1] if count > 0 else _start_of(cells)
            after[i] = (paths[i] << 2) | (_move_between(width, cell, entered[i]) & 3)
            route[count] = entered[i]
            count += 1
        scores[i] = score_route(cells, width, route, count, limit, marks, i + 1)
        if scores[i] == 0.0:
            after[i] = NOWHERE
    return after, scores


@njit(cache=True)
def wander(grids: Any, rows: Any, width: int, limit: int, chance: Any) -> Any:
    """Random routes i64 [L, limit], padded with `STAY`: each move uniform over the legal ones, until goal,
    dead end or ``limit`` moves.

    grids, rows, width as in `advance`; chance f64 [L, limit] in [0, 1) decides the moves.
    """
    routes = np.full((len(rows), limit), STAY, np.int64)
    marks = np.zeros(grids.shape[1], np.int64)
    legal = np.zeros(4, np.int64)
    for i in range(len(rows)):
        cells = grids[rows[i]]
        cell = _start_of(cells)
        for turn in range(limit):
            marks[cell] = i + 1
            count = 0
            for step in (-width, width, -1, 1):
                if cells[cell + step] != WALL and marks[cell + step] != i + 1:
                    legal[count] = cell + step
                    count += 1
            if cells[cell] == GOAL or count == 0:
                break
            cell = legal[int(chance[i, turn] * count)]
            routes[i, turn] = cell
    return routes
