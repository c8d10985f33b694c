"""How fast does self-play go, and where does its time go?

Plays the same games with the same model once for each number of threads, each time in a process of its own,
and says what share of a round is the model's forward, everything around it, and the learner. With `--against`
another checkout of this project plays the same problems side by side, and the table ends with the ratios.

    python benchmarks/selfplay_speed.py --games 6000 --threads 1,2 --json selfplay_speed.json
    python benchmarks/selfplay_speed.py --model runs/demo --against ../before

Without `--model` the preset's warm start is trained first, which takes a minute or two. Searches, verdicts
and forwards are those of the preset; what is timed is one `Player.play` and the conversion to episodes. Wall
time is what a user waits for; process time is steadier on a machine that does other things too. The learner
is timed over some steps and scaled to the steps of a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from report import emit

ROOT = Path(__file__).resolve().parent.parent
LEARNER_STEPS = 30
Row = dict[str, Any]


class Stages:
    """Seconds by stage, each without the stages called from it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[list[Any]] = []

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Time every call of ``owner.name``, if there is such a thing, as ``stage``."""
        inner = getattr(owner, name, None)
        if inner is None:
            return

        def timed(*arguments: Any, **options: Any) -> Any:
            self._enter(stage)
            try:
                return inner(*arguments, **options)
            finally:
                self._leave()

        setattr(owner, name, timed)

    def _enter(self, stage: str) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1][0]] += now - self._running[-1][1]
        self._running.append([stage, now])

    def _leave(self) -> None:
        now = time.perf_counter()
        stage, since = self._running.pop()
        self.seconds[stage] += now - since
        if self._running:
            self._running[-1][1] = now


def measure(options: argparse.Namespace) -> Row:
    """Play and learn in this process, with whichever package it imports."""
    import numpy as np
    import torch

    torch.set_num_threads(options.measure)
    from tokenzero.checkpoint import open_model
    from tokenzero.config import load_config
    from tokenzero.selfplay.episode import from_game
    from tokenzero.selfplay.player import Player

    config = load_config(options.preset)
    parts = open_model(options.model).parts
    train = parts.task.problems("train")
    chosen = np.random.default_rng([options.seed, 0]).integers(len(train), size=options.games).tolist()
    problems = [train[index] for index in chosen]
    player = Player(parts, config.play.search, config.play.leaf, games_in_flight=config.play.games_in_flight)
    # Compiles, imports and fills nothing that the timed games could lean on: other problems, few of them.
    player.play([problem.public for problem in train[:32]], np.random.default_rng(0))
    stages, before = watched(parts), player.ledger.copy()
    started, spent = time.perf_counter(), time.process_time()
    games = player.play([problem.public for problem in problems], np.random.default_rng([options.seed, 1]))
    episodes = [
        from_game(game, 2.0 * parts.task.score(problem, game.text) - 1.0, 0, options.seed)
        for problem, game in zip(problems, games, strict=True)
    ]
    wall, process = time.perf_counter() - started, time.process_time() - spent
    ledger = player.ledger.since(before)
    learner = learner_seconds(options, config, parts, episodes)
    timed = {f"{stage}_s": seconds for stage, seconds in stages.seconds.items()}
    return {
        "threads": options.measure,
        "games": len(games),
        "solved": sum(episode.outcome > 0 for episode in episodes),
        "wall_s": wall,
        "process_s": process,
        "tokens": ledger.forwarded_tokens,
        "simulations": ledger.simulations,
        **timed,
        "rest_s": wall - sum(timed.values()),
        "learner_s": learner,
    }


def watched(parts: Any) -> Stages:
    """Timers around the stages of play; whatever is not in one of them is the player's own.

    An engine with a forward of its own shows it as "engine". Other checkouts may lack some of the parts.
    """
    from tokenzero.policy.student import Student
    from tokenzero.selfplay import evaluator, player

    stages = Stages()
    stages.wrap(Student, "forward", "forward")
    for name in ("prefill", "extend", "release"):
        stages.wrap(parts.engine, name, "engine")
    if hasattr(evaluator, "Outcomes"):
        stages.wrap(evaluator.Outcomes, "read", "verdicts")
    else:
        stages.wrap(parts.task, "verdict", "verdicts")
    for name in ("start", "open", "expand", "keep", "shut"):
        stages.wrap(evaluator.LeafEvaluator, name, "evaluator")
    stages.wrap(player, "search", "search")
    if hasattr(player, "SearchPool"):
        for name in ("plant", "step", "answer"):
            stages.wrap(player.SearchPool, name, "search")
    return stages


def learner_seconds(options: argparse.Namespace, config: Any, parts: Any, episodes: Any) -> float:
    """Process seconds of a round's learner steps, from a few of them."""
    from tokenzero.selfplay.learner import Learner

    few = replace(config.learner, steps=LEARNER_STEPS, kl_weight=0.0)
    learner = Learner(
        parts.student, parts.value_head, parts.task, few, total_steps=LEARNER_STEPS, seed=[options.seed, 2]
    )
    moments: list[float] = []
    learner.learn(episodes, 0, lambda step: moments.append(time.process_time()))
    steps = [after - before for before, after in pairwise(moments)]
    return statistics.median(steps) * config.learner.steps


