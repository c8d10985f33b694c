"""One run of a comparison in a process of its own: ``python -m tokenzero.compare_job``.

It is told what to do by one line of JSON on stdin and tells how it goes by lines of JSON on stdout. stdin
stays open: when its other end closes, whoever started this process is gone, and it ends too, at once; a run
may be killed anywhere. It does not know which other runs there are.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenzero.cli import guarded, prepare

if TYPE_CHECKING:
    from tokenzero.selfplay.config import SelfPlayConfig

TEST_FILE = "test.json"
Tell = Callable[[dict[str, Any]], None]


class Telling:
    """A ``Listener`` that passes on which stage is running and each finished round."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._round = 0

    def stage(self, name: str, total: int) -> None:
        """A stage begins."""
        self._tell({"stage": name})

    def advance(self, count: int) -> None:
        """Steps and games are too many to pass on."""

    def record(self, record: dict[str, Any]) -> None:
        """A round is finished."""
        self._tell({"record": record})


def main(argv: Sequence[str] | None = None) -> int:
    """Do what stdin says; returns the exit code, as the command line does."""
    return guarded(_main, sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_other_end, daemon=True).start()
    # What a library prints must not get between the lines that are read.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=messages, flush=True)

    prepare()
    _execute(order, tell)
    return 0


def _end_with_the_other_end() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _execute(order: dict[str, Any], tell: Tell) -> None:
    from tokenzero.config import Layer, bind
    from tokenzero.mcts.errors import InputError
    from tokenzero.selfplay.config import SelfPlayConfig
    from tokenzero.selfplay.run import Run

    os.chdir(order["directory"])  # the student to start from is named from there
    config = bind(SelfPlayConfig, order["config"], [Layer("config", {})])
    run = Path(order["run"])
    records = Run(config, run, Telling(tell)).execute(resume=True)
    if len(records) <= config.rounds:
        raise InputError(f"an alarm stopped it after round {records[-1]['round']} ({_alarms(records[-1])})")
    if order["reads_test"] and not (run / TEST_FILE).is_file():
        tell({"stage": "test"})
        tell({"test": read_test(run, config, int(records[-1]["incumbent"]), order["test_problems"])})


def _alarms(record: dict[str, Any]) -> str:
    return ", ".join(str(alarm["name"]) for alarm in record["alarms"])


def read_test(run: Path, config: SelfPlayConfig, chosen: int, problems: int | None) -> dict[str, Any]:
    """Answer the first ``problems`` (None: all) of the test split greedily with the checkpoint of round
    ``chosen`` of ``run``; keep the result in ``run``/test.json.

    It has ``split``, ``asked`` (the argument), ``problems``, ``round``, ``accuracy``, ``solved`` (one digit a
    problem, 1 where solved) and ``ledger``.

    Raises InputError where there are no test problems, OutputError where it cannot be kept.
    """
    import numpy as np

    from tokenzero.checkpoint import open_model
    from tokenzero.policy.atomic import write_text
    from tokenzero.problem_choice import first_problems
    from tokenzero.selfplay.methods import greedy
    from tokenzero.selfplay.run_directory import checkpoint_path

    parts = open_model(checkpoint_path(run, chosen), engine=config.engine).parts
    asked = first_problems(parts.task, "test", problems)
    method = greedy(parts)
    games = method.play([problem.public for problem in asked], np.random.default_rng(config.seed))
    solved = [parts.task.score(p, game.text) >= 1.0 for p, game in zip(asked, games, strict=True)]
    result = {
        "split": "test",
        "asked": problems,
        "problems": len(asked),
        "round": chosen,
        "accuracy": sum(solved) / len(solved),
        "solved": "".join("1" if one else "0" for one in solved),
        "ledger": method.ledger.as_dict(),
    }
    write_text(run / TEST_FILE, json.dumps(result) + "\n")
    return result


if __name__ == "__main__":
    sys.exit(main())
