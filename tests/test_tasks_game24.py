"""The Game of 24: the known number of puzzles, and the known puzzles."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tokenzero.tasks import GAME24, SOLVED, SPLITS, PublicProblem, get_task
from tokenzero.tasks.countdown_problems import read_prompt
from tokenzero.tasks.countdown_solver import solve

PUZZLES = Path(__file__).parents[2] / "shared" / "data" / "game24.csv"


def _all() -> list[tuple[int, ...]]:
    task = get_task("game24")
    return [
        tuple(sorted(read_prompt(problem.public.prompt)[0]))
        for split in SPLITS
        for problem in task.problems(split)
    ]


def test_exactly_1362_puzzles_are_solvable_and_each_is_in_one_split() -> None:
    assert len(_all()) == len(set(_all())) == 1362
    assert {read_prompt(p.public.prompt)[1] for p in get_task("game24").problems("test")} == {24}


@pytest.mark.skipif(not PUZZLES.exists(), reason="the list of puzzles is not beside this checkout")
def test_they_are_the_published_ones() -> None:
    with PUZZLES.open() as file:
        published = {tuple(sorted(map(int, row["Puzzles"].split()))) for row in csv.DictReader(file)}
    assert set(_all()) == published


def test_solutions_through_fractions_are_accepted() -> None:
    task = get_task("game24")
    problem = PublicProblem("p", "8 3 8 3 -> 24 :")
    assert task.verdict(problem, "8 / 3 = 8/3 3 - 8/3 = 1/3 8 / 1/3 = 24") == SOLVED
    for numbers in ((1, 5, 5, 5), (1, 3, 4, 6), (1, 4, 5, 6), (2, 5, 5, 10)):
        steps = solve(numbers, 24, GAME24.rules)
        assert steps is not None
        assert (
            task.verdict(PublicProblem("p", " ".join(map(str, numbers)) + " -> 24 :"), " ".join(steps))
            == SOLVED
        )
