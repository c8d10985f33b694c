"""Which alarms of a run's health are raised by which failure, and whether healthy runs are left alone.

For each seed a tiny run makes a warm start, and runs go on from it: a healthy one, and one for each way to
spoil it. The first table shows in which rounds each alarm was raised, the second the extremes of every
measure beside its threshold, which is where the defaults of `selfplay/health.py` come from.

    OMP_NUM_THREADS=1 python benchmarks/health_alarms.py --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from report import emit

from tokenzero.cli import prepare
from tokenzero.config import load_config, preset_names
from tokenzero.selfplay.config import ModelConfig, SelfPlayConfig, TaskConfig
from tokenzero.selfplay.health import ALARMS, HealthConfig
from tokenzero.selfplay.learner import Learner
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path

Record = dict[str, Any]
Changed = Callable[[SelfPlayConfig], SelfPlayConfig]


class Shuffled(Learner):
    """Learns each state's value from the outcome of another."""

    def _loss(self, batch: Any, *rest: Any) -> Any:
        targets = batch.value_targets
        order = np.random.default_rng(len(targets)).permutation(len(targets))
        return super()._loss(batch._replace(value_targets=targets[torch.from_numpy(order)]), *rest)


class Sharpened(Learner):
    """Learns with a negative entropy bonus, which the configuration refuses."""

    BONUS = -10.0

    def _loss(self, *arguments: Any) -> Any:
        forward, outputs = self._forward, []

        def keeping(*given: Any) -> Any:
            outputs.append(forward(*given))
            return outputs[-1]

        self._forward = keeping  # type: ignore[assignment]
        try:
            total, terms = super()._loss(*arguments)
        finally:
            self._forward = forward
        log_policy = outputs[0].logits.log_softmax(-1)
        entropy = -(log_policy.exp() * log_policy).sum(1).mean()
        return total - self.BONUS * entropy, terms


class Overweighed(Learner):
    """From the third round on, learns with twenty times the loss."""

    def learn(self, episodes: Any, round_index: int, on_step: Any = None) -> Any:
        self._weight = 20.0 if round_index >= 3 else 1.0
        return super().learn(episodes, round_index, on_step)

    def _loss(self, *arguments: Any) -> Any:
        total, terms = super()._loss(*arguments)
        return self._weight * total, terms


def unchanged(config: SelfPlayConfig) -> SelfPlayConfig:
    """The configuration as it is."""
    return config


def rushed(config: SelfPlayConfig) -> SelfPlayConfig:
    """No weight average and twenty times the learning rate."""
    plain = config.learner.optimizer
    fast = replace(plain, lr=20 * plain.lr, min_lr=20 * plain.min_lr, ema=0.0)
    return replace(config, learner=replace(config.learner, optimizer=fast))


def one_problem(config: SelfPlayConfig) -> SelfPlayConfig:
    """As many games as before, all on one problem."""
    return replace(config, task=TaskConfig(config.task.name, {**config.task.options, "train": 1}))


def by_heart(config: SelfPlayConfig) -> SelfPlayConfig:
    """A few games, learnt over and over and always in the same words."""
    learner = replace(config.learner, steps=5 * config.learner.steps, augment=False)
    return replace(config, play=replace(config.play, games=30), learner=learner)


@dataclass(frozen=True)
class Failure:
    """A way to spoil a run: another configuration, or another learner."""

    change: Changed = unchanged
    learner: type[Learner] = Learner


HEALTHY = "healthy"
FAILURES = {
    HEALTHY: Failure(),
    "no EMA, lr x20": Failure(change=rushed),
    "negative entropy bonus": Failure(learner=Sharpened),
    "value targets shuffled": Failure(learner=Shuffled),
    "one problem repeated": Failure(change=one_problem),
    "few games by heart": Failure(change=by_heart),
    "loss x20 from round 3": Failure(learner=Overweighed),
}


def spoiled(start: Path, config: SelfPlayConfig, failure: Failure, directory: Path) -> list[Record]:
    """Records of the rounds of a run that begins with the warm start ``start``."""
    config = replace(
        config,
        model=ModelConfig(load=str(checkpoint_path(start, 0))),
        pretrain=replace(config.pretrain, steps=0, demonstrations=0),
    )
    with patch("tokenzero.selfplay.run.Learner", failure.learner):
        return Run(failure.change(config), directory).execute()[1:]


def raised(records: Sequence[Record]) -> str:
    """Every alarm with the rounds in which it was raised."""
    found: dict[str, list[str]] = {}
    for record in records:
        for alarm in record["alarms"]:
            found.setdefault(alarm["name"], []).append(str(record["round"]))
    return "; ".join(f"{name} {','.join(found[name])}" for name in ALARMS if name in found)


def judged(records: Sequence[Record]) -> list[Record]:
    """The measures of a run's rounds as thresholds see them: some relative to others, some not in round 1."""
    rounds = [record["health"] for record in records]
    seen = []
    for number, health in enumerate(rounds):
        found = dict(health)
        for name in ("gradient_norm", "target_entropy"):
            before = [past[name] for past in rounds[:number]]
            found[name] = found[name] / median(before) if before else None
        unit = found.pop("value_loss_seen", None)
        found["value_loss_unseen"] = found["value_loss_unseen"] / unit if unit else None
        if not number:
            found["value_calibration_error"] = found["value_explained_variance"] = None
        seen.append(found)
    return seen


def extremes(measured: dict[str, list[Record]]) -> list[dict[str, Any]]:
    """For every measure its threshold and, by kind of run, the least and the greatest value of any round."""
    rows = []
    for name in ALARMS[1:]:
        row: dict[str, Any] = {"measure": name, "threshold": getattr(HealthConfig(), name)}
        for kind, rounds in measured.items():
            values = [health[name] for health in rounds if health.get(name) is not None]
            row[kind] = f"{min(values):.2g} .. {max(values):.2g}" if values else "-"
        rows.append(row)
    return rows


def main() -> int:
    """Print both tables; exit status 1 if a healthy run raised an alarm or a spoiled one did not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--preset", choices=preset_names(), default="countdown-quick")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--runs", nargs="+", choices=list(FAILURES), default=list(FAILURES))
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    prepare()
    rows, wrong = [], 0
    measured: dict[str, list[Record]] = {name: [] for name in options.runs}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            changes = ["evaluation.search_problems=0", *options.changes, f"seed={seed}"]
            config = load_config(options.preset, overrides=changes)
            start = Path(folder, f"start-{seed}")
            Run(replace(config, rounds=0), start).execute()
            for number, name in enumerate(options.runs):
                records = spoiled(start, config, FAILURES[name], Path(folder, f"{seed}-{number}"))
                measured[name] += judged(records)
                alarms = raised(records)
                accuracy = records[-1]["greedy_accuracy"]
                rows.append({"run": name, "seed": seed, "accuracy": accuracy, "alarms (rounds)": alarms})
                wrong += bool(alarms) == (name == HEALTHY)
    emit(f"alarms, preset {options.preset}", sorted(rows, key=lambda row: options.runs.index(row["run"])))
    emit("least and greatest of any round", extremes(measured), options.json)
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main())
