"""Countdown's settings and its splits: disjoint, solvable, reproducible."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import SPLITS, CountdownConfig, CountdownTask, PublicProblem
from tokenzero.tasks.countdown_problems import _split_of, build_splits, read_prompt, write_prompt
from tokenzero.tasks.countdown_solver import reaches

LARGE = CountdownConfig(
    numbers=5,
    high=25,
    bound=1000,
    target_low=50,
    target_high=250,
    train=300,
    validation=40,
    test=60,
    draw="uniform",
)
# Too large to enumerate and small enough that sampling draws the same pair many times.
NARROW = CountdownConfig(
    numbers=6, high=7, target_low=24, target_high=25, train=300, validation=40, test=60, draw="uniform"
)
UNIFORM = CountdownConfig(draw="uniform")
PLAYED = CountdownConfig(train=2000, validation=300, test=400)


def _pairs(config: CountdownConfig, split: str) -> list[tuple[tuple[int, ...], int]]:
    read = [read_prompt(problem.public.prompt) for problem in build_splits(config, "countdown")[split]]
    return [(tuple(sorted(numbers)), target) for numbers, target in read]


@pytest.mark.parametrize(
    "config", [UNIFORM, LARGE, NARROW, PLAYED], ids=["enumerated", "sampled", "narrow", "played"]
)
def test_splits_are_disjoint_solvable_and_within_their_settings(config: CountdownConfig) -> None:
    every = [pair for split in SPLITS for pair in _pairs(config, split)]
    assert [len(_pairs(config, split)) for split in SPLITS] == [config.train, config.validation, config.test]
    for one, other in combinations(SPLITS, 2):
        assert not set(_pairs(config, one)) & set(_pairs(config, other))
    for split in ("validation", "test"):
        prompts = [problem.public.prompt for problem in build_splits(config, "countdown")[split]]
        assert len(set(prompts)) == len(prompts)
    assert config.draw == "play" or len(set(every)) == len(every)
    for numbers, target in every[:: max(1, len(every) // 400)]:
        assert len(numbers) == config.numbers
        assert config.low <= numbers[0] <= numbers[-1] <= config.high
        assert config.target_low <= target <= config.target_high
        assert reaches(numbers, target, config.rules)
    problems = [problem for split in SPLITS for problem in build_splits(config, "countdown")[split]]
    assert len({problem.public.id for problem in problems}) == len(problems)
    assert {problem.reference for problem in problems} == {None}
    assert {problem.public.tag for problem in problems} == {"countdown"}


@pytest.mark.parametrize(
    "config",
    [CountdownConfig(train=100, test=50, draw="uniform"), LARGE, PLAYED],
    ids=["enumerated", "sampled", "played"],
)
def test_the_seed_alone_decides_the_problems(config: CountdownConfig) -> None:
    first = build_splits(config, "countdown")
    build_splits.cache_clear()
    assert build_splits(config, "countdown") == first
    other = CountdownConfig(**{**vars(config), "seed": 1})
    assert build_splits(other, "countdown")["test"] != first["test"]


def test_play_makes_frequent_problems_frequent_and_lucky() -> None:
    task = CountdownTask(PLAYED)
    lucky = [
        task.verdict(PublicProblem("", prompt), answer).score == 1.0
        for prompt, answer in task.demonstrations(3000, np.random.default_rng(0))
    ]
    assert 0.035 < np.mean(lucky) < 0.065
    pairs = _pairs(PLAYED, "train")
    assert len(set(pairs)) < 0.9 * len(pairs)


def test_the_hash_shares_pairs_out_in_proportion_to_the_sizes() -> None:
    sizes = {"test": 60, "validation": 40, "train": 300}
    places = [_split_of(((n, n + 1), 3), 0, sizes, 400) for n in range(4000)]
    for split, size in sizes.items():
        assert abs(places.count(split) / 4000 - size / 400) < 0.03
    assert places != [_split_of(((n, n + 1), 3), 1, sizes, 400) for n in range(4000)]


def test_a_small_space_is_served_to_test_and_validation_first() -> None:
    config = CountdownConfig(
        numbers=2, high=4, target_low=1, target_high=16, bound=16, test=7, validation=6, draw="uniform"
    )
    possible = {
        (pair, target)
        for pair in combinations_with_replacement(range(1, 5), 2)
        for target in range(1, 17)
        if reaches(pair, target, config.rules)
    }
    splits = [set(_pairs(config, split)) for split in ("test", "validation", "train")]
    assert [len(split) for split in splits] == [7, 6, len(possible) - 13]
    assert set.union(*splits) == possible
    tiny = CountdownConfig(
        numbers=2, high=2, target_low=3, target_high=4, test=3, validation=9, train=9, draw="uniform"
    )
    assert [len(_pairs(tiny, split)) for split in ("test", "validation", "train")] == [2, 0, 0]


def test_sampling_ends_even_when_almost_nothing_exists() -> None:
    config = CountdownConfig(
        numbers=8,
        low=50,
        high=99,
        target_low=1,
        target_high=1,
        bound=99,
        train=3,
        validation=0,
        test=0,
        draw="uniform",
    )
    assert len(_pairs(config, "train")) <= 3


def test_the_order_of_numbers_is_shuffled() -> None:
    prompts = [problem.public.prompt for problem in build_splits(CountdownConfig(), "countdown")["test"]]
    orders = [read_prompt(prompt)[0] for prompt in prompts]
    sorted_share = np.mean([list(order) == sorted(order) for order in orders])
    assert sorted_share < 0.15


def test_prompts_are_read_as_written() -> None:
    assert write_prompt((4, 7, 8, 10), 24) == "4 7 8 10 -> 24 :"
    assert read_prompt("4 7 8 10 -> 24 :") == ((4, 7, 8, 10), 24)
    assert read_prompt(" 4 7 -> 11 :\n") == ((4, 7), 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 1}, "numbers is 1; use 2 to"),
        ({"numbers": 4.0}, "numbers is 4.0; give a value of type int"),
        ({"equals": 1}, "equals is 1; give a value of type bool"),
        ({"low": 0}, "low is 0"),
        ({"low": 11}, "low is 11; use 1 to high"),
        ({"high": 101}, "bound is 100; use at least high"),
        ({"target_low": 41}, "target_low is 41"),
        ({"target_high": 101}, "target_high is 101; use at most bound"),
        ({"granularity": "bytes"}, "granularity is 'bytes'; use words or characters"),
        ({"fractions": True}, "granularity=characters"),
        ({"draw": "luck"}, "draw is 'luck'; use play or uniform"),
        ({"test": -1}, "test is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CountdownConfig(**options)
