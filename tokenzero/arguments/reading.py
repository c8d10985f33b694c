"""The flags of the verbs that look at what is there: ``report``, ``view``, ``audit``, ``teachers`` and
``doctor``.
"""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_json


def add_report(parser: argparse.ArgumentParser) -> None:
    """``tokenzero report``."""
    parser.set_defaults(command="report")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", metavar="FILE.html", help="where the page goes (default: RUN/report.html)")
    add_json(parser)


def add_view(parser: argparse.ArgumentParser) -> None:
    """``tokenzero view``."""
    parser.set_defaults(command="view")
    parser.add_argument(
        "source", metavar="RUN|TREE.json", help="directory of a run, or what generate --tree wrote"
    )
    parser.add_argument("--out", metavar="FILE.html", required=True, help="where the page goes")
    parser.add_argument(
        "--game", metavar="N", type=int, help="game of the run's newest round, from 0 (default: 0)"
    )
    parser.add_argument(
        "--move",
        metavar="M",
        type=int,
        help="one search of the game alone, from 0 (default: all on the page)",
    )
    for kind, what in (("graphml", "GraphML"), ("dot", "Graphviz DOT"), ("tree", "JSON")):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"write the tree as {what} too")
    add_json(parser)


def add_audit(parser: argparse.ArgumentParser) -> None:
    """``tokenzero audit``."""
    parser.set_defaults(command="audit")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", metavar="FILE.html", help="write a page with charts and samples too")
    add_json(parser)


def add_teachers(parser: argparse.ArgumentParser) -> None:
    """``tokenzero teachers``."""
    parser.set_defaults(command="teachers")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument(
        "--context",
        metavar="NAME",
        help="one context alone, as in countdown/0; global is that of every state",
    )
    parser.add_argument("--out", metavar="FILE", help="draw the weights over rounds: .png or .html")
    add_json(parser)


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """``tokenzero doctor``."""
    parser.set_defaults(command="doctor")
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a run, a checkpoint directory or a hub name: how would it be forwarded?",
    )
    parser.add_argument(
        "--warm", action="store_true", help="compile every kernel now, not in the first search"
    )
    add_json(parser)