def measured(options: argparse.Namespace, package: Path, threads: int) -> Row:
    """One measurement in a process that imports the package below ``package``."""
    command = [sys.executable, __file__, "--measure", str(threads), "--model", str(options.model)]
    for name in ("preset", "games", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(package)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"measuring {package} failed; try: {' '.join(command)}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def warm_start(options: argparse.Namespace, directory: Path) -> Path:
    """Train the preset's warm start below ``directory``."""
    from tokenzero.config import load_config
    from tokenzero.selfplay.run import Run

    print("no --model: training the warm start", file=sys.stderr, flush=True)
    Run(load_config(options.preset, overrides=["rounds=0", "evaluation.problems=0"]), directory).execute()
    return directory


def summary(name: str, rows: list[Row]) -> Row:
    """The table's row: medians over the repeats; shares are of a round's play and learning together."""
    middle = {key: statistics.median(row.get(key, 0.0) for row in rows) for key in rows[0]}
    wall, learner = middle["wall_s"], middle["learner_s"]
    return {
        "package": name,
        "threads": int(middle["threads"]),
        "games": int(middle["games"]),
        "solved": int(middle["solved"]),
        "wall s": wall,
        "process s": middle["process_s"],
        "games/s": middle["games"] / wall,
        "tokens/s": middle["tokens"] / wall,
        "model %": 100 * (middle.get("forward_s", 0.0) + middle["engine_s"]) / wall,
        **{
            f"{stage} %": 100 * middle.get(f"{stage}_s", 0.0) / wall
            for stage in ("search", "evaluator", "verdicts", "rest")
        },
        "learner s": learner,
        "play %": 100 * wall / (wall + learner),
    }


def ratio(now: Row, before: Row) -> str:
    """What to say of two rows of the same number of threads."""
    faster = {key: before[key] / now[key] for key in ("wall s", "process s")}
    return (
        f"{now['threads']} threads: {faster['wall s']:.2f} times the games per second of the other package "
        f"(process time {faster['process s']:.2f})"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a run or checkpoint; the default trains a warm start")
    parser.add_argument("--preset", default="countdown")
    parser.add_argument("--games", type=int, default=6000)
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options)))
        return 0
    packages = {"this": ROOT} | ({"other": options.against.resolve()} if options.against else {})
    threads = [int(count) for count in options.threads.split(",")]
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        options.model = options.model or warm_start(options, Path(folder, "run"))
        for repeat in range(options.repeats):
            for count in threads:
                for name, package in packages.items():
                    found[name, count].append(measured(options, package, count))
                    print(
                        f"{repeat + 1}/{options.repeats} {name} {count} threads", file=sys.stderr, flush=True
                    )
    rows = {key: summary(key[0], several) for key, several in found.items()}
    notes = [
        f"medians of {options.repeats}, interleaved; shares of play's wall time, but play % of a round's",
        "model: forwards with their keys and values; learner s is process time of a round's steps",
    ]
    notes += [ratio(rows["this", n], rows["other", n]) for n in threads if ("other", n) in rows]
    emit("self-play", list(rows.values()), options.json, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
