"""How the cost of a simulation grows with simulations, trees, candidates and depth.

Each part changes one of them and leaves the others alone; the last column is the exponent of the straight
line through the logarithms of the part's rows (0: the cost stays, 1: it grows in proportion). Depth is the
mean depth of the nodes; it is changed by PUCT's exploration constant ("depth"), by fewer candidates
("narrow"), and by cutting paths off ("max_depth", where many simulations evaluate nothing). CPU time of one
thread; everything inside `search()`.

    python benchmarks/scaling.py [--json FILE] [--quick]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from report import emit
from synthetic_trees import NumbaEvaluator, Tables

from tokenzero.mcts import SearchConfig, search


def row(part: str, repeats: int, *, trees: int = 64, width: int = 16, **options: Any) -> dict[str, Any]:
    """Median microseconds per simulation of one setting."""
    config = SearchConfig(**{"method": "gumbel", "simulations": 128, "candidates": width, **options})
    evaluator, rng = NumbaEvaluator(Tables(width), trees), np.random.default_rng(0)
    roots = evaluator.roots(np.arange(trees))
    times = []
    for _ in range(repeats + 1):  # the first is thrown away
        begun = time.process_time()
        result = search(roots, evaluator, config, rng)
        times.append((time.process_time() - begun) / (trees * config.simulations) * 1e6)
    depth = np.mean([result.tree.depth[b, : result.nodes[b]].mean() for b in range(trees)])
    cost = median(times[1:])
    return {
        "part": part,
        "method": config.method,
        "simulations": config.simulations,
        "trees": trees,
        "K": width,
        "mean depth": float(depth),
        "us": cost,
        "ns per depth x K": cost * 1000 / (float(depth) * width),
    }


def fitted(rows: list[dict[str, Any]], against: str) -> list[dict[str, Any]]:
    """The rows with the exponent of the cost against one column in the last of them."""
    slope = np.polyfit(np.log([r[against] for r in rows]), np.log([r["us"] for r in rows]), 1)[0]
    rows[-1]["exponent"] = float(slope)
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    options = parser.parse_args()
    repeats = 3 if options.quick else 7
    budgets = (16, 128, 1024) if options.quick else (16, 64, 256, 1024, 4096)
    batches = (1, 16, 256) if options.quick else (1, 4, 16, 64, 256)
    widths = (4, 16, 64) if options.quick else (4, 8, 16, 32, 64, 128, 256)
    rows: list[dict[str, Any]] = []
    for method in ("puct", "gumbel"):
        part = [row("simulations", repeats, method=method, trees=16, simulations=n) for n in budgets]
        rows += fitted(part, "simulations")
        rows += fitted([row("trees", repeats, method=method, trees=n) for n in batches], "trees")
        rows += fitted([row("candidates", repeats, method=method, width=k) for k in widths], "K")
    sharp = [row("depth", repeats, method="puct", c_init=c) for c in (8.0, 2.0, 0.5, 0.1)]
    rows += fitted(sharp, "mean depth")
    narrow = [row("narrow", repeats, width=k) for k in (16, 4, 2)]
    limited = [row("max_depth", repeats, method="puct", max_depth=n) for n in (1, 2, 4, 8, 16)]
    rows += fitted(narrow, "mean depth") + fitted(limited, "mean depth")
    notes = [
        "exponents: d log(us) / d log(the part's column); for depth, narrow and max_depth: the mean depth"
    ]
    emit("growth of the cost of a simulation", rows, options.json, notes)


if __name__ == "__main__":
    main()
