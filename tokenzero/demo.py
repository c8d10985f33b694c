"""The demo: a tiny model learns Countdown by self-play on the CPU, then search and best-of-N are paid by the
token.

``python -m tokenzero.demo --out runs/demo``. A run that is there already is gone on with. Everything is
written below ``--out``; nothing is downloaded.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenzero.cli import Parser, guarded, interrupted, prepare
from tokenzero.progress import COLUMNS, Progression, print_table, round_cells, showing

Row = dict[str, Any]
BUDGETS = {"gumbel": (0, 4, 16, 64), "puct": (4, 16, 64), "frontier": (64, 256, 1024)}
"""Simulations a move; in frontier search play-outs a problem, most of which end at once and free of
charge."""
MOST = 64
"""Simulations of the command that is proposed at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    return guarded(_main, sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    parser = Parser(prog="python -m tokenzero.demo", description="Self-play, then search beside best-of-N.")
    parser.add_argument("--out", metavar="DIR", default="runs/demo")
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument(
        "--problems", metavar="N", type=int, default=1000, help="test problems (default: 1000)"
    )
    parser.add_argument("--preset", metavar="NAME", default="countdown", help="default: countdown")
    arguments = parser.parse_args(argv)
    prepare()
    try:
        demonstrate(Path(arguments.out), arguments.preset, arguments.seed, arguments.problems)
    except KeyboardInterrupt:
        return interrupted("finished rounds are kept, the same command goes on")
    return 0


def demonstrate(out: Path, preset: str, seed: int, problems: int) -> None:
    """Self-play into ``out``, measure its first checkpoint and the one that plays last on test problems,
    report."""
    from tokenzero.config import load_config, on_problems
    from tokenzero.selfplay.run import Run
    from tokenzero.selfplay.run_directory import checkpoint_path

    gc.freeze()  # as in `cli`
    config = on_problems(load_config(preset, overrides=[f"seed={seed}"]))
    with showing(config.rounds) as listener:
        listener.say(f"self-play, preset {preset}: a warm start and {config.rounds} rounds into {out}")
        records = Run(config, out, listener).execute(resume=(out / "config.json").is_file())
        curves = []
        for index in dict.fromkeys((0, int(records[-1]["incumbent"]))):
            label = f"round {index}"
            # Before training the search that depends least on the value head tells enough.
            budgets = BUDGETS if index else {"frontier": (0, *BUDGETS["frontier"])}
            rows = measure(checkpoint_path(out, index), problems, seed, budgets, listener, label)
            curves.append((label, rows))
    report(out, config.task.name, records, curves)


def measure(
    checkpoint: Path,
    problems: int,
    seed: int,
    budgets: Mapping[str, Sequence[int]],
    listener: Progression,
    label: str,
) -> list[Row]:
    """The pooled rows of ``bench depth`` for one checkpoint on the first ``problems`` test problems: each
    search of ``budgets`` with its numbers of simulations, 0 being greedy, then best-of-N.
    """
    from tokenzero import bench_settings
    from tokenzero.bench_curves import draw, pooled
    from tokenzero.bench_outcomes import games_of, measure
    from tokenzero.checkpoint import open_model
    from tokenzero.problem_choice import first_problems

    opened = open_model(checkpoint)
    chosen = first_problems(opened.parts.task, "test", problems)
    settings = [
        setting
        for method, simulations in budgets.items()
        for setting in bench_settings.settings_of(
            [*(["greedy"] if 0 in simulations else []), method], simulations, ()
        )
    ]
    settings += bench_settings.settings_of(["best-of-n"], (), bench_settings.SAMPLES)
    listener.stage(f"test problems, {label}", games_of(settings, [seed], len(chosen)))
    outcomes = measure(opened, settings, chosen, [seed], on_games=listener.advance)
    return pooled(outcomes, draw(1, len(chosen)))


def report(out: Path, task: str, records: Sequence[Row], curves: Sequence[tuple[str, list[Row]]]) -> None:
    """Write the picture and the rows below ``out`` and print the tables, the comparison and where things
    are.
    """
    from tokenzero.commands.bench_play import COLUMNS as DEPTH_COLUMNS
    from tokenzero.commands.bench_play import row_cells
    from tokenzero.plots import demo_picture
    from tokenzero.policy.atomic import write_bytes, write_text

    write_text(
        out / "demo.json", json.dumps({"rounds": list(records), "depth": dict(curves)}, indent=2) + "\n"
    )
    title = f"Self-play, then search at test time: {task}, public verifier"
    write_bytes(out / "demo.png", demo_picture(records, curves, title))
    print_table(COLUMNS, [round_cells(record) for record in records], "self-play, validation problems")
    for label, rows in curves:
        print_table(DEPTH_COLUMNS, [row_cells(row) for row in rows], f"test problems, {label}")
    for label, rows in curves:
        for line in comparison(rows):
            print(f"{label}: {line}")
    print(f"picture {out / 'demo.png'}, numbers {out / 'demo.json'}, the run {out}; try it:")
    print(f"  tokenzero generate {out} --prompt '3 5 7 9 -> 24 :' --simulations {MOST}")


def comparison(rows: Sequence[Row]) -> list[str]:
    """One line for each search: what best-of-N pays for the accuracy of its deepest one, and how many times
    more that is.
    """
    from tokenzero.bench_curves import tokens_to_reach

    sampled = [row for row in rows if row["method"] == "best-of-n"]
    searched = [row for row in rows if row["simulations"]]
    lines = []
    for method in dict.fromkeys(row["method"] for row in searched):
        row = max(
            (row for row in searched if row["method"] == method), key=lambda row: int(row["simulations"])
        )
        own, accuracy = float(row["mean_tokens"]), float(row["accuracy"])
        head = (
            f"{method} with {row['simulations']} simulations: "
            f"{100 * accuracy:.1f} % at {own:.0f} tokens a problem"
        )
        needed = tokens_to_reach(rows, accuracy)
        if needed is not None:
            lines.append(f"{head}; best-of-N needs {needed:.0f}, {needed / own:.2f} times as many")
        elif sampled:
            most = max(sampled, key=lambda row: int(row["n"]))
            times = f"{most['mean_tokens'] / own:.2f}"
            lines.append(
                f"{head}; best-of-N has {100 * most['accuracy']:.1f} % at N={most['n']} with "
                f"{most['mean_tokens']:.0f}, so it needs more than {times} times as many"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
