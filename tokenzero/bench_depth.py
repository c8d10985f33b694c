"""How much search is worth paying for: accuracy against forwarded tokens, search beside best-of-N.

Greedy decoding, tree search at several numbers of simulations and best-of-N at several N answer the same
problems; every token that goes through the model is counted, prompts included. With a public verifier every
method may stop at its first verified answer. No method sees a gold answer. It trains nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.answering import SEARCHES
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.selfplay.evaluation import evaluate
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods import BestOfN, Method, Search, greedy, searching
from tokenzero.tasks import Problem, Task

SIMULATIONS = (0, 4, 16, 64)
SAMPLES = (1, 2, 4, 8, 16, 32, 64)
ROW_KEYS = (
    "method",
    "simulations",
    "n",
    "accuracy",
    "ci95",
    "mean_tokens",
    "p95_tokens",
    "wall_s",
    "mean_depth",
)

Row = dict[str, Any]
OnRow = Callable[[Row], None]


@dataclass(frozen=True)
class Entry:
    """One row to be: a method with its budget, ``simulations`` per token or ``n`` samples."""

    method: str
    simulations: int = 0
    n: int = 1

    def build(self, parts: Parts, search: SearchConfig) -> Method:
        """The method, ready to play."""
        if self.method == "greedy":
            return greedy(parts)
        if self.method == "best-of-n":
            return BestOfN(parts, self.n)
        return Search(parts, searching(search, self.method, self.simulations))

    def rng(self, seed: int) -> np.random.Generator:
        """Its own random stream, so that a row does not depend on which others are asked for."""
        kind = ("greedy", "best-of-n", *SEARCHES).index(self.method)
        return np.random.default_rng([seed, kind, self.simulations, self.n])


def entries(methods: Sequence[str], simulations: Sequence[int], samples: Sequence[int]) -> list[Entry]:
    """The rows of a bench, in order: greedy where 0 simulations are asked for, each search, best-of-N.

    Raises InputError for a negative number of simulations, for N below 1, or when nothing is left.
    """
    if min(simulations, default=0) < 0:
        raise InputError(f"simulations {min(simulations)} is negative; give numbers of at least 0")
    if min(samples, default=1) < 1:
        raise InputError(f"samples {min(samples)} is below 1; give numbers of at least 1")
    found = [Entry("greedy")] if 0 in simulations else []
    found += [Entry(method, simulations=s) for method in methods for s in simulations if s > 0]
    found += [Entry("best-of-n", n=n) for n in samples]
    if not found:
        raise InputError("nothing to measure; give at least one number of simulations or samples")
    return found


def depth_rows(
    parts: Parts,
    task: Task,
    problems: Sequence[Problem],
    simulations: Sequence[int],
    samples: Sequence[int],
    search_config: SearchConfig,
    seed: int,
    *,
    methods: Sequence[str] | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """One row (see ``ROW_KEYS``) for greedy, for each search with each of ``simulations``, and for best-of-N
    with each of ``samples``. ``methods`` are searches; by default the one of ``search_config``.

    ``mean_tokens`` and ``p95_tokens`` are forwarded per problem; ``mean_depth`` is how many tokens past the
    prompt a method looked at most; ``wall_s`` is for all problems together. Same arguments, same rows
    (``wall_s`` apart).
    """
    rows = []
    for entry in entries(methods or [search_config.method], simulations, samples):
        method = entry.build(parts, search_config)
        score = evaluate(method, task, problems, entry.rng(seed))
        row: Row = {
            "method": entry.method,
            "simulations": entry.simulations,
            "n": entry.n,
            "accuracy": score.accuracy,
            "ci95": list(score.ci95),
            "mean_tokens": score.mean_tokens,
            "p95_tokens": score.p95_tokens,
            "wall_s": score.ledger.wall_s,
            "mean_depth": score.mean_depth,
        }
        rows.append(row)
        if on_row is not None:
            on_row(row)
    return rows


def verifier_of(task: Task) -> str:
    """Who could check answers while they were made: "public" (anyone) or "gold" (nobody, at test time)."""
    return "public" if task.public_verifier else "gold"


def write_report(directory: Path, report: dict[str, Any], picture: bytes) -> list[Path]:
    """Write ``depth.json``, ``depth.csv`` and ``depth.png``; returns their paths. Raises OutputError."""
    paths = [directory / f"depth.{kind}" for kind in ("json", "csv", "png")]
    write_text(paths[0], json.dumps(report, indent=2) + "\n")
    write_text(paths[1], as_csv(report["rows"]))
    write_bytes(paths[2], picture)
    return paths


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV; the interval takes two columns, ``ci95_low`` and ``ci95_high``."""
    columns = [name for key in ROW_KEYS for name in (("ci95_low", "ci95_high") if key == "ci95" else (key,))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        low, high = row["ci95"]
        writer.writerow({**{k: v for k, v in row.items() if k != "ci95"}, "ci95_low": low, "ci95_high": high})
    return text.getvalue()


def tokens_to_reach(rows: Sequence[Row], accuracy: float) -> float | None:
    """Forwarded tokens at which the curve of best-of-N reaches ``accuracy``, interpolated in log tokens; None
    if it never does.

    A target at or below the curve's first point gives that point's tokens: the curve cannot say less.
    """
    curve = sorted((row["mean_tokens"], row["accuracy"]) for row in rows if row["method"] == "best-of-n")
    for index, (tokens, reached) in enumerate(curve):
        if reached >= accuracy:
            if index == 0:
                return float(tokens)
            before, below = curve[index - 1]
            share = (accuracy - below) / (reached - below)
            return float(np.exp(np.log(before) + share * (np.log(tokens) - np.log(before))))
    return None
