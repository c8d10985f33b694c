"""``tokenzero reward-model train`` and ``tokenzero reward-model eval``: a pairwise reward model from
preference files or from a run's search trees, and how good it is on pairs.

The JSON object of ``train`` is {"out", "model", "version", "training"} with ``TrainingReport``'s fields, that
of ``eval`` {"model", "version", "file", "report"} with ``RewardReport``'s.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenzero.checkpoint import resolve
from tokenzero.mcts.errors import InputError
from tokenzero.progress import Progression, percent, print_table, showing
from tokenzero.selfplay.preference_mining import MiningConfig, mine_run
from tokenzero.value.preferences import Preference, read_preferences, write_preferences
from tokenzero.value.reward_metrics import RewardReport, reward_report
from tokenzero.value.reward_model import RewardModel, RewardSettings, tiny_reward_model
from tokenzero.value.reward_training import (
    Epoch,
    RewardTrainingConfig,
    TrainingReport,
    check_target,
    save_trained,
    train_reward_model,
)

TINY = "tiny"
TINY_LR = 1e-3
"""Learning rate of random weights, where nobody gives one."""


def run(arguments: argparse.Namespace) -> int:
    """Train or evaluate, as the command line says."""
    return _evaluate(arguments) if arguments.action == "eval" else _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    out = Path(arguments.out)
    check_target(out)
    preferences = _preferences(arguments)
    if arguments.write_preferences is not None:
        write_preferences(arguments.write_preferences, preferences)
    model = _backbone(arguments, preferences)
    with showing() as shown:
        shown.stage("training", config.epochs * len(preferences))
        report = train_reward_model(
            model, preferences, config, on_step=shown.advance, on_epoch=lambda epoch: _say(shown, epoch)
        )
    save_trained(model, report, out)
    if arguments.json:
        words: dict[str, Any] = {"out": str(out), "model": arguments.model, "version": model.version}
        print(json.dumps({**words, "training": report.as_dict()}))
    else:
        print_table(("", "value"), _training_rows(report), f"reward model {out}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    preferences = read_preferences(arguments.preferences)
    model = RewardModel.load(arguments.model)
    prompts = [one.prompt for one in preferences]
    with showing() as shown:
        shown.stage("scoring", 2 * len(preferences))
        chosen = model.score(prompts, [one.chosen for one in preferences])
        shown.advance(len(preferences))
        rejected = model.score(prompts, [one.rejected for one in preferences])
    report = reward_report(preferences, chosen, rejected)
    if arguments.json:
        words = {"model": arguments.model, "version": model.version, "file": arguments.preferences}
        print(json.dumps({**words, "tokens": model.tokens, "report": report.as_dict()}))
    else:
        print_table(("", "value"), _report_rows(report), f"{arguments.model} on {arguments.preferences}")
    return 0


def _config(arguments: argparse.Namespace) -> RewardTrainingConfig:
    asked = ("trainer", "epochs", "batch_size", "lr", "held_out", "patience", "seed")
    given = {name: value for name in asked if (value := getattr(arguments, name)) is not None}
    if arguments.model == TINY:
        given.setdefault("lr", TINY_LR)
    return replace(RewardTrainingConfig(), **given)


def _preferences(arguments: argparse.Namespace) -> list[Preference]:
    if arguments.preferences is not None:
        if arguments.gap is not None or arguments.per_problem is not None:
            raise InputError("--gap and --per-problem choose pairs of a run; give them with --from-run")
        return read_preferences(arguments.preferences)
    asked = {"gap": arguments.gap, "per_problem": arguments.per_problem}
    mining = MiningConfig(**{name: value for name, value in asked.items() if value is not None})
    return mine_run(Path(arguments.from_run), mining)


def _backbone(arguments: argparse.Namespace, preferences: list[Preference]) -> RewardModel:
    settings = RewardSettings()
    if arguments.max_tokens is not None:
        settings = replace(settings, max_tokens=arguments.max_tokens)
    if arguments.model == TINY:
        texts = sorted({text for one in preferences for text in (one.prompt, one.chosen, one.rejected)})
        return tiny_reward_model(texts, seed=arguments.seed, settings=settings)
    return RewardModel.from_backbone(resolve(arguments.model), seed=arguments.seed, settings=settings)


def _say(shown: Progression, epoch: Epoch) -> None:
    parts = [f"epoch {epoch.epoch}"]
    if epoch.train_loss is not None:
        parts.append(f"loss {epoch.train_loss:.3f}")
    if epoch.held_out_loss is not None:
        parts.append(f"held-out loss {epoch.held_out_loss:.3f}, accuracy {percent(epoch.held_out_accuracy)}")
    shown.say(", ".join(parts))


def _training_rows(report: TrainingReport) -> list[list[str]]:
    rows = [
        ["pairs trained on", f"{report.train_pairs:,}"],
        ["steps", f"{report.steps:,}"],
        ["best epoch", f"{report.best_epoch} of {len(report.epochs) - 1}"],
        ["tokens forwarded", f"{report.tokens:,}"],
    ]
    if report.held_out is None:
        return rows
    return rows + [[f"held-out {name}", value] for name, value in _report_rows(report.held_out)]


def _report_rows(report: RewardReport) -> list[list[str]]:
    correlation = report.length.correlation
    return [
        ["pairs", f"{report.pairs:,}"],
        ["accuracy", percent(report.accuracy)],
        ["AUC", f"{report.auc:.3f}"],
        ["loss", f"{report.loss:.3f}"],
        ["calibration error", f"{report.calibration_error:.3f}"],
        ["mean margin", f"{report.mean_margin:.3f}"],
        ["reward with length", "-" if correlation is None else f"{correlation:+.2f}"],
        ["longer preferred", percent(report.length.preferred_longer)],
        ["longer is better", percent(report.length.chosen_longer)],
    ]
