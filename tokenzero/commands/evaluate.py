"""``tokenzero eval``: how many problems of a split a method solves, and what that costs."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from tokenzero.answering import build_method
from tokenzero.commands.opening import opened_model
from tokenzero.mcts.errors import InputError
from tokenzero.method_options import budget_of, method_config, with_stop
from tokenzero.problem_choice import first_problems
from tokenzero.progress import percent, print_table, showing
from tokenzero.selfplay.evaluation import Score, evaluate


def run(arguments: argparse.Namespace) -> int:
    """Play the problems and print the accuracy with its interval and the ledger."""
    if arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}; give a whole number of at least 0")
    opened = opened_model(arguments)
    task = opened.parts.task
    problems = with_stop(first_problems(task, arguments.split, arguments.problems), arguments.stop)
    method = build_method(opened, method_config(arguments))
    rng = np.random.default_rng(arguments.seed)
    with showing() as listener:
        listener.stage(method.name, len(problems))
        budget = budget_of(arguments)
        score = evaluate(method, task, problems, rng, listener.advance, budget, arguments.overlap)
    if arguments.json:
        print(json.dumps(as_record(score, task.name, arguments.split)))
    else:
        _show(score, f"{opened.source}: {task.name}, {arguments.split}")
    if task.likelier_is_better:
        print("accuracy counts texts equal to the corpus's own, no measure of other texts", file=sys.stderr)
    return 0


def as_record(score: Score, task: str, split: str) -> dict[str, object]:
    """The score in the keys that ``--json`` promises; "bleu" and "rouge_l" with --overlap alone."""
    return {
        "task": task,
        "split": split,
        "problems": score.problems,
        "solved": score.solved,
        "accuracy": score.accuracy,
        "ci95": list(score.ci95),
        "method": score.method,
        "ledger": score.ledger.as_dict(),
        **({} if score.overlap is None else score.overlap._asdict()),
    }


def _show(score: Score, title: str) -> None:
    low, high = score.ci95
    row = [
        score.method,
        f"{score.solved}/{score.problems}",
        percent(score.accuracy),
        f"{percent(low)} to {percent(high)}",
        f"{score.mean_tokens:.1f}",
        str(score.ledger.verifier_calls),
        f"{score.ledger.wall_s:.2f}",
    ]
    columns = ["method", "solved", "accuracy", "95 % interval", "tokens/problem", "verifier calls", "seconds"]
    if score.overlap is not None:
        columns[4:4] = ["BLEU", "ROUGE-L"]
        row[4:4] = [f"{score.overlap.bleu:.1f}", f"{score.overlap.rouge_l:.3f}"]
    print_table(tuple(columns), [row], title)
