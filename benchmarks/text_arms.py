"""What can be learnt of a text without its next token as the loss: every objective of the text game, with
the same batches and steps, in one table.

Each arm is an ordinary text game (`selfplay/text/arms.py` names them) in a directory of its own below --out;
one that is finished there is not run again, one that was interrupted is gone on with. n-gram tables of the
training text stand in the picture as horizontal lines.

    python benchmarks/text_arms.py --corpus FILE --arms all --seeds 1 2 3 --out DIR --jobs 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from report import emit

from tokenzero.cli import prepare
from tokenzero.config import load_config
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.policy.corpora import open_corpus
from tokenzero.selfplay.text.arms import ARMS, arm_config
from tokenzero.selfplay.text.config import TextGameConfig
from tokenzero.selfplay.text.run import TextRun
from tokenzero.teachers.ngram import NgramTeacher, evaluate

Record = dict[str, Any]
BIGRAM = 2.47
"""Nats per character of order 2 on tiny Shakespeare."""


def config_of(options: argparse.Namespace, arm: str, seed: int) -> TextGameConfig:
    """The settings of one run."""
    said = ["threads=1", *options.changes, f"corpus.path={options.corpus}", f"seed={seed}"]
    base = load_config(options.preset, overrides=said)
    if not isinstance(base, TextGameConfig):
        raise SystemExit(f"preset {options.preset} is no text game")
    return arm_config(base, arm)


def play(config: TextGameConfig, directory: Path) -> list[Record]:
    """Records of one run, which is begun, gone on with, or only read."""
    prepare()
    return TextRun(config, directory).execute(resume=True)


def play_all(options: argparse.Namespace) -> dict[str, dict[int, list[Record]]]:
    """Records by arm and seed, ``jobs`` runs at a time."""
    found: dict[str, dict[int, list[Record]]] = {arm: {} for arm in options.arms}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn, max_tasks_per_child=1) as pool:
        waiting = {}
        for seed in options.seeds:
            for arm in options.arms:
                directory = options.out / f"{arm}-seed{seed}"
                waiting[pool.submit(play, config_of(options, arm, seed), directory)] = (arm, seed)
        for future in as_completed(waiting):
            arm, seed = waiting[future]
            found[arm][seed] = future.result()
            last = found[arm][seed][-1]
            print(
                f"{arm}, seed {seed}: {last['nats_per_character']:.3f} nats per character after "
                f"{last['step']} steps",
                file=sys.stderr,
                flush=True,
            )
    return found


def seconds(records: Sequence[Record]) -> float:
    """Wall time of a run."""
    return sum(float(record["wall_s"]) for record in records)


def passed(records: Sequence[Record], nats: float) -> int | None:
    """The first scored step below ``nats`` per character."""
    return next((r["step"] for r in records if (r["nats_per_character"] or nats) < nats), None)


def first_alarm(records: Sequence[Record]) -> tuple[int, str] | None:
    """Step and name of a run's first alarm."""
    alarms = [(alarm["step"], alarm["name"]) for record in records for alarm in record["alarms"]]
    return min(alarms, key=lambda alarm: alarm[0], default=None)


def spent(records: Sequence[Record]) -> dict[str, int]:
    """Forwarded tokens of a run: by the training itself, by play and search, by a referee that is a model."""
    ledgers = [record["ledger"] for record in records]
    kinds = ("prefill_tokens", "decode_tokens", "value_tokens")
    return {
        "training": sum(int(record["learnt_tokens"]) for record in records),
        "play": sum(int(ledger[kind]) for ledger in ledgers for kind in kinds),
        "referee": sum(int(ledger["teacher_tokens"]) for ledger in ledgers),
    }


