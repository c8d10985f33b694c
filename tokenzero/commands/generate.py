"""``tokenzero generate``: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tokenzero.answering import Generation, answer, build_method, warm_up
from tokenzero.commands.opening import opened_model
from tokenzero.mcts.errors import InputError
from tokenzero.method_options import budget_of, method_config
from tokenzero.policy.atomic import write_text
from tokenzero.progress import print_table
from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.view_document import document, to_json


def run(arguments: argparse.Namespace) -> int:
    """Answer the prompt and print the answer with what was weighed and spent."""
    prompt = sys.stdin.read().rstrip("\r\n") if arguments.prompt == "-" else arguments.prompt
    opened = opened_model(arguments)
    method = build_method(opened, method_config(arguments))
    budget = budget_of(arguments)
    if budget is not None and budget.seconds is not None:
        warm_up(opened, build_method(opened, method_config(arguments)), prompt)
    trees: list[RecordedTree] = []
    keep = trees.extend if arguments.tree is not None else None
    found = answer(opened, method, prompt, arguments.seed, budget, arguments.stop, keep)
    if arguments.tree is not None:
        if not trees:
            raise InputError(f"method {found.method} searches no tree; use puct, gumbel or frontier")
        for tree in trees:
            tree.settings["seed"] = found.seed
        write_text(Path(arguments.tree), to_json(document(trees, found.text)))
    if arguments.json:
        print(json.dumps(found.as_dict()))
    else:
        _show(found)
    if opened.parts.task.public_verifier and not found.solved:
        spent = "" if found.tokens else ": the budget was spent before an answer began"
        print(f"not solved{spent}", file=sys.stderr)
    return 0


def _show(found: Generation) -> None:
    print(found.text)
    rows = [
        [c.text, str(c.visits), "-" if c.q is None else f"{c.q:+.3f}", f"{c.prior:.3g}"]
        for c in found.candidates[:8]
    ]
    if rows:
        print_table(("candidate", "visits", "q", "prior"), rows)
    value = "unknown" if found.value is None else f"{found.value:+.3f}"
    spent = found.ledger["prefill_tokens"] + found.ledger["decode_tokens"] + found.ledger["value_tokens"]
    seconds = f"{found.ledger['wall_s']:.2f} s"
    line = (
        f"{found.method}, {found.end}: value {value}, {spent} tokens forwarded, {seconds}, seed {found.seed}"
    )
    print(line, file=sys.stderr)
