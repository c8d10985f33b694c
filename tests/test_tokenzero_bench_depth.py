"""The depth benchmark: which rows, what is in them, and the comparison in tokens."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
from small_run import finished_run

from tokenzero.bench_depth import ROW_KEYS, Entry, as_csv, depth_rows, entries, tokens_to_reach, verifier_of
from tokenzero.checkpoint import Opened, open_model
from tokenzero.mcts.errors import InputError


@pytest.fixture(scope="module")
def opened() -> Opened:
    return open_model(finished_run())


def _rows(opened: Opened, simulations: list[int], samples: list[int], seed: int = 1) -> list[dict[str, Any]]:
    task = opened.parts.task
    rows = depth_rows(opened.parts, task, task.problems("test"), simulations, samples, opened.search, seed)
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def test_entries_are_greedy_searches_and_samples_in_order() -> None:
    assert entries(["gumbel", "puct"], [0, 4, 16], [1, 8]) == [
        Entry("greedy"),
        Entry("gumbel", simulations=4),
        Entry("gumbel", simulations=16),
        Entry("puct", simulations=4),
        Entry("puct", simulations=16),
        Entry("best-of-n", n=1),
        Entry("best-of-n", n=8),
    ]
    assert entries(["puct"], [4], []) == [Entry("puct", simulations=4)]
    for simulations, samples in (([-1], [1]), ([4], [0]), ([], [])):
        with pytest.raises(InputError):
            entries(["gumbel"], simulations, samples)


def test_a_row_does_not_depend_on_the_others(opened: Opened) -> None:
    together = _rows(opened, [0, 4, 8], [1, 4])
    assert together == _rows(opened, [0, 4, 8], [1, 4])
    assert together[2] == _rows(opened, [8], [])[0]
    assert together[4] == _rows(opened, [], [4])[0]
    assert together[4] != _rows(opened, [], [4], seed=2)[0]


def test_tokens_grow_with_the_budget_and_are_bounded_by_it(opened: Opened) -> None:
    rows = _rows(opened, [0, 4, 16], [1, 2, 8])
    prompt, limit = 7, opened.parts.task.max_answer_tokens
    searched, sampled = rows[:3], rows[3:]
    for group in (searched, sampled):
        tokens = [row["mean_tokens"] for row in group]
        assert tokens == sorted(tokens)
        assert all(row["p95_tokens"] >= prompt for row in group)
    for row in sampled:
        assert prompt <= row["mean_tokens"] <= prompt + row["n"] * limit
    for row in rows:
        low, high = row["ci95"]
        assert 0.0 <= low <= row["accuracy"] <= high <= 1.0
        assert 1.0 <= row["mean_depth"] <= limit
    assert [row["simulations"] for row in rows] == [0, 4, 16, 0, 0, 0]
    assert [row["n"] for row in rows] == [1, 1, 1, 1, 2, 8]


def test_nobody_is_handed_a_reference(opened: Opened) -> None:
    """What a method plays is the public part alone: scrambling every reference changes no row."""
    from dataclasses import replace

    task = opened.parts.task
    problems = task.problems("test")
    scrambled = [replace(problem, reference="nonsense") for problem in problems]
    one = depth_rows(opened.parts, task, problems, [0, 4], [2], opened.search, 1)
    two = depth_rows(opened.parts, task, scrambled, [0, 4], [2], opened.search, 1)
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in two]
    assert verifier_of(task) == "public"


def test_csv_holds_every_number(opened: Opened) -> None:
    task = opened.parts.task
    rows = depth_rows(opened.parts, task, task.problems("test")[:5], [0], [1], opened.search, 1)
    assert tuple(rows[0]) == ROW_KEYS
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    for row, line in zip(rows, read, strict=True):
        assert (line["method"], int(line["n"])) == (row["method"], row["n"])
        assert [float(line["ci95_low"]), float(line["ci95_high"])] == row["ci95"]
        assert float(line["mean_tokens"]) == row["mean_tokens"]


def _curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"method": "best-of-n", "mean_tokens": t, "accuracy": a} for t, a in points]


def test_tokens_to_reach_is_linear_in_log_tokens() -> None:
    rows = [
        *_curve((10, 0.1), (1000, 0.5), (100, 0.3)),
        {"method": "gumbel", "mean_tokens": 5, "accuracy": 0.9},
    ]
    assert tokens_to_reach(rows, 0.3) == pytest.approx(100)
    assert tokens_to_reach(rows, 0.2) == pytest.approx(math.sqrt(10 * 100))
    assert tokens_to_reach(rows, 0.45) == pytest.approx(10 ** (2 + 0.75))
    assert tokens_to_reach(rows, 0.5) == pytest.approx(1000)
    assert tokens_to_reach(rows, 0.05) == 10
    assert tokens_to_reach(rows, 0.51) is None
    assert tokens_to_reach([], 0.1) is None


def test_tokens_to_reach_takes_the_first_crossing_of_a_curve_that_dips() -> None:
    rows = _curve((10, 0.2), (100, 0.1), (1000, 0.4))
    assert tokens_to_reach(rows, 0.2) == 10
    assert tokens_to_reach(rows, 0.25) == pytest.approx(100 * 10**0.5)