def row_of(arm: str, runs: dict[int, list[Record]], nats: float) -> Record:
    """One line of the table: means over the seeds, and each seed where that matters."""
    ends = [records[-1] for _, records in sorted(runs.items())]
    every = [records for _, records in sorted(runs.items())]
    steps = [passed(records, nats) for records in every]
    alarms = [alarm for alarm in map(first_alarm, every) if alarm is not None]
    tokens = [spent(records) for records in every]
    errors = [r["health"]["policy_calibration_error"] for records in every for r in records[1:]]
    return {
        "arm": arm,
        "nats": f"{mean(end['nats_per_character'] for end in ends):.3f}",
        "each seed": " ".join(f"{end['nats_per_character']:.3f}" for end in ends),
        f"< {nats:g} at": " ".join("-" if step is None else str(step) for step in steps),
        "accuracy": f"{mean(end['accuracy'] for end in ends):.3f}",
        "calibration": f"{mean(end['health']['policy_calibration_error'] for end in ends):.3f}",
        "worst": f"{max(errors):.3f}",
        "confidence": f"{mean(end['health']['confidence'] for end in ends):.3f}",
        "first alarm": "; ".join(f"{name} {step}" for step, name in sorted(set(alarms))) or "none",
        **{kind: round(mean(one[kind] for one in tokens)) for kind in tokens[0]},
        "seconds": round(mean(map(seconds, every))),
    }


def ngram_lines(options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Held-out nats per character and accuracy of tables of each order; what was counted before is read."""
    config = config_of(options, options.arms[0], options.seeds[0])
    corpus = open_corpus(config.corpus)
    kept = options.out / "ngrams.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if known.get("corpus") != corpus.digest:
        known = {"corpus": corpus.digest, "orders": {}}
    train, held_out = corpus.tokens("train"), corpus.tokens("validation")
    for order in options.ngrams:
        if str(order) not in known["orders"]:
            score = evaluate(NgramTeacher.fit([train], order, len(corpus.tokenizer)), held_out)
            nats = score.nats_per_token * len(held_out) / corpus.characters("validation")
            known["orders"][str(order)] = {"nats": nats, "accuracy": score.accuracy}
    write_text(kept, json.dumps(known) + "\n")
    return {order: known["orders"][str(order)] for order in options.ngrams}


def picture(found: dict[str, dict[int, list[Record]]], lines: dict[int, dict[str, float]]) -> bytes:
    """PNG bytes: nats per character and calibration error against steps; one line an arm, the mean of its
    seeds, a band from the lowest to the highest.
    """
    import io

    from matplotlib.figure import Figure

    from tokenzero.compare_plots import COLOURS

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, (arm, runs) in enumerate(found.items()):
        colour = COLOURS[index % len(COLOURS)]
        rounds = list(zip(*(records for _, records in sorted(runs.items())), strict=False))
        steps = [seeds[0]["step"] for seeds in rounds]
        nats = [[record["nats_per_character"] for record in seeds] for seeds in rounds]
        errors = [[r["health"].get("policy_calibration_error", 0.0) for r in seeds] for seeds in rounds]
        for one, values in zip(axes, (nats, errors), strict=True):
            one.fill_between(steps, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15)
            one.plot(steps, list(map(mean, values)), color=colour, label=arm)
    for order, score in lines.items():
        axes[0].axhline(score["nats"], color="grey", linestyle=":", linewidth=1)
        axes[0].annotate(
            f"{order}-gram", (1.0, score["nats"]), xycoords=("axes fraction", "data"), fontsize=8, ha="right"
        )
    axes[0].set_ylabel("nats per character on held-out text")
    axes[0].set_ylim(1.5, 4.0)
    axes[1].set_ylabel("calibration error of the likeliest character")
    axes[1].set_ylim(0.0, 0.4)
    for one in axes:
        one.set_xlabel("optimiser steps")
        one.set_xlim(left=0)
        one.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def main() -> int:
    """Run what is not there yet, print the table, write table and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", required=True, metavar="FILE")
    parser.add_argument(
        "--arms", nargs="+", default=["all"], metavar="ARM", help=f"all, or {', '.join(ARMS)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--preset", default="shakespeare-char")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--ngrams", type=int, nargs="*", default=[2, 3, 4, 5], metavar="ORDER")
    parser.add_argument("--nats", type=float, default=BIGRAM, help="how soon an arm is below this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    prepare()
    options.arms = list(ARMS) if options.arms == ["all"] else options.arms
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ngram_lines(options)
    found = play_all(options)
    notes = [
        f"{order}-gram table: {score['nats']:.3f} nats per character, accuracy {score['accuracy']:.3f}"
        for order, score in lines.items()
    ]
    rows = [row_of(arm, found[arm], options.nats) for arm in options.arms]
    emit(
        "text game: held-out nats a character; tokens forwarded in training, play, referee",
        rows,
        options.out / "text_arms.json",
        notes,
    )
    write_bytes(options.out / "text_arms.png", picture(found, lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
