"""``tokenzero bench depth``: measure, write the files, print the tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenzero.bench_curves import MULTIPLES
from tokenzero.bench_depth import Report, depth_report, write_report
from tokenzero.commands.bench_play import (
    COLUMNS,
    bar,
    games,
    play,
    points,
    row_cells,
    seeds,
    verdicts,
    wanted,
)
from tokenzero.commands.opening import opened_model
from tokenzero.mcts.errors import InputError
from tokenzero.plots import depth_picture
from tokenzero.problem_choice import first_problems
from tokenzero.progress import percent, print_table
from tokenzero.selfplay.methods.config import METHODS, unknown_method


def run(arguments: argparse.Namespace) -> int:
    """Measure every setting and report."""
    drawn = seeds(arguments.seed)
    if arguments.against not in METHODS:
        raise InputError(unknown_method(arguments.against))
    opened = opened_model(arguments)
    settings = wanted(arguments, opened)
    problems = first_problems(opened.parts.task, arguments.split, arguments.problems)
    with bar("bench depth", games(settings, drawn, problems)) as shown:
        outcomes = play(opened, settings, problems, drawn, shown, most_tokens=arguments.most_tokens)
    report = depth_report(opened, outcomes, arguments.split, arguments.against)
    picture = depth_picture(report)
    written = write_report(Path(arguments.out), "depth", report, picture, {opened.source: outcomes})
    if arguments.json:
        print(json.dumps(report))
    else:
        _show(report, written)
    return 0


def _show(report: Report, written: Sequence[Path]) -> None:
    who = f"{report['task']}, {report['split']}, {report['problems']} problems"
    title = f"{report['checkpoint']}\n{who}, {len(report['seeds'])} seed(s), {verdicts(report['verifier'])}"
    print_table(COLUMNS, [row_cells(row) for row in report["pooled"]], title)
    if report["greedy"] is None:
        print("no greedy row, so no tables at equal cost; add greedy to --methods")
    else:
        for key, words in (
            ("equal_tokens", "forwarded tokens"),
            ("equal_shared", "tokens if samples of a problem shared what they begin with"),
            ("equal_seconds", "wall time"),
        ):
            _show_equal(report, key, words)
        _show_reach(report)
    for method, budget in report["useful_budget"].items():
        print(f"useful budget of {method}, from validation: {budget}")
    print("wrote", ", ".join(str(path) for path in written))


def _show_equal(report: Report, key: str, words: str) -> None:
    """Methods by budgets: the accuracy, and below it the difference from the reference in points."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in report[key]:
        found.setdefault(row["method"], {})[row["times"]] = row
    cells = [
        [method, *(_equal_cell(by_times[times], report["against"]) for times in MULTIPLES)]
        for method, by_times in found.items()
    ]
    head = ("method", *(f"{times}x" for times in MULTIPLES))
    about = f"below it points from {report['against']} (95 % interval)"
    print_table(head, cells, f"accuracy at equal {words}, in greedy's; {about}")


def _equal_cell(row: dict[str, Any], against: str) -> str:
    if row["accuracy"] is None:
        return ""
    if row["method"] == against:
        return percent(row["accuracy"])
    return f"{percent(row['accuracy'])}\n{points(row['difference'], row['difference_ci95'])}"


def _show_reach(report: Report) -> None:
    against, rows = report["against"], report["tokens_to_reach"]
    far = f"{against} at {MULTIPLES[-1]}x greedy's tokens"
    if not rows:
        print(f"{far} was not measured: widen --samples or --simulations to see what reaches it")
        return
    cells = [
        [
            row["method"],
            "never" if row["cost"] is None else f"{row['cost']:.0f}",
            percent(row["share"]),
            _share_interval(row["share_ci95"]),
        ]
        for row in rows
        if row["method"] != against
    ]
    title = f"tokens to reach the accuracy of {far}, {percent(rows[0]['accuracy'])}"
    print_table(("method", "tokens", f"share of {against}'s", "95 % interval"), cells, title)


def _share_interval(interval: Sequence[float | None] | None) -> str:
    if interval is None:
        return "-"
    low, high = interval
    return f"{percent(low)} to {'never' if high is None else percent(high)}"
