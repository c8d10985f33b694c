"""The flags of ``selfplay`` and ``compare``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_json, add_settings


def add_selfplay(parser: argparse.ArgumentParser) -> None:
    """``tokenzero selfplay``."""
    parser.set_defaults(command="selfplay")
    add_settings(parser)
    parser.add_argument(
        "--seed", metavar="S", type=int, help="seed of everything random (default: the config's)"
    )
    parser.add_argument("--out", metavar="RUN", required=True, help="directory of the run")
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds in all (default: the config's)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    add_json(parser)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """``tokenzero compare``."""
    parser.set_defaults(command="compare")
    add_settings(parser)
    parser.add_argument(
        "--arms", metavar="ARM,ARM,...", help="what to compare; NAME:a.b=c changes a setting of one arm"
    )
    parser.add_argument("--seeds", metavar="S,S,...", help="default: 1,2,3; with --quick 1,2")
    parser.add_argument(
        "--against", metavar="ARM", help="the arm the others are measured by (default: first)"
    )
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds in all (default: the config's)")
    parser.add_argument(
        "--quick", action="store_true", help="half the rounds, half the play and learning in each, two seeds"
    )
    parser.add_argument(
        "--test-problems", metavar="N", type=int, help="the first N of the test split (default: all)"
    )
    parser.add_argument(
        "--no-test", action="store_true", help="leave the test split unread, for tuning on validation"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="where runs and tables go; one that is there is gone on with",
    )
    add_json(parser)
