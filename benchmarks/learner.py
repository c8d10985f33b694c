"""How fast is an optimiser step of the learner, packed against padded, and where does its time go?

Trains the preset's model, from random weights, on the task's demonstrations: as the task writes them ("even":
lengths are alike), and with every other one cut short at random and lost ("mixed"). Each arm runs in a
process of its own, the arms in turn, several times; with `--against` another checkout of this project learns
the same games in between. A token is one of a sequence: padding counts for nothing.

    python benchmarks/learner.py --threads 1,2 --json learner.json
    python benchmarks/learner.py --against ../before

Wall time is what a user waits for; process time, over all threads, is steadier on a machine that does other
things too. It does not say how well a model learns; the losses show that the arms compute the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from report import emit

ROOT = Path(__file__).resolve().parent.parent
GAMES = 4000
Row = dict[str, Any]


class Stages:
    """Wall seconds by stage, one entry a call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Time every call of ``owner.name`` as ``stage``; no stage may call another."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                self.seconds[stage].append(time.perf_counter() - started)

        setattr(owner, name, timed)


def play(task: Any, student: Any, mixed: bool, seed: int) -> list[Any]:
    """Episodes whose visit distributions are the moves that were made."""
    import numpy as np

    from tokenzero.selfplay.demonstrations import demonstrate

    rng = np.random.default_rng(seed)
    episodes = demonstrate(task, student, GAMES, rng)
    return [cut(e, rng) if mixed and number % 2 else e for number, e in enumerate(episodes)]


def cut(episode: Any, rng: Any) -> Any:
    """The episode, lost at a random move."""
    moves = int(rng.integers(1, len(episode.positions) + 1))
    names = ("positions", "actions", "weights", "root_values", "attribution")
    shorter = {name: getattr(episode, name)[:moves] for name in names}
    tokens = episode.tokens[: episode.prompt_len + moves]
    return replace(episode, tokens=tokens, outcome=-1.0, **shorter)


def measure(options: argparse.Namespace) -> Row:
    """Learn in this process, with whichever package it imports."""
    import torch
    from torch import nn

    torch.set_num_threads(options.measure)
    from tokenzero.config import load_config
    from tokenzero.policy.student import Student
    from tokenzero.policy.tokenizers import from_spec
    from tokenzero.policy.train_state import TrainState
    from tokenzero.selfplay.learner import Learner
    from tokenzero.selfplay.replay import Replay
    from tokenzero.tasks import get_task
    from tokenzero.value import ValueHead

    config = load_config(options.preset)
    task = get_task(config.task.name, **config.task.options)
    student = Student.from_config(config.model.architecture, from_spec(task.tokenizer_spec()), seed=0)
    episodes = play(task, student, options.games == "mixed", options.seed)
    learner = Learner(
        student,
        ValueHead(student.hidden_size, config.model.value),
        task,
        replace(config.learner, steps=options.steps, kl_weight=0.0),
        total_steps=options.steps,
        seed=[options.seed, 1],
    )
    if options.arm == "padded":
        learner._forward.packs = False
    stages = Stages()
    stages.wrap(Replay, "batch", "batch")
    stages.wrap(torch.Tensor, "backward", "backward")
    stages.wrap(nn.utils, "clip_grad_norm_", "optimiser")
    stages.wrap(torch.optim.AdamW, "step", "optimiser")
    stages.wrap(TrainState, "_update_average", "optimiser")
    moments: list[tuple[float, float]] = []
    losses = learner.learn(
        episodes, 0, lambda step: moments.append((time.perf_counter(), time.process_time()))
    )
    wall, process = (
        statistics.median(after[i] - before[i] for before, after in pairwise(moments)) for i in (0, 1)
    )
    # Three calls make the optimiser's share of a step, and the first steps warm up.
    calls = {"batch": 1, "backward": 1, "optimiser": 3}
    shares = {
        stage: statistics.median(
            sum(seconds[i : i + calls[stage]]) for i in range(0, len(seconds), calls[stage])
        )
        for stage, seconds in stages.seconds.items()
    }
    return {
        "wall_s": wall,
        "process_s": process,
        "tokens_per_step": sum(len(e.tokens) for e in episodes)
        / len(episodes)
        * config.learner.optimizer.batch_size,
        **{f"{stage}_s": seconds for stage, seconds in shares.items()},
        "forward_s": wall - sum(shares.values()),
        "policy_loss": losses.policy,
        "value_loss": losses.value,
        "package": str(Path(sys.modules["tokenzero"].__path__[0]).parent),
    }


def measured(options: argparse.Namespace, arm: str, package: Path, games: str, threads: int) -> Row:
    """One measurement in a process that imports the package below ``package``."""
    command = [sys.executable, __file__, "--measure", str(threads), "--arm", arm, "--games", games]
    for name in ("preset", "steps", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(package)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"measuring {package} failed; try: {' '.join(command)}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    if Path(found["package"]).resolve() != package.resolve():
        raise SystemExit(f"{found['package']} was measured instead of {package}")
    return found


def summary(runs: list[Row], arm: str, games: str, threads: int) -> Row:
    """The table's row: medians over the runs."""
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0] if name != "package"}
    wall = middle["wall_s"]
    return {
        "games": games,
        "threads": threads,
        "arm": arm,
        "ms/step": 1e3 * wall,
        "cpu ms/step": 1e3 * middle["process_s"],
        "steps/s": 1.0 / wall,
        "tokens/s": middle["tokens_per_step"] / wall,
        **{
            f"{name} %": 100 * middle[f"{name}_s"] / wall
            for name in ("batch", "forward", "backward", "optimiser")
        },
        "policy loss": middle["policy_loss"],
        "value loss": middle["value_loss"],
    }


def main() -> None:
    """Measure every arm in turn and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--preset", default="countdown")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", default="2", help="numbers of threads, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--arm", default="packed", help=argparse.SUPPRESS)
    parser.add_argument("--games", default="even", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options)))
        return
    arms = {"packed": ROOT, "padded": ROOT}
    if options.against is not None:
        arms["against"] = options.against.resolve()
    rows = []
    for games in ("even", "mixed"):
        for threads in map(int, options.threads.split(",")):
            runs: dict[str, list[Row]] = defaultdict(list)
            for _ in range(options.repeats):
                for arm, package in arms.items():
                    run = measured(options, arm, package, games, threads)
                    runs[arm].append(run)
                    took = f"{1e3 * run['wall_s']:.1f} ms wall, {1e3 * run['process_s']:.1f} ms process"
                    print(f"{games}, {threads} threads, {arm}: {took}", file=sys.stderr, flush=True)
            rows += [summary(runs[arm], arm, games, threads) for arm in arms]
    notes = [
        f"medians of {options.repeats} runs of {options.steps} steps, in turn; % of wall time",
        "forward holds the loss and what is in no other stage",
    ]
    emit("Learner: optimiser steps", rows, options.json, notes)


if __name__ == "__main__":
    main()
