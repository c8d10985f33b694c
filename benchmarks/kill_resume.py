"""Does a run that is killed at a random moment, and resumed, end with the same weights as one that was not?

For each kill a new tiny run is started in a process of its own, gets SIGKILL after a random share of the time
that the whole run takes, and is then resumed to its end. The table shows when it was killed, how many rounds
it had finished by then, and whether every model of the resumed run has the SHA-256 of the uninterrupted one.

    python benchmarks/kill_resume.py --kills 20 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tokenzero.mcts import SearchConfig
from tokenzero.policy.pretrain import PretrainConfig
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.config import EvaluationConfig, ModelConfig, PlayConfig, SelfPlayConfig, TaskConfig
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.selfplay.run import Run, finished_rounds

READY = "ready"


def small_config() -> SelfPlayConfig:
    """Three rounds on three-number Countdown: seconds on one core."""
    optimizer = OptimizerConfig(lr=5e-3, min_lr=1e-3, warmup_steps=5, batch_size=16)
    architecture = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
    }
    options = {"numbers": 3, "high": 6, "target_low": 5, "target_high": 12, "bound": 36, "train": 200}
    return SelfPlayConfig(
        model=ModelConfig(architecture=architecture),
        task=TaskConfig("countdown", options),
        pretrain=PretrainConfig(steps=150, demonstrations=1000, checkpoint_every=25, optimizer=optimizer),
        play=PlayConfig(games=60, games_in_flight=30, search=SearchConfig(simulations=8, candidates=8)),
        learner=LearnerConfig(steps=40, optimizer=optimizer),
        evaluation=EvaluationConfig(problems=50, search_problems=20, simulations=4),
        rounds=3,
        threads=1,
    )


def work(directory: Path) -> None:
    """Start or continue the run, saying on standard output when the first step is about to be made."""
    run = Run(small_config(), directory)
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
    if process.wait() != 0:
        raise SystemExit(f"the run in {directory} failed with exit status {process.returncode}")
    return time.perf_counter() - begun


def killed(directory: Path, longest: float, rng: np.random.Generator) -> float:
    """Start the run and kill it after up to `longest` seconds; returns how many. One that was faster is
    repeated.
    """
    while True:
        moment = float(rng.uniform(0, longest))
        process = started(directory)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                return moment
        longest = moment
        shutil.rmtree(directory)


def weights(directory: Path) -> dict[str, str]:
    """SHA-256 of every model below `directory`, by path."""
    paths = sorted(directory.rglob("model.safetensors"))
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


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
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = finish(Path(folder, "whole"))
        expected = weights(Path(folder, "whole"))
        print(f"uninterrupted: {whole:.1f} s, {len(expected)} models")
        print("kill  after s  rounds finished  resumed s  same weights")
        for kill in range(1, options.kills + 1):
            directory = Path(folder, f"kill-{kill}")
            moment = killed(directory, whole, rng)
            done = finished_rounds(directory)
            seconds = finish(directory)
            same = weights(directory) == expected
            equal += same
            row = f"{kill:4}  {moment:7.2f}  {done:15}  {seconds:9.1f}  {'yes' if same else 'NO'}"
            print(row, flush=True)
    print(f"{equal} of {options.kills} resumed runs ended with the same weights")
    return 0 if equal == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
