"""The flags of ``generate`` and ``eval``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_json, add_method, add_model, add_problems, add_teachers


def add_generate(parser: argparse.ArgumentParser) -> None:
    """``tokenzero generate``."""
    parser.set_defaults(command="generate")
    add_model(parser)
    add_teachers(parser)
    parser.add_argument("--prompt", metavar="TEXT|-", required=True, help="the problem; - reads stdin")
    add_method(parser)
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=int, help="longest answer (default: the task's limit)"
    )
    parser.add_argument("--tree", metavar="FILE.json", help="keep the search trees, for tokenzero view")
    add_json(parser)


def add_eval(parser: argparse.ArgumentParser) -> None:
    """``tokenzero eval``."""
    parser.set_defaults(command="evaluate")
    add_model(parser)
    add_teachers(parser)
    add_problems(parser)
    add_method(parser)
    parser.add_argument("--overlap", action="store_true", help="BLEU and ROUGE-L against the references too")
    add_json(parser)
