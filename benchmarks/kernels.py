"""Microseconds per simulation of `search()` beside mctx and open_spiel, on the same made-up trees in one run.

Ours is everything inside `search()`, with a compiled evaluator that copies a row of a table; "kernels" is the
part of it spent in select, expand and backup. mctx is jitted and warm and does the same table look-up inside.
open_spiel's MCTS is plain Python and searches one tree after the other. Everybody has one thread; times are
CPU times of the process, medians of repeats that take turns.

    python benchmarks/kernels.py [--json FILE] [--quick]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)  # before jax is imported

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from report import emit
from synthetic_trees import NumbaEvaluator, Tables, mctx_search, open_spiel_search

from tokenzero.mcts import SearchConfig, pool, search

SIMULATIONS = 128
ENOUGH = 0.05  # seconds; a shorter run is repeated within one measurement


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of one call, over as many calls as it takes to last long enough."""
    calls, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < ENOUGH:
        action()
        calls += 1
    return spent / calls


def ours(tables: Tables, method: str, trees: int) -> Callable[[], object]:
    """A search of ours; the roots are part of it."""
    config = SearchConfig(method=method, simulations=SIMULATIONS, candidates=tables.logits.shape[1])
    evaluator, rng = NumbaEvaluator(tables, trees), np.random.default_rng(0)
    states = np.arange(trees)
    return lambda: search(evaluator.roots(states), evaluator, config, rng)


def theirs(tables: Tables, method: str, trees: int) -> Callable[[], object] | None:
    """A search of mctx's, waited for; None if mctx is not installed."""
    if find_spec("mctx") is None or find_spec("jax") is None:
        return None
    import jax

    run, states = mctx_search(tables, method, SIMULATIONS), np.arange(trees, dtype=np.int32)
    key = jax.random.PRNGKey(0)
    return lambda: jax.block_until_ready(run(key, states))


def plain(tables: Tables) -> Callable[[], object] | None:
    """One tree of open_spiel's Python MCTS; None if it is not installed."""
    if find_spec("pyspiel") is None:
        return None
    run = open_spiel_search(tables, SIMULATIONS)
    return lambda: run(0)


def kernel_share(action: Callable[[], object]) -> float:
    """Share of a search's time that its kernels take; they are wrapped with a clock for this."""
    inside, original = 0.0, pool.call

    def clocked(function: Any, *arguments: Any) -> Any:
        nonlocal inside
        begun = time.thread_time()
        answer = original(function, *arguments)
        inside += time.thread_time() - begun
        return answer

    shares = []
    pool.call = clocked  # type: ignore[assignment]
    try:
        for _ in range(7):
            inside, begun = 0.0, time.thread_time()
            action()
            shares.append(inside / (time.thread_time() - begun))
    finally:
        pool.call = original
    return median(shares)


def measured(method: str, trees: int, width: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    tables = Tables(width)
    runs = {"ours": ours(tables, method, trees), "mctx": theirs(tables, method, trees)}
    runs["open_spiel"] = plain(tables) if method == "puct" else None
    present = {name: run for name, run in runs.items() if run is not None}
    for run in present.values():
        run()  # compiled and warm
    times: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(repeats):
        for name, run in present.items():
            searched = 1 if name == "open_spiel" else trees
            times[name].append(seconds(run) / (searched * SIMULATIONS) * 1e6)
    cost = {name: median(values) for name, values in times.items()}
    row: dict[str, Any] = {"method": method, "candidates": width, "trees": trees}
    row["ours us"] = cost["ours"]
    row["kernels us"] = cost["ours"] * kernel_share(present["ours"])
    for name in ("mctx", "open_spiel"):
        row[f"{name} us"] = cost.get(name)
        row[f"{name} / ours"] = cost[name] / cost["ours"] if name in cost else None
    return row


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    options = parser.parse_args()
    sizes = (1, 64) if options.quick else (1, 8, 64, 256)
    rows = [
        measured(method, trees, width, 3 if options.quick else 5)
        for method in ("puct", "gumbel")
        for width in (16, 64)
        for trees in sizes
    ]
    notes = [f"{SIMULATIONS} simulations per tree; CPU microseconds per simulation; one thread each"]
    notes += [f"{name} is not installed" for name in ("mctx", "pyspiel") if find_spec(name) is None]
    notes.append("open_spiel: PUCT with its own exploration term, one tree at a time, no Gumbel method")
    emit("cost of a simulation", rows, options.json, notes)


if __name__ == "__main__":
    main()
