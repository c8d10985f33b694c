"""Countdown's settings, the text of its prompts, and its problems cut into disjoint splits.

A problem is a pair (multiset of numbers, target) that some legal answer solves; two splits never share a
pair. Small spaces are enumerated and shuffled. Larger ones are sampled: the numbers uniformly, the target as
the end of a random legal play (so targets that many plays reach are drawn more often), and a hash of the pair
decides its split.

This file does not check answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations_with_replacement, islice
from math import comb
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.countdown_rules import Number, Rules, legal_steps, results
from tokenzero.tasks.countdown_solver import reachable, reaches
from tokenzero.tasks.option_checks import check_kinds, check_sizes, require
from tokenzero.tasks.problem import Problem, PublicProblem

MAX_NUMBERS = 8

Pair = tuple[tuple[int, ...], int]

PLAYED_SHARES = {"test": 25, "validation": 15, "train": 60}
"""Per cent of all (multiset, target) pairs that may appear in each split when problems are drawn by play."""
_PROMPT = re.compile(r"(\d{1,9}(?: \d{1,9})+) -> (\d{1,9}) :")


@dataclass(frozen=True)
class CountdownConfig:
    """What a Countdown problem is and how many there are.

    numbers: how many each problem gives, drawn from low..high. target_low..target_high: the targets. bound:
    the largest value a step may write. equals: write "=" before each result. granularity: what one token of
    the task's own vocabulary is. fractions: allow fractional steps (characters only). zero: allow steps that
    write 0; off by default, since `a - a 0` followed by `0 * b 0` throws numbers away. draw: "play" takes
    numbers at random and the target where a uniformly random legal play of them ends, so that a problem is as
    frequent as play makes it; "uniform" takes every solvable (multiset, target) alike. train, validation,
    test: problems per split, fewer when there are not so many (test and validation are served first).
    tag_above: problems with a larger target are tagged "NAME-above", the others "NAME-below"; None tags all
    alike. seed: of the splits and of the order of numbers in prompts.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    numbers: int = 4
    low: int = 1
    high: int = 10
    target_low: int = 10
    target_high: int = 40
    bound: int = 100
    equals: bool = False
    granularity: Literal["words", "characters"] = "words"
    fractions: bool = False
    zero: bool = False
    draw: Literal["play", "uniform"] = "play"
    train: int = 10000
    validation: int = 1000
    test: int = 1500
    tag_above: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds("countdown", self)
        if self.granularity not in ("words", "characters"):
            raise InputError(f"countdown granularity is {self.granularity!r}; use words or characters")
        if self.draw not in ("play", "uniform"):
            raise InputError(f"countdown draw is {self.draw!r}; use play or uniform")
        if self.fractions and self.granularity == "words":
            raise InputError(
                "countdown with fractions=True has no fixed list of words; use granularity=characters"
            )
        self._check(2 <= self.numbers <= MAX_NUMBERS, "numbers", f"use 2 to {MAX_NUMBERS}")
        self._check(1 <= self.low <= self.high, "low", f"use 1 to high ({self.high})")
        self._check(self.high <= self.bound < 10**9, "bound", f"use at least high ({self.high}), below 10^9")
        self._check(1 <= self.target_low <= self.target_high, "target_low", f"use 1 to {self.target_high}")
        self._check(self.target_high <= self.bound, "target_high", f"use at most bound ({self.bound})")
        check_sizes("countdown", self)

    def _check(self, ok: bool, name: str, way_out: str) -> None:
        require("countdown", self, ok, name, way_out)

    @property
    def rules(self) -> Rules:
        """The rules of writing that these settings ask for."""
        return Rules(bound=self.bound, zero=self.zero, fractions=self.fractions, equals=self.equals)


def write_prompt(numbers: tuple[int, ...], target: int) -> str:
    """The prompt of a problem, numbers in the order given: "4 7 8 10 -> 24 :"."""
    return f"{' '.join(map(str, numbers))} -> {target} :"


@lru_cache(maxsize=16384)
def read_prompt(prompt: str) -> Pair:
    """The (numbers, target) of a prompt, as written. Raises InputError when it is not a Countdown prompt."""
    match = _PROMPT.fullmatch(prompt.strip())
    numbers = tuple(map(int, match[1].split(" "))) if match else ()
    if match is None or len(numbers) > MAX_NUMBERS:
        raise InputError(
            f"prompt {prompt[:80]!r} is not a Countdown problem; write 2 to {MAX_NUMBERS} numbers "
            'and a target, as in "4 7 8 10 -> 24 :"'
        )
    return numbers, int(match[2])


@lru_cache(maxsize=8)
def build_splits(config: CountdownConfig, name: str) -> Mapping[str, tuple[Problem, ...]]:
    """Split name -> problems, disjoint by (multiset, target). The same arguments give the same problems.

    With draw "uniform" no pair is repeated. With draw "play" a pair comes as often as play makes it, in every
    split alike; validation and test then repeat no prompt, that is, no pair in the same order of its numbers.
    name is the beginning of each tag and id. About 2 s for the default settings.
    """
    rng = np.random.default_rng([config.seed, 1])
    sizes = {"test": config.test, "validation": config.validation, "train": config.train}
    if config.draw == "play":
        draws = _played(config, sizes, rng)
    else:
        pairs = _enumerated(config, sizes, rng) if _is_small(config) else _sampled(config, sizes, rng)
        draws = {split: [_shuffled(pair, rng) for pair in pairs[split]] for split in sizes}
    return MappingProxyType({split: _problems(draws[split], name, config.tag_above) for split in sizes})


