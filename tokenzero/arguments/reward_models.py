"""The flags of ``reward-model train`` and ``reward-model eval``."""

from __future__ import annotations

import argparse

from tokenzero.arguments.shared import add_json


def add_reward_model_train(parser: argparse.ArgumentParser) -> None:
    """``tokenzero reward-model train``."""
    parser.set_defaults(command="reward_model", action="train")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preferences", metavar="FILE", help="pairs or rankings: .jsonl, .csv or .parquet")
    source.add_argument("--from-run", metavar="RUN", help="pairs mined from the search trees of a run")
    parser.add_argument("--gap", metavar="D", type=float, help="least difference of values of mined pairs")
    parser.add_argument("--per-problem", metavar="N", type=int, help="most mined pairs of one problem")
    parser.add_argument("--write-preferences", metavar="FILE", help="keep the pairs that were read or mined")
    parser.add_argument(
        "--model", metavar="MODEL|tiny", required=True, help="what to start from; tiny: small random weights"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="directory of the reward model")
    parser.add_argument("--trainer", metavar="NAME", help="own (default) or trl")
    for name, kind in (("epochs", int), ("batch-size", int), ("lr", float), ("patience", int)):
        parser.add_argument(f"--{name}", metavar="N", type=kind)
    parser.add_argument("--held-out", metavar="SHARE", type=float, help="share of the prompts (default: 0.1)")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="longest sequence (default: 1024)")
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    add_json(parser)


def add_reward_model_eval(parser: argparse.ArgumentParser) -> None:
    """``tokenzero reward-model eval``."""
    parser.set_defaults(command="reward_model", action="eval")
    parser.add_argument("model", metavar="DIR", help="directory or hub name of a reward model")
    parser.add_argument("--preferences", metavar="FILE", required=True, help=".jsonl, .csv or .parquet")
    add_json(parser)
