"""The flags of ``serve``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_model


def add_serve(parser: argparse.ArgumentParser) -> None:
    """``tokenzero serve``."""
    parser.set_defaults(command="serve")
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument(
        "--port", metavar="N", type=int, default=8000, help="default: 8000; 0 takes a free one"
    )
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="keys of which requests must bear one, one a line"
    )
    parser.add_argument("--name", help="the model's name in requests (default: that of its directory)")
    parser.add_argument("--places", metavar="N", type=int, help="answers in play at a time (default: 64)")
    parser.add_argument(
        "--max-waiting", metavar="N", type=int, help="answers that may wait before 429 (default: 1024)"
    )
    parser.add_argument("--max-body-mb", metavar="MB", type=float, help="largest request (default: 4)")
    parser.add_argument(
        "--timeout-s",
        metavar="S",
        type=float,
        help="time after which the best so far is given (default: 600)",
    )
    parser.add_argument(
        "--drain-s", metavar="S", type=float, help="time to finish when told to stop (default: 30)"
    )
    parser.add_argument(
        "--keep-trees", metavar="N", type=int, help="search trees kept for /trees/ID (default: none)"
    )
