"""Does a run that is killed at a random moment, and resumed, end as one that was not?

For each kill a new tiny run is started in a process of its own, gets SIGKILL after a random share of the time
that the whole run takes, and is then resumed to its end. The table shows when and during which stage it was
killed, how many rounds it had finished by then, and whether every file of the resumed run but the lock has
the SHA-256 of the uninterrupted one: weights, optimiser, games, records; seconds apart, which no two runs
share.

    python benchmarks/kill_resume.py --kills 50 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.mcts import SearchConfig
from tokenzero.policy.pretrain import PretrainConfig
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.config import EvaluationConfig, ModelConfig, PlayConfig, SelfPlayConfig, TaskConfig
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.selfplay.listener import Record
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import finished_records, finished_rounds

READY = "ready"


def small_config() -> SelfPlayConfig:
    """Four rounds on three-number Countdown, with an arena and old checkpoints deleted: seconds on one
    core.
    """
    optimizer = OptimizerConfig(lr=5e-3, min_lr=1e-3, warmup_steps=5, batch_size=16)
    architecture = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
    }
    options = {"numbers": 3, "high": 4, "target_low": 3, "target_high": 9, "bound": 36, "train": 60}
    return SelfPlayConfig(
        model=ModelConfig(architecture=architecture),
        task=TaskConfig("countdown", options),
        pretrain=PretrainConfig(steps=150, demonstrations=1000, checkpoint_every=25, optimizer=optimizer),
        play=PlayConfig(games=60, games_in_flight=30, search=SearchConfig(simulations=8, candidates=8)),
        learner=LearnerConfig(steps=40, value_warmup=40, optimizer=optimizer),
        evaluation=EvaluationConfig(problems=50, search_problems=20, simulations=4),
        arena=ArenaConfig(
            max_problems=100, margin=0.3, alpha=0.45, simulations=4, ladder=1, ladder_problems=50
        ),
        keep=RetentionConfig(last=2),
        rounds=4,
        threads=1,
    )


class Telling:
    """A listener that says on standard output which stage begins, and when a round is being written."""

    def stage(self, name: str, total: int) -> None:
        print(name, flush=True)
        self.left = total

    def advance(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            print("between stages", flush=True)

    def record(self, record: Record) -> None: ...


def work(directory: Path) -> None:
    """Start or continue the run, saying on standard output what it is about to do."""
    run = Run(small_config(), directory, Telling())
    print(READY, flush=True)
    run.execute(resume=True)


def started(directory: Path) -> subprocess.Popen[str]:
    """A process at work on the run, past its imports."""
    command = [sys.executable, __file__, "--work", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        raise SystemExit(f"the run in {directory} did not start; try: {' '.join(command)}")
    return process


def finish(directory: Path) -> float:
    """Run to the end; returns the seconds it took."""
    process = started(directory)
    begun = time.perf_counter()
    process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the run in {directory} failed with exit status {process.returncode}")
    return time.perf_counter() - begun


def killed(directory: Path, longest: float, rng: np.random.Generator) -> tuple[float, str]:
    """Start the run and kill it after up to `longest` seconds; returns how many, and the stage it was in. One
    that was faster is repeated.
    """
    while True:
        moment = float(rng.uniform(0, longest))
        process = started(directory)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            said = process.communicate()[0].split("\n")
            if process.returncode == -signal.SIGKILL:
                return moment, ([line for line in said if line] or ["opening"])[-1]
        longest = moment
        shutil.rmtree(directory)


def without_seconds(value: Any) -> Any:
    """JSON without what no two runs share: seconds, and the sums of files that hold some."""
    if isinstance(value, list):
        return [without_seconds(item) for item in value]
    if not isinstance(value, dict):
        return value
    timed = ("wall_s", "sha256") if "format" in value else ("wall_s",)
    return {
        key: without_seconds(item)
        for key, item in value.items()
        if key not in timed and not key.endswith("/round.json")
    }


def content(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below `directory` but the lock, by path."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name == "lock":
            continue
        data = path.read_bytes()
        if path.name in ("manifest.json", "round.json", "metrics.jsonl"):
            text = data.decode()
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            data = json.dumps([without_seconds(json.loads(line)) for line in lines]).encode()
        found[str(path.relative_to(directory))] = hashlib.sha256(data).hexdigest()
    return found


def main() -> int:
    """Print the table; exit status 1 if any resumed run differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work)
        return 0
    rng = np.random.default_rng(options.seed)
    equal, stages = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        whole = finish(Path(folder, "whole"))
        expected = content(Path(folder, "whole"))
        promoted = [
            record["round"] for record in finished_records(Path(folder, "whole")) if record["promoted"]
        ]
        print(f"uninterrupted: {whole:.1f} s, {len(expected)} files, promoted rounds {promoted}")
        print("kill  after s  during            rounds finished  resumed s  same files")
        for kill in range(1, options.kills + 1):
            directory = Path(folder, f"kill-{kill}")
            moment, stage = killed(directory, whole, rng)
            stages[stage] += 1
            done = finished_rounds(directory)
            seconds = finish(directory)
            same = content(directory) == expected
            equal += same
            row = f"{kill:4}  {moment:7.2f}  {stage:16}  {done:15}  {seconds:9.1f}  {'yes' if same else 'NO'}"
            print(row, flush=True)
            if same:
                shutil.rmtree(directory)
    print("killed during: " + ", ".join(f"{stage} {count}" for stage, count in stages.most_common()))
    print(f"{equal} of {options.kills} resumed runs ended with the same files")
    return 0 if equal == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
