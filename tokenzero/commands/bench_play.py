"""What the verbs of benchmarks have alike: numbers from flags, a bar over all games, cells of tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tokenzero.bench_outcomes import Outcomes, games_of, measure
from tokenzero.bench_settings import SINGLE, Setting, beside_greedy_and_samples, settings_of
from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.method_options import option_values
from tokenzero.progress import Progression, percent, showing
from tokenzero.tasks import Problem

COLUMNS = ("method", "budget", "accuracy", "95 % interval", "tokens", "p95", "depth", "ms")


def numbers(flag: str, text: str) -> list[int]:
    """Whole numbers separated by commas, each once, in the order given. Raises InputError for other text."""
    try:
        return list(dict.fromkeys(int(word) for word in text.split(",") if word.strip()))
    except ValueError:
        raise InputError(
            f"{flag} is {text!r}; give whole numbers separated by commas, as in 0,4,16,64"
        ) from None


def seeds(text: str) -> list[int]:
    """The seeds of --seed. Raises InputError for none or a negative one."""
    found = numbers("--seed", text)
    if not found or min(found) < 0:
        raise InputError(f"--seed is {text}; give whole numbers of at least 0")
    return found


def wanted(arguments: argparse.Namespace, opened: Opened) -> list[Setting]:
    """The settings that --methods (or --method), --simulations and --samples name."""
    simulations = numbers("--simulations", arguments.simulations)
    samples = numbers("--samples", arguments.samples)
    named = getattr(arguments, "method", None)
    if arguments.methods is not None and named is not None:
        raise InputError("--methods and --method are both given; give one")
    if arguments.methods is not None:
        methods = _names(arguments.methods)
    else:
        searches = _names(named) if named is not None else [opened.search.method]
        methods = beside_greedy_and_samples(searches, simulations)
    return settings_of(methods, simulations, samples, option_values(arguments))


@contextmanager
def bar(name: str, games: int) -> Iterator[Progression]:
    """A bar over all games of a benchmark."""
    with showing() as shown:
        shown.stage(name, games)
        yield shown


def play(
    opened: Opened,
    settings: Sequence[Setting],
    problems: Sequence[Problem],
    seeds: Sequence[int],
    shown: Progression,
    name: str = "",
    most_tokens: float | None = None,
) -> Outcomes:
    """``bench_outcomes.measure`` with a bar, whose label is what is played, after ``name``."""
    return measure(
        opened,
        settings,
        problems,
        seeds,
        lambda label: shown.name(f"{name}{label}"),
        shown.advance,
        most_tokens,
    )


def games(settings: Sequence[Setting], seeds: Sequence[int], problems: Sequence[Problem]) -> int:
    """How many games :func:`play` plays."""
    return games_of(settings, seeds, len(problems))


def row_cells(row: dict[str, Any]) -> list[str]:
    """A pooled row as the cells of ``COLUMNS``; milliseconds are those of a problem."""
    low, high = row["ci95"]
    return [
        row["method"],
        budget_cell(row),
        percent(row["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        f"{row['mean_tokens']:.1f}",
        f"{row['p95_tokens']:.0f}",
        f"{row['mean_depth']:.1f}",
        f"{1000 * row['seconds']:.2f}",
    ]


def budget_cell(row: dict[str, Any]) -> str:
    """What a setting may do, in a word: "64 sim", "n 16", or "-" where there is nothing to choose."""
    if row["method"] in SINGLE:
        return "-"
    return f"{row['simulations']} sim" if row["simulations"] else f"n {row['n']}"


def points(difference: float | None, interval: Sequence[float] | None) -> str:
    """A difference of shares in points, with its interval; "-" for None."""
    if difference is None or interval is None:
        return "-"
    return f"{100 * difference:+.0f} ({100 * interval[0]:+.0f} to {100 * interval[1]:+.0f})"


def verdicts(kind: str) -> str:
    """What a title says of who checked answers at test time."""
    return "public verifier used" if kind == "public" else "oracle-free"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
