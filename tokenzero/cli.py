"""The command line: verbs, flags, exit codes. 0 is well done, 2 bad usage or input, 1 failure, 130
interrupted.

Results go to stdout, everything else to stderr; a mistake is one line, never a traceback. The verbs
themselves are in ``commands``; they are imported when they are used, so that ``tokenzero --help`` answers at
once.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn


class UsageError(ValueError):
    """Words on the command line that do not fit its grammar."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line with a hint where to look."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. ``argv`` leaves out the program's name; None reads
    ``sys.argv``.
    """
    return guarded(_command, sys.argv[1:] if argv is None else argv)


def guarded(program: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run ``program`` on ``argv`` with the house's exit codes: what goes wrong is one line on stderr."""
    try:
        with warnings.catch_warnings():
            code = program(argv)
            sys.stdout.flush()
        return code
    except ValueError as error:
        reason = _input_reason(error)
        if reason is None:
            raise
        return _fail(reason, 2)
    except BrokenPipeError:
        # Whoever read our output has gone; without this, the interpreter would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail("output was closed before it was complete", 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error, 1)
    except KeyboardInterrupt:
        return interrupted()


def interrupted(way_on: str = "nothing was changed") -> int:
    """Say that the user stopped it and how to go on; returns the exit code."""
    print(f"tokenzero: interrupted; {way_on}", file=sys.stderr)
    return 130


def _command(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    prepare()
    command = importlib.import_module(f"tokenzero.commands.{arguments.command}")
    gc.freeze()  # what was imported stays; full collections need not walk it again and again
    code: int = command.run(arguments)
    return code


def _fail(message: object, code: int) -> int:
    print(f"tokenzero: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _input_reason(error: ValueError) -> str | None:
    """What is wrong with the input, or None when the error is not about input."""
    from tokenzero.mcts.errors import InputError

    if isinstance(error, (UsageError, InputError)):
        return str(error)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return f"a file of the run or checkpoint is damaged ({error}); restore it or start anew"
    return None


def prepare() -> None:
    """Settings of third parties that must stand before they are first imported.

    Their bars, notices and warnings stay off stderr. Idle OpenMP threads spin for a few microseconds and then
    sleep: spinning on makes small models up to forty times slower as soon as another program wants the same
    cores, sleeping at once makes them twice as slow as they need be.
    """
    warnings.simplefilter("ignore")
    for name, value in (
        ("GOMP_SPINCOUNT", "30000"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
    ):
        os.environ.setdefault(name, value)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tokenzero", description="AlphaZero for token sequences: search, self-play and benchmarks."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    _add_selfplay(verbs.add_parser("selfplay", help="improve a model by playing against problems"))
    _add_generate(verbs.add_parser("generate", help="answer one prompt"))
    _add_eval(verbs.add_parser("eval", help="accuracy of a method on a task's problems"))
    bench = verbs.add_parser("bench", help="benchmarks").add_subparsers(
        metavar="BENCH", required=True, parser_class=Parser
    )
    _add_bench_depth(bench.add_parser("depth", help="accuracy against tokens spent: search beside best-of-N"))
    _add_compare(verbs.add_parser("compare", help="ways to learn side by side: runs, table and picture"))
    _add_report(verbs.add_parser("report", help="a run as one HTML page"))
    reward_model = verbs.add_parser("reward-model", help="a model that scores answers, from preferences")
    actions = reward_model.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    _add_reward_model_train(actions.add_parser("train", help="train one"))
    _add_reward_model_eval(actions.add_parser("eval", help="how good one is on pairs of answers"))
    _add_audit(verbs.add_parser("audit", help="signs that a run's rewards, judge or teachers are gamed"))
    _add_teachers(verbs.add_parser("teachers", help="how a run's teachers gained and lost weight, and why"))
    _add_doctor(verbs.add_parser("doctor", help="check this installation, and how a model runs on it"))
    return parser


def _version() -> str:
    from tokenzero import __version__

    return __version__


def _add_doctor(parser: argparse.ArgumentParser) -> None:
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
    _add_json(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="report")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", metavar="FILE.html", help="where the page goes (default: RUN/report.html)")
    _add_json(parser)


def _add_reward_model_train(parser: argparse.ArgumentParser) -> None:
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
    _add_json(parser)


def _add_reward_model_eval(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="reward_model", action="eval")
    parser.add_argument("model", metavar="DIR", help="directory or hub name of a reward model")
    parser.add_argument("--preferences", metavar="FILE", required=True, help=".jsonl, .csv or .parquet")
    _add_json(parser)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="audit")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", metavar="FILE.html", help="write a page with charts and samples too")
    _add_json(parser)


def _add_teachers(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="teachers")
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument(
        "--context",
        metavar="NAME",
        help="one context alone, as in countdown/0; global is that of every state",
    )
    parser.add_argument("--out", metavar="FILE", help="draw the weights over rounds: .png or .html")
    _add_json(parser)


def _add_selfplay(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="selfplay")
    _add_settings(parser)
    parser.add_argument(
        "--seed", metavar="S", type=int, help="seed of everything random (default: the config's)"
    )
    parser.add_argument("--out", metavar="RUN", required=True, help="directory of the run")
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds in all (default: the config's)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    _add_json(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="compare")
    _add_settings(parser)
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
    _add_json(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
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


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="generate")
    _add_model(parser)
    parser.add_argument("--prompt", metavar="TEXT|-", required=True, help="the problem; - reads stdin")
    _add_method(parser)
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=int, help="longest answer (default: the task's limit)"
    )
    _add_json(parser)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="evaluate")
    _add_model(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument(
        "--problems", metavar="N", type=int, help="the first N problems (default: all of the split)"
    )
    _add_method(parser)
    _add_json(parser)


def _add_bench_depth(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="bench")
    _add_model(parser)
    parser.add_argument("--simulations", metavar="N,N,...", default="0,4,16,64", help="default: 0,4,16,64")
    parser.add_argument("--samples", metavar="N,N,...", default="1,2,4,8,16,32,64", help="sizes of best-of-N")
    parser.add_argument(
        "--method", metavar="NAME,...", help="searches: puct, gumbel, frontier (default: the checkpoint's)"
    )
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument(
        "--problems", metavar="N", type=int, help="the first N problems (default: all of the split)"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="where depth.json, depth.csv and depth.png go"
    )
    _add_json(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a run directory, a checkpoint directory or a hub name"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="what is being solved (default: what the checkpoint was trained on)"
    )
    parser.add_argument(
        "--memory-mb", metavar="MB", type=float, help="most memory for keys and values (default: no cap)"
    )
    parser.add_argument(
        "--no-lean", action="store_true", help="use the Hugging Face forward even where a leaner one is right"
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="greedy, sample, beam, best-of-n, self-consistency, puct, gumbel or frontier "
        "(default: the checkpoint's)",
    )
    parser.add_argument(
        "--simulations",
        metavar="N",
        type=int,
        help="simulations per token; of frontier search play-outs per problem (default: the checkpoint's)",
    )
    parser.add_argument("--n", metavar="N", type=int, help="samples or beams (default: 16)")
    parser.add_argument("--seed", metavar="S", type=int, default=1)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout and nothing else there"
    )


if __name__ == "__main__":
    sys.exit(main())
