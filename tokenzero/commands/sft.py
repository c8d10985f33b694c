"""``tokenzero sft``: a model fine-tuned on prompts with answers, and on reasoning traces.

The task and the search that a checkpoint names go with it, unless it is taught another task. A value head
beside the model does not: it reads hidden states that the fine-tuning moves. The JSON object is {"out",
"model", "rows" {trained, held_out, skipped}, "steps", "scores"}.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from tokenzero.checkpoint import DEFAULTS_FILE, resolve
from tokenzero.cli import interrupted
from tokenzero.config import Layer, override_layer
from tokenzero.fine_tuning import (
    SETTINGS_FILE,
    FineTuningConfig,
    fine_tune,
    load_fine_tuning,
    read_rows,
    steps_of,
)
from tokenzero.pretraining import device_of, open_student, read_settings
from tokenzero.progress import showing
from tokenzero.selfplay.net import HEAD_FILE
from tokenzero.training_progress import TrainingBar, begin, check_target, print_records, write_texts


def run(arguments: argparse.Namespace) -> int:
    """Train, write the checkpoint and print its scores."""
    out, source = Path(arguments.out), resolve(arguments.model)
    check_target(out, SETTINGS_FILE, arguments.resume)
    config = _config(arguments, out)
    torch.set_num_threads(config.threads)
    student = open_student(source, device_of(config.device))
    files = [] if arguments.data is None else arguments.data.split(",")
    rows = read_rows(files, student, config)
    beside = _beside(Path(source), config)
    begin(out, beside)
    try:
        with showing() as shown:
            skipped = f", {rows.skipped:,} too long and skipped" if rows.skipped else ""
            shown.say(f"{len(rows.trained):,} rows to learn from, {len(rows.held_out):,} held out{skipped}")
            if (Path(source) / HEAD_FILE).is_file():
                shown.say(f"the value head of {source} stays behind: these weights have other hidden states")
            bar = TrainingBar(shown, steps_of(rows, config))
            progress = fine_tune(
                student,
                rows,
                config,
                directory=out,
                on_step=bar.step,
                on_score=bar.record,
                write=lambda directory: write_texts(directory, beside),
            )
    except KeyboardInterrupt:
        return interrupted("checkpoints are kept, go on with the same command and --resume")
    if arguments.json:
        counts = {"trained": len(rows.trained), "held_out": len(rows.held_out), "skipped": rows.skipped}
        result = {"out": str(out), "model": arguments.model, "rows": counts}
        print(json.dumps({**result, "steps": steps_of(rows, config), "scores": progress.records}))
    else:
        print_records(progress.records, f"{out}: {arguments.model} fine-tuned")
    return 0


def _config(arguments: argparse.Namespace, out: Path) -> FineTuningConfig:
    """The settings asked for. A resumed training needs none repeated: it kept its own."""
    layers = []
    if arguments.config is not None:
        layers.append(read_settings(Path(arguments.config)))
    elif arguments.resume and (out / SETTINGS_FILE).is_file():
        layers.append(read_settings(out / SETTINGS_FILE))
    if arguments.task is not None:
        layers.append(Layer("--task", {"task": {"name": arguments.task}}))
    layers += [override_layer(word) for word in arguments.set]
    if arguments.seed is not None:
        layers.append(Layer("--seed", {"seed": arguments.seed}))
    return load_fine_tuning(layers)


def _beside(source: Path, config: FineTuningConfig) -> dict[str, str]:
    """The texts of the files that stand beside the weights."""
    texts = {SETTINGS_FILE: json.dumps(asdict(config), indent=1) + "\n"}
    kept = {}
    if (source / DEFAULTS_FILE).is_file():
        kept = read_settings(source / DEFAULTS_FILE).values
    if config.task is not None:
        kept = {**kept, "task": asdict(config.task)}
    if kept:
        texts[DEFAULTS_FILE] = json.dumps(kept, indent=1) + "\n"
    return texts
