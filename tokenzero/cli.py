"""The command line: verbs, flags, exit codes. 0 is well done, 2 bad usage or input, 1 failure, 130
interrupted.

Results go to stdout, everything else to stderr; a mistake is one line, never a traceback. The verbs
themselves are in ``commands``, their flags in ``arguments``; a verb is imported when it is used, so that
``tokenzero --help`` answers at once.
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

from tokenzero.arguments import answers, benches, reading, reward_models, runs, serving, training


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
    except MemoryError as error:
        return _fail(
            f"not enough memory ({error}); ask for less, for example fewer --simulations or samples", 2
        )
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
    runs.add_selfplay(verbs.add_parser("selfplay", help="improve a model by playing against problems"))
    training.add_pretrain(verbs.add_parser("pretrain", help="train a language model on a corpus"))
    training.add_sft(
        verbs.add_parser("sft", help="fine-tune a model on prompts with answers, and maybe reasoning")
    )
    answers.add_generate(verbs.add_parser("generate", help="answer one prompt"))
    answers.add_eval(verbs.add_parser("eval", help="accuracy of a method on a task's problems"))
    bench = _actions(verbs.add_parser("bench", help="benchmarks"), "BENCH")
    benches.add_bench_depth(bench.add_parser("depth", help="methods side by side: accuracy against cost"))
    benches.add_bench_compare(bench.add_parser("compare", help="two checkpoints on the same problems"))
    benches.add_bench_useful_budget(
        bench.add_parser("useful-budget", help="how many simulations a checkpoint can use")
    )
    serving.add_serve(verbs.add_parser("serve", help="an OpenAI-compatible server of a model"))
    runs.add_compare(verbs.add_parser("compare", help="ways to learn side by side: runs, table and picture"))
    reading.add_report(verbs.add_parser("report", help="a run as one HTML page"))
    reading.add_view(verbs.add_parser("view", help="a search tree as one HTML page, GraphML or DOT"))
    models = _actions(
        verbs.add_parser("reward-model", help="a model that scores answers, from preferences"), "ACTION"
    )
    reward_models.add_reward_model_train(models.add_parser("train", help="train one"))
    reward_models.add_reward_model_eval(models.add_parser("eval", help="how good one is on pairs of answers"))
    reading.add_audit(
        verbs.add_parser("audit", help="signs that a run's rewards, judge or teachers are gamed")
    )
    reading.add_teachers(
        verbs.add_parser("teachers", help="how a run's teachers gained and lost weight, and why")
    )
    reading.add_doctor(verbs.add_parser("doctor", help="check this installation, and how a model runs on it"))
    return parser


def _actions(parser: argparse.ArgumentParser, metavar: str) -> argparse._SubParsersAction[Parser]:
    return parser.add_subparsers(metavar=metavar, required=True, parser_class=Parser)


def _version() -> str:
    from tokenzero import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
