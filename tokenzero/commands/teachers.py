"""``tokenzero teachers``: print how a run's teachers gained and lost weight and why, and draw it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.markup import escape

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.progress import print_table
from tokenzero.run_records import read_run
from tokenzero.teacher_history import (
    GLOBAL,
    History,
    arrow,
    counted,
    history,
    history_page,
    one_context,
    signed,
)

COLUMNS = ("round", "teacher", "weight", "", "score", "credit", "consulted", "tokens", "why")
PLAIN = str.maketrans("↑↓→", "^v=")


def run(arguments: argparse.Namespace) -> int:
    """Print the weights over the rounds, and write the picture where that is asked for."""
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None and out.suffix not in (".png", ".html"):
        raise InputError(f"--out is {out}; give a name that ends in .png or .html")
    directory = Path(arguments.run)
    found = history(read_run(directory)[1])
    if found and arguments.context is not None:
        found = one_context(found, arguments.context)
    written = None
    if found and out is not None:
        _write(out, f"{directory.resolve().name}: teachers", found)
        written = str(out)
    if arguments.json:
        print(json.dumps({"run": str(directory), "out": written, "contexts": found}))
    elif not found:
        print(f"{directory} had no teachers: the student played alone")
    else:
        _show(found, arguments.context)
        if written is not None:
            print(f"wrote {written}")
    return 0


def _write(out: Path, title: str, found: History) -> None:
    if out.suffix == ".html":
        write_text(out, history_page(title, found))
        return
    from tokenzero.teacher_plots import teacher_picture  # matplotlib takes its time

    write_bytes(out, teacher_picture(found, title))


def _show(found: History, context: str | None) -> None:
    """The table of the context that was asked for, by default the global one, and which others there are."""
    name = next(iter(found)) if context is None else context or GLOBAL
    rows = [
        [
            str(row["round"]),
            escape(row["teacher"]),
            f"{row['weight']:.3f}",
            _typed(arrow(row["change"])),
            signed(row["score"]),
            signed(row["credit"]),
            counted(row["consulted"]),
            counted(row["tokens"]),
            escape(row["reason"] or ""),
        ]
        for row in found[name]
    ]
    print_table(COLUMNS, rows, f"context: {escape(name)}", words=True)
    others = [other for other in found if other != name]
    if others:
        print(f"other contexts, for --context: {', '.join(others)}")


def _typed(text: str) -> str:
    """Arrows as this terminal can write them."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(PLAIN)
    return text
