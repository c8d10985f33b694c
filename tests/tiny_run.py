"""A self-play run small enough to be repeated many times, its fingerprint, and a process that kills itself in
it.

As a program: `tiny_run.py DIRECTORY EVENT N` starts or continues the run in DIRECTORY and sends itself
SIGKILL at the N-th EVENT: "step" (a step or game is done) or "file" (a file is opened, made, renamed or
removed there).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tokenzero.mcts import SearchConfig
from tokenzero.policy.pretrain import PretrainConfig
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.config import (
    EvaluationConfig,
    ModelConfig,
    PlayConfig,
    SelfPlayConfig,
    TaskConfig,
)
from tokenzero.selfplay.evaluator import LeafConfig
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.run import Run
from tokenzero.teachers import EnsembleConfig
from tokenzero.teachers.checkpoint import CheckpointConfig
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.value.judge_config import RulesJudgeConfig
from tokenzero.value.reward_config import LengthRewardConfig, VerifierRewardConfig

OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, batch_size=16, ema=0.9)


def tiny_config() -> SelfPlayConfig:
    """Everything a run can use, switched on, on a few three-number Countdown problems."""
    return SelfPlayConfig(
        model=ModelConfig(
            architecture={
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 24,
                "tie_word_embeddings": True,
            }
        ),
        task=TaskConfig(
            "countdown",
            {
                "numbers": 3,
                "high": 4,
                "target_low": 3,
                "target_high": 9,
                "bound": 16,
                "train": 60,
                "validation": 12,
                "test": 12,
            },
        ),
        pretrain=PretrainConfig(steps=60, demonstrations=300, checkpoint_every=25, optimizer=OPTIMIZER),
        play=PlayConfig(
            games=16,
            games_in_flight=16,
            search=SearchConfig(simulations=8, candidates=8),
            leaf=LeafConfig(rollout_share=0.1, judge_eta=0.1),
        ),
        teachers=[NgramConfig(order=3), CheckpointConfig(lag=1)],
        ensemble=EnsembleConfig(beta=0.2, visits=2, stages=2),
        judge=RulesJudgeConfig(rules={"too_long:12": -1}),
        rewards=[VerifierRewardConfig(), LengthRewardConfig(weight=0.0, budget_start=12, budget_end=8)],
        learner=LearnerConfig(steps=4, window=2, value_warmup=5, kl_weight=0.1, optimizer=OPTIMIZER),
        evaluation=EvaluationConfig(problems=10, search_problems=5, simulations=3),
        arena=ArenaConfig(
            max_problems=8, batch=4, margin=0.5, alpha=0.2, simulations=2, ladder=1, ladder_problems=4
        ),
        keep=RetentionConfig(best=0, last=2),
        rounds=3,
        seed=5,
        threads=1,
    )


def without_time(record: Any) -> Any:
    """The record without the seconds, which no two runs share."""
    if isinstance(record, list):
        return [without_time(value) for value in record]
    if not isinstance(record, dict):
        return record
    return {key: without_time(value) for key, value in record.items() if key != "wall_s"}


def fingerprint(directory: Path) -> dict[str, str]:
    """SHA-256 of everything a run leaves behind, by path; the records without their seconds."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            for entry in manifest["rounds"]:
                entry["record"] = without_time(entry["record"])
                entry["checkpoint"] = {k: v for k, v in entry["checkpoint"].items() if "round.json" not in k}
            content = json.dumps({**manifest, "sha256": ""}).encode()
        if path.suffix == ".jsonl" or path.name == "round.json":
            records = [without_time(json.loads(line)) for line in content.decode().splitlines()]
            content = json.dumps(records).encode()
        found[str(path.relative_to(directory))] = hashlib.sha256(content).hexdigest()
    return found


class Countdown:
    """A listener that calls `end` at the n-th thing it hears."""

    def __init__(self, n: int, end: Any) -> None:
        self.left = n
        self._end = end

    def stage(self, name: str, total: int) -> None:
        self.tick()

    def advance(self, count: int) -> None:
        self.tick()

    def record(self, record: dict[str, Any]) -> None:
        self.tick()

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._end()


class AtStage:
    """A listener that calls `end` when the n-th stage of that name begins."""

    def __init__(self, name: str, n: int, end: Any) -> None:
        self._name, self._left, self._end = name, n, end

    def stage(self, name: str, total: int) -> None:
        self._left -= name == self._name
        if name == self._name and self._left == 0:
            self._end()

    def advance(self, count: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...


def _killed_at(directory: Path, event: str, n: int) -> None:
    countdown = Countdown(n, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if event == "step":
        Run(tiny_config(), directory, countdown).execute(resume=True)
        return
    below = str(directory)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and str(
            arguments[0]
        ).startswith(below):
            countdown.tick()

    sys.addaudithook(hook)
    Run(tiny_config(), directory).execute(resume=True)


if __name__ == "__main__":
    _killed_at(Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3]))
