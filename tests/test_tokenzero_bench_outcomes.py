"""What a benchmark plays and keeps: settings, outcomes, rows, files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from small_run import finished_run

from tokenzero.bench_outcomes import (
    ROW_KEYS,
    Outcomes,
    as_csv,
    as_rows,
    games_of,
    measure,
    shared_tokens,
    write_outcomes,
)
from tokenzero.bench_settings import Setting, beside_greedy_and_samples, settings_of
from tokenzero.checkpoint import Opened, open_model
from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Sampling
from tokenzero.selfplay.methods import Answer, MethodConfig, SampledGame
from tokenzero.tasks import PublicProblem


@pytest.fixture(scope="module")
def opened() -> Opened:
    return open_model(finished_run())


def _played(
    opened: Opened, settings: list[Setting], seeds: tuple[int, ...] = (1,), count: int = 20
) -> Outcomes:
    return measure(opened, settings, opened.parts.task.problems("test")[:count], seeds)


def test_settings_are_each_method_with_each_of_its_budgets() -> None:
    found = settings_of(["greedy", "gumbel", "best-of-n", "dvts"], [0, 4, 16], [1, 8])
    assert [setting.label for setting in found] == [
        "greedy",
        "gumbel 4",
        "gumbel 16",
        "best-of-n 1",
        "best-of-n 8",
        "dvts 1",
        "dvts 8",
    ]
    assert [(s.simulations, s.n) for s in found[:4]] == [(0, 1), (4, 1), (16, 1), (0, 1)]
    assert beside_greedy_and_samples(["puct"], [0, 4]) == ["greedy", "puct", "best-of-n"]
    assert beside_greedy_and_samples(["puct"], [4]) == ["puct", "best-of-n"]
    for methods, simulations, samples in (
        (["gumbel"], [-1], [1]),
        (["best-of-n"], [4], [0]),
        (["gumbel"], [0], [1]),
        (["gumbl"], [4], [1]),
    ):
        with pytest.raises(InputError):
            settings_of(methods, simulations, samples)


def test_an_option_goes_to_the_methods_that_know_it() -> None:
    options: dict[str, Any] = {"sampling": {"temperature": 0.5}, "vote": "likelihood"}
    beam, voted = settings_of(["beam", "self-consistency"], [], [2], options)
    assert beam.config == MethodConfig("beam", n=2)
    assert voted.config == MethodConfig(
        "self-consistency", n=2, sampling=Sampling(temperature=0.5), vote="likelihood"
    )
    with pytest.raises(InputError, match="vote means nothing to beam"):
        settings_of(["beam"], [], [2], {"vote": "count"})
    with pytest.raises(InputError, match="did you mean 'vote'"):
        settings_of(["self-consistency"], [], [2], {"votes": "count"})


def test_streams_differ_by_setting_and_seed() -> None:
    one, two, puct = settings_of(["best-of-n", "puct"], [1], [1, 2])
    firsts = [int(s.rng(seed).integers(2**62)) for s in (one, two, puct) for seed in (1, 2)]
    assert len(set(firsts)) == 6


def test_an_outcome_does_not_depend_on_the_others(opened: Opened) -> None:
    settings = settings_of(["greedy", "gumbel", "best-of-n"], [4, 8], [1, 4])
    together = _played(opened, settings)
    for r, setting in enumerate(settings):
        alone = _played(opened, [setting])
        np.testing.assert_array_equal(alone.solved[0], together.solved[r])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[r])
        np.testing.assert_array_equal(alone.depth[0], together.depth[r])


@pytest.mark.parametrize("method", ["greedy", "beam", "puct", "gumbel"])
def test_what_draws_nothing_answers_alike_with_every_seed(opened: Opened, method: str) -> None:
    """Such a setting is played once and stands under every seed; this is why it may."""
    [setting] = settings_of([method], [6], [3])
    assert not setting.draws
    one, two = (_played(opened, [setting], (seed,)) for seed in (1, 2))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.solved, two.solved)
    both = _played(opened, [setting], (1, 2))
    np.testing.assert_array_equal(both.tokens, np.concatenate([one.tokens, two.tokens], axis=1))


def test_what_draws_is_played_with_every_seed(opened: Opened) -> None:
    settings = settings_of(["greedy", "best-of-n"], [], [4])
    heard: list[str] = []
    games: list[int] = []
    problems = opened.parts.task.problems("test")[:6]
    found = measure(opened, settings, problems, (1, 2), heard.append, games.append)
    assert heard == ["greedy", "best-of-n 4, seed 1", "best-of-n 4, seed 2"]
    assert sum(games) == games_of(settings, (1, 2), 6) == 18
    assert not np.array_equal(found.tokens[1, 0], found.tokens[1, 1])


def test_tokens_grow_with_the_budget_and_are_bounded_by_it(opened: Opened) -> None:
    settings = settings_of(["greedy", "gumbel", "self-consistency"], [4, 16], [1, 2, 8])
    rows = as_rows(_played(opened, settings))
    prompt, limit = 7, opened.parts.task.max_answer_tokens
    searched, sampled = rows[:3], rows[3:]
    for group in (searched, sampled):
        tokens = [row["mean_tokens"] for row in group]
        assert tokens == sorted(tokens)
    for row in sampled:
        assert prompt <= row["mean_tokens"] <= row["p95_tokens"] * 1.5 <= 1.5 * (prompt + row["n"] * limit)
    for row in rows:
        low, high = row["ci95"]
        assert 0.0 <= low <= row["accuracy"] <= high <= 1.0
        assert 1.0 <= row["mean_depth"] <= limit


def test_nobody_is_handed_a_reference(opened: Opened) -> None:
    """What a method plays is the public part alone: scrambling every reference changes no outcome."""
    problems = opened.parts.task.problems("test")
    scrambled = [replace(problem, reference="nonsense") for problem in problems]
    settings = settings_of(["greedy", "gumbel", "best-of-n"], [4], [2])
    one, two = (measure(opened, settings, each, [1]) for each in (problems, scrambled))
    np.testing.assert_array_equal(one.solved, two.solved)
    np.testing.assert_array_equal(one.tokens, two.tokens)


def test_files_hold_every_number(opened: Opened, tmp_path: Path) -> None:
    outcomes = _played(opened, settings_of(["greedy", "best-of-n"], [], [1, 3]), (1, 2), 5)
    rows = as_rows(outcomes)
    assert tuple(rows[0]) == ROW_KEYS
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    for row, line in zip(rows, read, strict=True):
        assert (line["method"], int(line["n"]), int(line["seed"])) == (row["method"], row["n"], row["seed"])
        assert [float(line["ci95_low"]), float(line["ci95_high"])] == row["ci95"]
        assert float(line["mean_tokens"]) == row["mean_tokens"]
    path = write_outcomes(tmp_path / "deep" / "outcomes.parquet", {"x": outcomes, "y": outcomes})
    kept = pyarrow.parquet.read_table(path).to_pylist()
    assert len(kept) == 2 * outcomes.solved.size
    assert {line["checkpoint"] for line in kept} == {"x", "y"}
    for row in rows:
        own = [
            line
            for line in kept
            if line["checkpoint"] == "x"
            and all(line[key] == row[key] for key in ("method", "simulations", "n", "seed"))
        ]
        assert [line["problem"] for line in own] == outcomes.ids
        assert np.mean([line["solved"] for line in own]) == row["accuracy"]
        assert np.mean([line["tokens"] for line in own]) == row["mean_tokens"]
        assert np.mean([line["depth"] for line in own]) == row["mean_depth"]
        assert sum(line["seconds"] for line in own) == pytest.approx(row["wall_s"])


def test_an_interval_that_is_not_there_is_two_empty_cells() -> None:
    assert as_csv([{"a": 1, "difference_ci95": None}]) == "a,difference_ci95_low,difference_ci95_high\n1,,\n"


def test_what_follows_a_setting_that_takes_too_much_is_left_out(opened: Opened) -> None:
    settings = settings_of(["greedy", "self-consistency", "gumbel"], [2], [1, 2, 4, 8])
    problems = opened.parts.task.problems("test")[:6]
    whole = measure(opened, settings, problems, (1, 2))
    bound = float(whole.tokens[2].mean()) - 1  # two samples take more than that, one does not
    games: list[int] = []
    found = measure(opened, settings, problems, (1, 2), on_games=games.append, most_tokens=bound)
    assert [setting.label for setting in found.settings] == [
        "greedy",
        "self-consistency 1",
        "self-consistency 2",
        "gumbel 2",
    ]
    np.testing.assert_array_equal(found.tokens, whole.tokens[[0, 1, 2, 5]])
    np.testing.assert_array_equal(found.solved, whole.solved[[0, 1, 2, 5]])
    assert sum(games) == games_of(settings, (1, 2), 6)


def test_shared_tokens_pay_once_for_what_samples_begin_with(opened: Opened) -> None:
    prompt = [5, 6, 7]
    answers = [Answer(tokens, "", 0.0, None) for tokens in ([1, 2, 3], [1, 2, 4], [1, 5, 3], [1, 2, 3])]
    game = SampledGame(PublicProblem("p", ""), prompt, forwarded=3 + 4 * 2, answers=answers)
    assert shared_tokens(game, "best-of-n") == 3 + 3  # 1, 1 2, 1 5; last tokens are not forwarded
    assert shared_tokens(game, "beam") == game.forwarded
    settings = settings_of(["greedy", "best-of-n", "self-consistency"], [], [1, 8])
    found = _played(opened, settings, (1, 2))
    np.testing.assert_array_equal(found.shared[:2], found.tokens[:2])
    np.testing.assert_array_equal(found.shared[3], found.tokens[3])  # one sample shares nothing
    assert (found.shared <= found.tokens).all()
    assert found.shared[4].sum() < found.tokens[4].sum()
