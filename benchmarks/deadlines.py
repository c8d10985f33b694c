"""How well is a deadline kept, and what is more time worth?

Each problem is answered alone, by frontier search, Gumbel search and best-of-N with more budget than they can
spend, under deadlines of several lengths: through Python, and through `tokenzero serve`. Overshoot is the
time from the deadline to the answer; beside it stands how long a forward of the same games took. Answers that
were found right before the deadline are left out of the overshoot, not of the accuracy.

python benchmarks/deadlines.py runs/demo --problems 100
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from report import emit
from served_process import serve

from tokenzero.answering import build_method
from tokenzero.checkpoint import Opened, open_model
from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.selfplay.methods import Budget, MethodConfig
from tokenzero.tasks import Problem

MILLISECONDS = (50, 200, 1000)
SIMULATIONS, SAMPLES = 4000, 256
METHODS = (
    MethodConfig("frontier", simulations=SIMULATIONS),
    MethodConfig("gumbel", simulations=SIMULATIONS),
    MethodConfig("best-of-n", n=SAMPLES),
)
OPTIONS = {"frontier": "simulations", "gumbel": "simulations", "best-of-n": "n"}


class Timed:
    """An engine whose forwards are timed, in seconds; everything else is the engine's own."""

    def __init__(self, engine: Engine) -> None:
        self.ledger = engine.ledger
        self.seconds: list[float] = []
        self._engine = engine

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        return self._timed(self._engine.prefill, prompts)

    def extend(self, states: Ids, tokens: Ids) -> Step:
        return self._timed(self._engine.extend, states, tokens)

    def release(self, states: Ids) -> None:
        self._engine.release(states)

    def _timed(self, forward: Callable[..., Step], *arguments: Any) -> Step:
        started = time.perf_counter()
        made = forward(*arguments)
        self.seconds.append(time.perf_counter() - started)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Answered(NamedTuple):
    """Whether an answer was right, why it ended, and the seconds it took."""

    solved: bool
    end: str
    took: float


def in_python(
    opened: Opened, config: MethodConfig, problems: Sequence[Problem], seconds: float
) -> list[Answered]:
    """Each problem alone, under the deadline."""
    method = build_method(opened, config)
    task, found = opened.parts.task, []
    for seed, problem in enumerate(problems):
        rng = np.random.default_rng(seed)
        started = time.perf_counter()
        game = method.play([problem.public], rng, budget=Budget(seconds=seconds))[0]
        took = time.perf_counter() - started
        found.append(Answered(task.score(problem, game.text) == 1.0, game.end, took))
    return found


def through_server(
    url: str, opened: Opened, config: MethodConfig, problems: Sequence[Problem], seconds: float
) -> list[Answered]:
    """The same through HTTP, as the client's clock has it."""
    name = config.method or ""
    options = {OPTIONS[name]: getattr(config, OPTIONS[name])}
    search = {"method": name, "deadline_ms": 1000 * seconds, **options}
    found = []
    for seed, problem in enumerate(problems):
        sent = json.dumps({"prompt": problem.public.prompt, "seed": seed, "search": search}).encode()
        asked = urllib.request.Request(f"{url}/v1/completions", sent, {"Content-Type": "application/json"})
        started = time.perf_counter()
        with urllib.request.urlopen(asked) as response:
            choice = json.load(response)["choices"][0]
        took = time.perf_counter() - started
        solved = opened.parts.task.score(problem, choice["text"]) == 1.0
        found.append(Answered(solved, choice["search"]["end"], took))
    return found


def row(way: str, method: str, milliseconds: int, made: Sequence[Answered]) -> dict[str, Any]:
    """One line of the table."""
    over = [1000 * one.took - milliseconds for one in made if one.end == "budget"]
    return {
        "way": way,
        "method": method,
        "deadline ms": milliseconds,
        "accuracy": float(np.mean([one.solved for one in made])),
        "cut off": len(over),
        "overshoot p50 ms": float(np.percentile(over, 50)) if over else None,
        "overshoot p99 ms": float(np.percentile(over, 99)) if over else None,
        "late without a cut": sum(1000 * o.took > milliseconds for o in made if o.end != "budget"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="run or checkpoint directory")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    opened = open_model(arguments.model)
    problems = opened.parts.task.problems("test")[: arguments.problems]
    timed = Timed(opened.parts.engine)
    inside = replace(opened, parts=replace(opened.parts, engine=timed))  # type: ignore[arg-type]
    rows: list[dict[str, Any]] = []
    for config in METHODS:
        in_python(inside, config, problems[:2], 0.2)  # compiles what is compiled at first use
        for milliseconds in MILLISECONDS:
            timed.seconds.clear()
            made = in_python(inside, config, problems, milliseconds / 1000)
            forwards = 1000 * np.asarray(timed.seconds)
            spread = {
                "forward p50 ms": np.percentile(forwards, 50),
                "forward p99 ms": np.percentile(forwards, 99),
            }
            shown = {name: float(value) for name, value in spread.items()}
            rows.append({**row("Python", config.method or "", milliseconds, made), **shown})
    with serve(arguments.model) as served:
        for config in METHODS:
            through_server(served.url, opened, config, problems[:2], 0.2)
            for milliseconds in MILLISECONDS:
                made = through_server(served.url, opened, config, problems, milliseconds / 1000)
                rows.append(row("server", config.method or "", milliseconds, made))
    emit(f"Deadlines, {len(problems)} problems one at a time", rows, arguments.json)


if __name__ == "__main__":
    main()
