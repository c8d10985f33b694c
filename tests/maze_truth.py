"""Mazes solved and checked slowly and plainly, to test against. Cells are (row, column)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))

Cell = tuple[int, int]


def name(cell: Cell) -> str:
    """How a cell is written."""
    return chr(ord("A") + cell[0]) + chr(ord("a") + cell[1])


def read(prompt: str) -> tuple[set[Cell], Cell, Cell]:
    """The cells that are no walls, the start and the goal."""
    *rows, ends = prompt.split("\n")
    free = {(r, c) for r, row in enumerate(rows) for c, word in enumerate(row.split(" ")) if word != "#"}
    by_name = {name(cell): cell for cell in free}
    start, arrow, goal, colon = ends.split(" ")
    assert (arrow, colon) == ("->", ":")
    return free, by_name[start], by_name[goal]


def _beside(cell: Cell) -> list[Cell]:
    return [(cell[0] + row, cell[1] + column) for row, column in STEPS]


def shortest(prompt: str) -> int | None:
    """Moves of the shortest way, None when there is none."""
    free, start, goal = read(prompt)
    moves, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for other in _beside(cell):
            if other in free and other not in moves:
                moves[other] = moves[cell] + 1
                queue.append(other)
    return moves.get(goal)


def legal(prompt: str, route: Sequence[str]) -> list[str]:
    """The cells that may follow a legal, unfinished route."""
    free, cell, _ = read(prompt)
    visited = {cell}
    for entered in route:
        (cell,) = [other for other in free if name(other) == entered]
        visited.add(cell)
    return [name(other) for other in _beside(cell) if other in free and other not in visited]


def score(prompt: str, route: Sequence[str], limit: int) -> float | None:
    """1.0 solved, 0.0 failed, None where the route may go on."""
    goal = name(read(prompt)[2])
    for number, entered in enumerate(route):
        if goal in route[:number] or number == limit or entered not in legal(prompt, route[:number]):
            return 0.0
    if goal in route:
        return 1.0
    return None if len(route) < limit and legal(prompt, route) else 0.0
