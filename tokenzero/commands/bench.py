"""``tokenzero bench depth``: measure, write the three files, print the rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenzero.answering import check_methods
from tokenzero.bench_depth import Row, depth_rows, entries, verifier_of, write_report
from tokenzero.commands.opening import opened_model
from tokenzero.mcts.errors import InputError
from tokenzero.plots import depth_picture
from tokenzero.problem_choice import first_problems
from tokenzero.progress import percent, print_table, showing

COLUMNS = (
    "method",
    "simulations",
    "n",
    "accuracy",
    "95 % interval",
    "mean tokens",
    "p95 tokens",
    "depth",
    "seconds",
)


def run(arguments: argparse.Namespace) -> int:
    """Measure every row and report."""
    simulations = _numbers("--simulations", arguments.simulations)
    samples = _numbers("--samples", arguments.samples)
    methods = check_methods(arguments.method.split(",")) if arguments.method else None
    if arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}; give a whole number of at least 0")
    opened = opened_model(arguments)
    task = opened.parts.task
    problems = first_problems(task, arguments.split, arguments.problems)
    with showing() as listener:
        count = len(entries(methods or [opened.search.method], simulations, samples))
        listener.stage("bench depth", count)
        rows = depth_rows(
            opened.parts,
            task,
            problems,
            simulations,
            samples,
            opened.search,
            arguments.seed,
            methods=methods,
            on_row=lambda row: listener.advance(1),
        )
    report = {
        "task": task.name,
        "split": arguments.split,
        "problems": len(problems),
        "checkpoint": opened.source,
        "verifier": verifier_of(task),
        "rows": rows,
    }
    written = write_report(Path(arguments.out), report, depth_picture(report))
    if arguments.json:
        print(json.dumps(report))
    else:
        kind = f"{report['verifier']} verifier"
        title = f"{opened.source}: {task.name}, {arguments.split}, {len(problems)} problems, {kind}"
        print_table(COLUMNS, [row_cells(row) for row in rows], title)
        print("wrote", ", ".join(str(path) for path in written))
    return 0


def row_cells(row: Row) -> list[str]:
    """One row as the cells of ``COLUMNS``."""
    low, high = row["ci95"]
    return [
        row["method"],
        str(row["simulations"]),
        str(row["n"]),
        percent(row["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        f"{row['mean_tokens']:.1f}",
        f"{row['p95_tokens']:.1f}",
        f"{row['mean_depth']:.1f}",
        f"{row['wall_s']:.2f}",
    ]


def _numbers(flag: str, text: str) -> list[int]:
    """Whole numbers separated by commas, each once, in the order given."""
    try:
        return list(dict.fromkeys(int(word) for word in text.split(",") if word.strip()))
    except ValueError:
        raise InputError(
            f"{flag} is {text!r}; give whole numbers separated by commas, as in 0,4,16,64"
        ) from None
