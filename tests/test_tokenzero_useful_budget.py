"""The choice of the useful budget, the file it is kept in, and who reads that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_run import copied_run

from tokenzero.checkpoint import open_model
from tokenzero.mcts.errors import InputError
from tokenzero.useful_budget import (
    USEFUL_FILE,
    check_budgets,
    read_useful_budgets,
    useful_index,
    write_useful_budget,
)


def _solved(*counts: int, problems: int = 400) -> np.ndarray:
    """Nested outcomes, one seed: each budget solves the first so many problems."""
    return np.stack([np.arange(problems) < count for count in counts])[:, None]


def _apart(*counts: int, problems: int = 400) -> np.ndarray:
    """Budgets that solve so many problems, as far apart from each other as can be."""
    return np.stack([np.roll(np.arange(problems) < count, 97 * i) for i, count in enumerate(counts)])[:, None]


def test_it_is_the_smallest_that_is_as_good_as_the_best() -> None:
    assert useful_index(_solved(100, 200, 300, 300, 300)) == 2
    assert useful_index(_solved(300, 300, 300)) == 0
    assert useful_index(_solved(100, 200, 300)) == 2


def test_more_that_hurts_is_not_useful() -> None:
    assert useful_index(_apart(150, 240, 200, 120)) == 1


def test_a_difference_within_a_standard_error_is_none() -> None:
    # one problem more of 400 is its own standard error, 1/400: within it; four more are two of them
    assert useful_index(_solved(300, 301)) == 0
    assert useful_index(_solved(300, 304)) == 1


def test_a_pairing_tells_what_two_separate_samples_could_not() -> None:
    """The same two accuracies: where one solves all that the other does the difference is certain, where they
    solve other problems it is noise.
    """
    assert useful_index(_solved(300, 308)) == 1
    assert useful_index(_apart(300, 308)) == 0


def test_a_larger_budget_that_is_surely_better_forbids_a_smaller() -> None:
    """Budget 0 is within a standard error of the best by luck of the noise, but surely beaten by budget 1."""
    problems = np.arange(400)
    first, second = problems < 200, problems < 206  # 6 more for certain: 2.4 standard errors
    best = np.roll(problems < 207, 190)  # one more than that, but on other problems: all noise
    assert useful_index(np.stack([first, second, best])[:, None]) == 1


def test_seeds_are_averaged_problem_by_problem() -> None:
    one, two = _solved(100, 200), _solved(300, 200)
    assert useful_index(np.concatenate([one, two], axis=1)) == 0  # 200 and 200 on average


def test_the_file_keeps_each_method(tmp_path: Path) -> None:
    assert read_useful_budgets(tmp_path) == {}
    write_useful_budget(tmp_path, "gumbel", {"budget": 32})
    write_useful_budget(tmp_path, "frontier", {"budget": 8})
    path = write_useful_budget(tmp_path, "gumbel", {"budget": 16})
    assert path == tmp_path / USEFUL_FILE
    assert read_useful_budgets(tmp_path) == {"gumbel": 16, "frontier": 8}
    assert read_useful_budgets("some/hub-name") == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"gumbel": 3}', '{"gumbel": {}}', '{"gumbel": {"budget": 0}}'])
def test_damaged_files_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / USEFUL_FILE).write_text(text)
    with pytest.raises(InputError, match=USEFUL_FILE):
        read_useful_budgets(tmp_path)


def test_budgets_are_checked() -> None:
    assert check_budgets([8, 2]) == [2, 8]
    for wrong in ([], [4], [0, 4]):
        with pytest.raises(InputError, match="--budgets"):
            check_budgets(wrong)


def test_a_checkpoint_searches_as_much_as_is_useful(tmp_path: Path) -> None:
    checkpoint = copied_run(tmp_path) / "checkpoints" / "round-0002"
    before = open_model(checkpoint)
    assert dict(before.useful) == {}
    write_useful_budget(checkpoint, "gumbel", {"budget": 3})
    write_useful_budget(checkpoint, "best-of-n", {"budget": 5})
    after = open_model(checkpoint)
    assert (before.search.simulations, after.search.simulations) == (4, 3)
    assert dict(after.useful) == {"gumbel": 3, "best-of-n": 5}
    write_useful_budget(checkpoint, "puct", {"budget": 7})
    assert open_model(checkpoint).search.simulations == 3  # another method's is not its own
