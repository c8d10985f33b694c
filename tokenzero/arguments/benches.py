"""The flags of ``bench depth``, ``bench compare`` and ``bench useful-budget``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import (
    add_json,
    add_model,
    add_opening,
    add_options,
    add_problems,
    add_teachers,
)

METHODS = "names of methods, or all (default: greedy, the checkpoint's search and best-of-n)"


def add_bench_depth(parser: argparse.ArgumentParser) -> None:
    """``tokenzero bench depth``."""
    parser.set_defaults(command="bench_depth")
    add_model(parser)
    add_teachers(parser)
    _add_settings(parser)
    parser.add_argument(
        "--method", metavar="NAME,...", help="as --methods, with greedy (simulations 0) and best-of-n beside"
    )
    parser.add_argument(
        "--against", metavar="NAME", default="best-of-n", help="the reference method (default: best-of-n)"
    )
    parser.add_argument(
        "--most-tokens",
        metavar="T",
        type=float,
        help="leave out what follows a setting of a method that takes more a problem (default: play all)",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="where depth.json, .csv, .png and outcomes.parquet go"
    )
    add_json(parser)


def add_bench_compare(parser: argparse.ArgumentParser) -> None:
    """``tokenzero bench compare``."""
    parser.set_defaults(command="bench_compare")
    parser.add_argument("a", metavar="A", help="a run, a checkpoint directory or a hub name")
    parser.add_argument("b", metavar="B", help="another one, or the same run at an older checkpoint")
    add_opening(parser)
    _add_settings(parser)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="where compare.json, .csv, .png and outcomes.parquet go"
    )
    add_json(parser)


def add_bench_useful_budget(parser: argparse.ArgumentParser) -> None:
    """``tokenzero bench useful-budget``."""
    parser.set_defaults(command="bench_useful_budget")
    add_model(parser)
    parser.add_argument("--method", metavar="NAME", help="default: the checkpoint's search")
    parser.add_argument(
        "--budgets",
        metavar="N,N,...",
        default="1,2,4,8,16,32,64,128,256",
        help="simulations, or samples of a method without a tree (default: 1,2,4,...,256)",
    )
    add_problems(parser, "validation")
    parser.add_argument("--seed", metavar="S[,S,...]", default="1", help="default: 1")
    add_options(parser)
    add_json(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", metavar="NAME,...", help=METHODS)
    parser.add_argument("--simulations", metavar="N,N,...", default="0,4,16,64", help="default: 0,4,16,64")
    parser.add_argument(
        "--samples",
        metavar="N,N,...",
        default="1,2,4,8,16,32,64",
        help="samples, beams or first steps (default: 1,2,4,8,16,32,64)",
    )
    add_problems(parser)
    parser.add_argument("--seed", metavar="S[,S,...]", default="1", help="default: 1")
    add_options(parser)
