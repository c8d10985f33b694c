"""Flags that several verbs have: the model, the method that answers, settings of a run, ``--json``.

It checks no values.
"""

from __future__ import annotations

import argparse


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``, which every verb has."""
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout and nothing else there"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL and how it is opened."""
    parser.add_argument(
        "model", metavar="MODEL", help="a run directory, a checkpoint directory or a hub name"
    )
    add_opening(parser)


def add_opening(parser: argparse.ArgumentParser) -> None:
    """The task and how models are opened."""
    parser.add_argument(
        "--task", metavar="NAME", help="what is being solved (default: what the checkpoint was trained on)"
    )
    parser.add_argument(
        "--memory-mb", metavar="MB", type=float, help="most memory for keys and values (default: no cap)"
    )
    parser.add_argument(
        "--no-lean", action="store_true", help="use the Hugging Face forward even where a leaner one is right"
    )


def add_teachers(parser: argparse.ArgumentParser) -> None:
    """Who helps a search, and how much."""
    parser.add_argument(
        "--teacher",
        metavar="PATH",
        action="append",
        default=[],
        help="an n-gram table, or a model or run, that searches mix into their priors; may be repeated",
    )
    parser.add_argument(
        "--teacher-share", metavar="X", type=float, help="the teachers' share of the prior (default: 0.5)"
    )


def add_problems(parser: argparse.ArgumentParser, split: str = "test") -> None:
    """Which problems are played."""
    parser.add_argument("--split", default=split, help=f"train, validation or test (default: {split})")
    parser.add_argument(
        "--problems", metavar="N", type=int, help="the first N problems (default: all of the split)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a run."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--preset", metavar="NAME", help="settings that come with the package (default: countdown)"
    )
    source.add_argument(
        "--config", metavar="FILE.yaml", help="your settings; 'preset: NAME' in it builds on a preset"
    )
    parser.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="change one setting; may be repeated"
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """The method that answers, what it may cost, and its options."""
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="greedy, sample, beam, best-of-n, self-consistency, step-beam, dvts, puct, gumbel or frontier "
        "(default: the checkpoint's)",
    )
    parser.add_argument(
        "--simulations",
        metavar="N",
        type=int,
        help="simulations per move; of frontier search play-outs per problem "
        "(default: the checkpoint's useful budget where it was measured, else its own)",
    )
    parser.add_argument("--n", metavar="N", type=int, help="samples, beams or first steps (default: 16)")
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    cost = parser.add_argument_group("budget", "the best answer so far is given when it is spent")
    cost.add_argument("--tokens", metavar="N", type=int, help="most tokens forwarded, prompt included")
    cost.add_argument("--seconds", metavar="S", type=float, help="most time, for all that is asked together")
    add_options(parser)
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="ends the answer; may be repeated"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of methods. Each goes to ``MethodConfig`` under its own name; None was not given."""
    options = parser.add_argument_group("options of methods")
    options.add_argument("--granularity", metavar="KIND", help="a search's action: token, step, environment")
    options.add_argument("--delimiter", metavar="TEXT", help="ends a step")
    options.add_argument("--step-tokens", metavar="N", type=int, help="longest step")
    options.add_argument("--proposals", metavar="N", type=int, help="steps sampled at a state")
    options.add_argument(
        "--choose", metavar="BY", help="best-of-n's choice: verifier, value, judge or likelihood"
    )
    options.add_argument("--vote", metavar="BY", help="self-consistency's ballots: count, likelihood, value")
    options.add_argument("--length-penalty", metavar="X", type=float, help="of beams")
    options.add_argument("--groups", metavar="N", type=int, help="groups of diverse beams")
    options.add_argument("--diversity", metavar="X", type=float, help="penalty between groups of beams")
    drawing = parser.add_argument_group("how tokens are drawn")
    for name, kind in SAMPLING.items():
        flag = f"--{name.replace('_', '-')}"
        drawing.add_argument(flag, dest=f"sampling_{name}", metavar="X" if kind is float else "N", type=kind)
    parser.add_argument(
        "--set",
        metavar="a.b=c",
        action="append",
        default=[],
        help="any other option of the method, as in sampling.temperature_end=0.3; may be repeated",
    )


SAMPLING = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
}
"""The fields of ``Sampling`` that have flags of their own."""
OPTIONS = (
    "granularity",
    "delimiter",
    "step_tokens",
    "proposals",
    "choose",
    "vote",
    "length_penalty",
    "groups",
    "diversity",
)
"""The fields of ``MethodConfig`` that ``add_options`` has flags for."""
