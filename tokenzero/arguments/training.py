"""The flags of ``pretrain`` and ``sft``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_json


def add_pretrain(parser: argparse.ArgumentParser) -> None:
    """``tokenzero pretrain``."""
    parser.set_defaults(command="pretrain")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--preset",
        metavar="NAME",
        help="settings that come with the package: shakespeare-char (default), shakespeare-bpe or 124m",
    )
    source.add_argument(
        "--config", metavar="FILE.yaml", help="your settings; 'preset: NAME' in it builds on a preset"
    )
    parser.add_argument(
        "--corpus", metavar="PATH", help="text: a file or a directory of files (default: the preset's)"
    )
    _add_training(parser)


def add_sft(parser: argparse.ArgumentParser) -> None:
    """``tokenzero sft``."""
    parser.set_defaults(command="sft")
    parser.add_argument(
        "model", metavar="MODEL", help="a run directory, a checkpoint directory or a hub name"
    )
    parser.add_argument(
        "--data",
        metavar="FILE[,FILE...]",
        help="rows with a prompt or question, an answer, and maybe reasoning: .jsonl, .csv or .parquet",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="instead of --data: the demonstrations of a task (its task.options by --set)",
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="your settings")
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="change one setting; may be repeated"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, help="seed of everything random (default: the config's)"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="directory of the trained model")
    parser.add_argument("--resume", action="store_true", help="go on with the training in --out")
    add_json(parser)
