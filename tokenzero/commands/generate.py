"""``tokenzero generate``: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
import sys

from tokenzero.answering import Generation, answer, build_method
from tokenzero.commands.opening import opened_model
from tokenzero.progress import print_table


def run(arguments: argparse.Namespace) -> int:
    """Answer the prompt and print the answer with what was weighed and spent."""
    prompt = sys.stdin.read().rstrip("\r\n") if arguments.prompt == "-" else arguments.prompt
    opened = opened_model(arguments)
    method = build_method(opened, arguments.method, arguments.simulations, arguments.n)
    found = answer(opened, method, prompt, arguments.seed)
    if arguments.json:
        print(json.dumps(found.as_dict()))
    else:
        _show(found)
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
    line = f"{found.method}: value {value}, {spent} tokens forwarded, {seconds}, seed {found.seed}"
    print(line, file=sys.stderr)
