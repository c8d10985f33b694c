"""``tokenzero bench compare``: two checkpoints on the same problems, measured, written down and printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenzero.bench_compare import NAMES, check_same, compare_report
from tokenzero.bench_depth import write_report
from tokenzero.checkpoint import open_model
from tokenzero.commands.bench_play import (
    bar,
    budget_cell,
    games,
    play,
    points,
    seeds,
    verdicts,
    wanted,
)
from tokenzero.commands.opening import engine_config
from tokenzero.plots import checkpoints_picture
from tokenzero.problem_choice import first_problems
from tokenzero.progress import percent, print_table

COLUMNS = ("method", "budget", "A", "B", "B less A, points", "A tokens", "B tokens", "A ms", "B ms")


def run(arguments: argparse.Namespace) -> int:
    """Measure both with every setting and report."""
    drawn = seeds(arguments.seed)
    opened = [
        open_model(m, arguments.task, None, engine_config(arguments)) for m in (arguments.a, arguments.b)
    ]
    problems, others = (first_problems(one.parts.task, arguments.split, arguments.problems) for one in opened)
    check_same(problems, others)
    settings = wanted(arguments, opened[0])
    with bar("bench compare", 2 * games(settings, drawn, problems)) as shown:
        outcomes = [
            play(one, settings, problems, drawn, shown, f"{name.upper()}, ")
            for name, one in zip(NAMES, opened, strict=True)
        ]
    report = compare_report(opened, outcomes, arguments.split)
    kept = dict(zip(NAMES, outcomes, strict=True))
    written = write_report(Path(arguments.out), "compare", report, checkpoints_picture(report), kept)
    if arguments.json:
        print(json.dumps(report))
        return 0
    who = f"{report['task']}, {report['split']}, {report['problems']} problems"
    title = f"A: {report['a']}\nB: {report['b']}\n{who}, {verdicts(report['verifier'])}"
    cells = [
        [
            row["method"],
            budget_cell(row),
            percent(row["a_accuracy"]),
            percent(row["b_accuracy"]),
            points(row["difference"], row["difference_ci95"]),
            *(f"{row[f'{name}_tokens']:.1f}" for name in NAMES),
            *(f"{1000 * row[f'{name}_seconds']:.2f}" for name in NAMES),
        ]
        for row in report["rows"]
    ]
    print_table(COLUMNS, cells, title)
    print("wrote", ", ".join(str(path) for path in written))
    return 0
