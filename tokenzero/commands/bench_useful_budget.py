"""``tokenzero bench useful-budget``: find how much search a checkpoint can use, and keep it beside the
checkpoint, where ``generate`` and the server read it.

The JSON object is {"task", "split", "problems", "checkpoint", "verifier", "method", "budget", "seeds",
"rows", "out"}; ``rows`` are ``bench_curves.pooled``'s,
``out`` is the file, or None where nothing was kept: for a model from the hub, and where the largest budget
that was tried is the best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenzero.answering import budget_field
from tokenzero.bench_curves import draw, pooled
from tokenzero.bench_depth import verifier_of
from tokenzero.bench_settings import SINGLE, settings_of
from tokenzero.commands.bench_play import COLUMNS, bar, games, numbers, play, row_cells, seeds, verdicts
from tokenzero.commands.opening import opened_model
from tokenzero.mcts.errors import InputError
from tokenzero.method_options import option_values
from tokenzero.problem_choice import first_problems
from tokenzero.progress import percent, print_table
from tokenzero.useful_budget import check_budgets, useful_index, write_useful_budget


def run(arguments: argparse.Namespace) -> int:
    """Measure every budget, choose, keep, report."""
    budgets = check_budgets(numbers("--budgets", arguments.budgets))
    drawn = seeds(arguments.seed)
    if arguments.split == "test":
        raise InputError("--split is test; a budget is chosen on validation, test problems are for measuring")
    opened = opened_model(arguments)
    method = arguments.method or opened.search.method
    if method in SINGLE:
        raise InputError(f"{method} has no budget; name another --method")
    simulations, samples = (budgets, []) if budget_field(method) == "simulations" else ([], budgets)
    options = option_values(arguments)
    settings = settings_of([method], simulations, samples, options)
    task = opened.parts.task
    problems = first_problems(task, arguments.split, arguments.problems)
    with bar("useful budget", games(settings, drawn, problems)) as shown:
        outcomes = play(opened, settings, problems, drawn, shown)
    chosen = useful_index(outcomes.solved)
    rows = pooled(outcomes, draw(len(drawn), len(problems)))
    report = {
        "task": task.name,
        "split": arguments.split,
        "problems": len(problems),
        "checkpoint": opened.source,
        "verifier": verifier_of(task),
        "method": method,
        "budget": budgets[chosen],
        "seeds": drawn,
        "rows": rows,
    }
    directory = Path(opened.source)
    kept = {**report, "options": options}
    edge = chosen == len(budgets) - 1  # what lies beyond may be better: nothing to go by yet
    out = str(write_useful_budget(directory, method, kept)) if directory.is_dir() and not edge else None
    if arguments.json:
        print(json.dumps({**report, "out": out}))
        return 0
    title = f"{opened.source}\n{task.name}, {arguments.split}, {verdicts(verifier_of(task))}"
    print_table(COLUMNS, [row_cells(row) for row in rows], title)
    print(f"useful budget of {method}: {budgets[chosen]} ({percent(rows[chosen]['accuracy'])})")
    if edge:
        print("it is the largest that was tried and more may help, so it is not kept: widen --budgets")
    elif out is None:
        print("a model from the hub has no directory to keep it in")
    else:
        print(f"from now on the default of {method} for this checkpoint; remove {out} to undo it")
    return 0