def _problems(draws: Sequence[Pair], name: str, tag_above: int) -> tuple[Problem, ...]:
    """Problems with their numbers in the order drawn, and unique ids: a pair's second one ends in "#2"."""
    copies: Counter[Pair] = Counter()
    problems = []
    for numbers, target in draws:
        pair = (tuple(sorted(numbers)), target)
        copies[pair] += 1
        copy = "" if copies[pair] == 1 else f"#{copies[pair]}"
        identity = f"{name}:{'-'.join(map(str, pair[0]))}={target}{copy}"
        side = "" if not tag_above else "-above" if target > tag_above else "-below"
        problems.append(Problem(PublicProblem(identity, write_prompt(numbers, target), name + side)))
    return tuple(problems)


def _shuffled(pair: Pair, rng: np.random.Generator) -> Pair:
    numbers, target = pair
    return tuple(numbers[i] for i in rng.permutation(len(numbers))), target


def _is_small(config: CountdownConfig) -> bool:
    multisets = comb(config.high - config.low + config.numbers, config.numbers)
    # Working out what one multiset reaches takes about 0.2 ms at four numbers and five times more for each
    # further one.
    return multisets * 5.0 ** (config.numbers - 4) <= 12_000


def _enumerated(
    config: CountdownConfig, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, list[Pair]]:
    targets = range(config.target_low, config.target_high + 1)
    pairs: list[Pair] = []
    for numbers in combinations_with_replacement(range(config.low, config.high + 1), config.numbers):
        if config.fractions:
            pairs.extend((numbers, target) for target in targets if reaches(numbers, target, config.rules))
        else:
            reached = reachable(numbers, config.rules)
            pairs.extend((numbers, target) for target in targets if target in reached)
    order = iter(rng.permutation(len(pairs)))
    return {split: [pairs[i] for i in islice(order, size)] for split, size in sizes.items()}


def _sampled(
    config: CountdownConfig, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {split: [] for split in sizes}
    seen: set[Pair] = set()
    total = sum(sizes.values())
    for _ in range(1000 + 100 * total):
        if all(len(found[split]) == size for split, size in sizes.items()):
            break
        numbers = tuple(sorted(rng.integers(config.low, config.high + 1, config.numbers).tolist()))
        end = _random_end(config.rules, numbers, rng)
        if end is None or end != int(end) or not config.target_low <= end <= config.target_high:
            continue
        pair = (numbers, int(end))
        split = _split_of(pair, config.seed, sizes, total)
        if pair not in seen and len(found[split]) < sizes[split]:
            seen.add(pair)
            found[split].append(pair)
    return found


def _played(
    config: CountdownConfig, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, list[Pair]]:
    """Draws in the order in which random play makes them, numbers in the order drawn. The shares of the
    splits are fixed, so that one keeps its problems whatever the sizes of the others.
    """
    found: dict[str, list[Pair]] = {split: [] for split in sizes}
    seen: set[Pair] = set()
    for _ in range(1000 + 100 * sum(sizes.values())):
        if all(len(found[split]) == size for split, size in sizes.items()):
            break
        numbers = tuple(rng.integers(config.low, config.high + 1, config.numbers).tolist())
        position = config.rules.position(numbers)
        while len(position) > 1:
            steps = list(legal_steps(config.rules, position).values())
            position = steps[rng.integers(len(steps))]
        if not position[0].isdecimal() or not config.target_low <= int(position[0]) <= config.target_high:
            continue
        draw = (numbers, int(position[0]))
        pair = (tuple(sorted(numbers)), draw[1])
        split = _split_of(pair, config.seed, PLAYED_SHARES, sum(PLAYED_SHARES.values()))
        if len(found[split]) < sizes[split] and (split == "train" or draw not in seen):
            seen.add(draw)
            found[split].append(draw)
    return found


def _random_end(rules: Rules, numbers: tuple[int, ...], rng: np.random.Generator) -> Number | None:
    """Where a random legal play ends, or None if it took two values in an order that allows no operator."""
    values: list[Number] = list(numbers)
    while len(values) > 1:
        picks = rng.random(3).tolist()
        a = values.pop(int(picks[0] * len(values)))
        b = values.pop(int(picks[1] * len(values)))
        options = list(results(rules, a, b))
        if not options:
            return None
        values.append(options[int(picks[2] * len(options))][1])
    return values[0]


def _split_of(pair: Pair, seed: int, sizes: Mapping[str, int], total: int) -> str:
    digest = blake2b(repr((seed, *pair)).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % total
    for split, size in sizes.items():
        if place < size:
            return split
        place -= size
    raise AssertionError("place is below the sum of the sizes")
