"""How often does the arena err, and how many problems does it use?

Candidate and incumbent are drawn as paired outcomes: the incumbent solves 45 % of the problems, the candidate
as many or a few points more, and they disagree on a share d of the problems. Each trial is one sequential
test on problems drawn without end, looked at after every batch. Beside the mean number of problems stands
that of two tests of fixed size with d known beforehand: one with the rates that were asked for, one with the
rates that the sequential test in truth had, as measured here; and the least that any test with the rates
asked for could use on average (Wald and Wolfowitz 1948). Two settings: the defaults, and rates so strict that
stopping early saves more than half in both cases. A row "mixed" is as many trials without a gain as with the
margin.

python benchmarks/arena_error_rates.py --trials 1000 --json arena_error_rates.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from report import emit

from tokenzero.selfplay.sequential_test import SequentialTestConfig, fixed_size, log_likelihood_ratio

Row = dict[str, Any]

DISCORDANCES = (0.05, 0.1, 0.2, 0.3)
SETTINGS = {
    "default": SequentialTestConfig(),
    "strict": SequentialTestConfig(alpha=0.02, beta=0.02, max_problems=9000),
}
ACCURACY = 0.45


class Trials(NamedTuple):
    """What came of n tests: ``promoted`` bool [n], ``problems`` used i64 [n], ``undecided`` bool [n] (ended
    at max_problems).
    """

    promoted: npt.NDArray[np.bool_]
    problems: npt.NDArray[np.int64]
    undecided: npt.NDArray[np.bool_]


def simulate(
    config: SequentialTestConfig, discordance: float, gain: float, trials: int, rng: np.random.Generator
) -> Trials:
    """Sequential tests whose candidate is better by ``gain``, all looks of all trials at once."""
    won, lost = (discordance + gain) / 2, (discordance - gain) / 2
    both = ACCURACY - lost
    cells = [
        both,
        1 - both - won - lost,
        won,
        lost,
    ]  # both solve, neither, only the candidate, only the incumbent
    seen = np.arange(config.batch, config.max_problems + config.batch, config.batch).clip(
        max=config.max_problems
    )
    sizes = np.diff(seen, prepend=0)
    counts = rng.multinomial(sizes, cells, size=(trials, len(sizes))).cumsum(1)
    llr = log_likelihood_ratio(counts[..., 2], counts[..., 3], counts[..., 0] + counts[..., 1], config.margin)
    over = (llr >= -math.log(config.alpha)) | (llr <= math.log(config.beta))
    undecided = ~over.any(1)
    last = np.where(undecided, len(sizes) - 1, over.argmax(1))
    promoted = ~undecided & (llr[np.arange(trials), last] > 0)
    return Trials(promoted, seen[last], undecided)


def least(config: SequentialTestConfig, gain: bool) -> float:
    """The least mean number of problems of any test with these rates, as a share of the fixed-size test's."""
    alpha, beta = config.alpha, config.beta
    if gain:
        nats = (1 - beta) * math.log((1 - beta) / alpha) + beta * math.log(beta / (1 - alpha))
    else:
        nats = (1 - alpha) * math.log((1 - alpha) / beta) + alpha * math.log(alpha / (1 - beta))
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(1 - beta)
    # variance / margin^2 problems bring half a nat; a test of fixed size needs z^2 times as many problems
    return 2 * nats / z**2


def rows_of(name: str, config: SequentialTestConfig, discordance: float, trials: int, seed: int) -> list[Row]:
    """No gain, the margin, both mixed, and twice the margin, at one share of discordant pairs."""
    gains = [0.0, config.margin, 2 * config.margin]
    runs = {
        gain: simulate(config, discordance, gain, trials, np.random.default_rng([seed, i]))
        for i, gain in enumerate(gains)
        if gain <= discordance
    }
    asked = fixed_size(discordance, config.margin, config.alpha, config.beta)
    wrong, right = (float(runs[gain].promoted.mean()) for gain in gains[:2])
    matched = None
    if 0 < wrong < 0.5 < right < 1:
        matched = fixed_size(discordance, config.margin, wrong, 1 - right)
    rows = []
    for gain, run in runs.items():
        bound = None if gain > config.margin else least(config, gain > 0)
        rows.append(row(name, discordance, f"{100 * gain:+.0f}", run, asked, matched, bound))
        if gain == config.margin:
            mixed = Trials(
                *(np.concatenate(both) for both in zip(runs[0.0], runs[config.margin], strict=True))
            )
            bound = (least(config, False) + least(config, True)) / 2
            rows.append(row(name, discordance, "mixed", mixed, asked, matched, bound))
    return rows


def row(
    name: str,
    discordance: float,
    gain: str,
    run: Trials,
    asked: float,
    matched: float | None,
    bound: float | None,
) -> Row:
    """One row of the table. ``share of fixed`` is the mean over the fixed-size test's number of problems."""
    mean = float(run.problems.mean())
    return {
        "setting": name,
        "d": discordance,
        "points": gain,
        "promoted": float(run.promoted.mean()),
        "undecided": float(run.undecided.mean()),
        "mean problems": round(mean, 1),
        "p95": int(np.percentile(run.problems, 95)),
        "fixed, rates asked": math.ceil(asked),
        "share": mean / asked,
        "least share": bound,
        "fixed, rates measured": None if matched is None else math.ceil(matched),
        "share of it": None if matched is None else mean / matched,
    }


def same_always(name: str, config: SequentialTestConfig) -> Row:
    """Two checkpoints that never disagree."""
    run = simulate(config, 0.0, 0.0, 1, np.random.default_rng(0))
    return {
        "setting": name,
        "d": 0.0,
        "points": "+0",
        "promoted": float(run.promoted.mean()),
        "undecided": float(run.undecided.mean()),
        "mean problems": float(run.problems.mean()),
        "p95": int(run.problems[0]),
    }


def notes() -> Sequence[str]:
    """What the settings are."""
    return [
        f"{name}: margin {config.margin}, alpha {config.alpha}, beta {config.beta}, batch {config.batch}, "
        f"max_problems {config.max_problems}"
        for name, config in SETTINGS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name, config in SETTINGS.items():
        rows.append(same_always(name, config))
        for discordance in DISCORDANCES:
            rows += rows_of(name, config, discordance, arguments.trials, arguments.seed)
    emit(f"Arena, {arguments.trials} trials a row", rows, arguments.json, notes())


if __name__ == "__main__":
    main()
