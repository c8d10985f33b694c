"""``tokenzero compare``: run the arms, print the tables and write ``compare.json``, ``.csv``, ``.md`` and
``.png``.

The JSON object is ``compare_table.make_report``'s. The exit code is 1 when a run failed; the others are
reported all the same, and the same command tries again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tokenzero.cli import interrupted
from tokenzero.compare import (
    OWN_DEFAULTS,
    QUICK_PROBLEMS,
    QUICK_SEEDS,
    SEEDS,
    Comparison,
    Values,
    finished,
    kept_base,
    quick_overrides,
    read_kept,
    variants,
)
from tokenzero.compare_plots import compare_picture
from tokenzero.compare_processes import execute
from tokenzero.compare_progress import overview
from tokenzero.compare_table import (
    Report,
    accuracy_table,
    as_csv,
    as_markdown,
    caption_of,
    make_report,
    spending_table,
    title_of,
)
from tokenzero.config import load_config, on_problems
from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.progress import print_table
from tokenzero.selfplay.config import SelfPlayConfig


def run(arguments: argparse.Namespace) -> int:
    """Run what is not finished and report."""
    comparison = _comparison(arguments)
    comparison.keep()
    jobs = comparison.jobs()
    left = [job for job in jobs if not finished(comparison.directory, job)]
    try:
        with overview(comparison.directory, jobs) as shown:
            failures = execute(comparison.directory, left, arguments.jobs, shown.hear)
    except KeyboardInterrupt:
        return interrupted("finished rounds are kept, the same command goes on")
    report = make_report(comparison, failures)
    written = write_report(comparison.directory, report)
    if arguments.json:
        print(json.dumps(report))
    else:
        _show(report, written)
    return 1 if failures else 0


def write_report(directory: Path, report: Report) -> list[Path]:
    """Write ``compare.json``, ``compare.csv``, ``compare.md`` and ``compare.png``; returns their paths.

    Raises OutputError.
    """
    paths = [directory / f"compare.{kind}" for kind in ("json", "csv", "md", "png")]
    write_text(paths[0], json.dumps(report, indent=2) + "\n")
    write_text(paths[1], as_csv(report["rows"]))
    write_text(paths[2], as_markdown(report))
    write_bytes(paths[3], compare_picture(report))
    return paths


def _comparison(arguments: argparse.Namespace) -> Comparison:
    """What is asked for. A directory that holds a comparison knows what it compares: nothing need be
    repeated.
    """
    directory = Path(arguments.out)
    kept = read_kept(directory)
    base = _base(arguments, kept)
    words = arguments.arms or (",".join(kept["compared"]) if kept is not None else None)
    if words is None:
        raise InputError("give --arms, for example --arms sampling,frontier")
    asked = variants(words, base)
    if not asked:
        raise InputError(f"--arms is {words!r}; name at least one arm")
    against = arguments.against
    if against is None:
        labels = [variant.label for variant in asked]
        against = kept["against"] if kept is not None and kept["against"] in labels else labels[0]
    problems = arguments.test_problems
    if problems is None and kept is not None:
        problems = kept["test_problems"]
    elif problems is None and arguments.quick:
        problems = QUICK_PROBLEMS
    return Comparison(
        directory,
        base,
        asked,
        _seeds(arguments, kept),
        against,
        test_problems=problems,
        reads_test=not arguments.no_test,
    )


def _base(arguments: argparse.Namespace, kept: Values | None) -> SelfPlayConfig:
    named = (arguments.preset, arguments.config, arguments.rounds)
    if kept is not None and not arguments.set and not arguments.quick and named == (None, None, None):
        return kept_base(kept)
    base = on_problems(load_config(arguments.preset, arguments.config))
    own = list(OWN_DEFAULTS)
    if arguments.quick:
        own += quick_overrides(base)
    if arguments.rounds is not None:
        own.append(f"rounds={arguments.rounds}")
    return on_problems(load_config(arguments.preset, arguments.config, [*own, *arguments.set]))


def _seeds(arguments: argparse.Namespace, kept: Values | None) -> Sequence[int]:
    if arguments.seeds is None:
        if kept is not None:
            return list(kept["seeds"])
        return QUICK_SEEDS if arguments.quick else SEEDS
    try:
        return list(dict.fromkeys(int(word) for word in arguments.seeds.split(",")))
    except ValueError:
        raise InputError(
            f"--seeds is {arguments.seeds!r}; give whole numbers separated by commas, as in 1,2,3"
        ) from None


def _show(report: Report, written: Sequence[Path]) -> None:
    columns, rows = accuracy_table(report)
    print_table(columns, rows, title_of(report))
    print(caption_of(report))
    columns, rows = spending_table(report)
    print_table(columns, rows, "spent by a run in play and learning, mean over seeds")
    for note in report["notes"]:
        print(note)
    for name, reason in report["failures"].items():
        print(f"{name} failed: {reason}")
    print("wrote", ", ".join(str(path) for path in written))
