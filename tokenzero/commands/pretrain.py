"""``tokenzero pretrain``: a language model from random weights (or given ones) on a corpus.

The JSON object is {"out", "parameters", "corpus" {digest, vocab_size, tokens and characters by split},
"steps", "tokens" (trained on), "scores"}; each score has what `policy.train_on_corpus` records.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenzero.cli import interrupted
from tokenzero.config import Layer, override_layer
from tokenzero.policy.corpora import Corpus
from tokenzero.policy.train_on_corpus import pretrain_on_corpus
from tokenzero.pretraining import SETTINGS_FILE, PretrainingConfig, load_pretraining, prepare, with_corpus
from tokenzero.progress import showing
from tokenzero.training_progress import (
    CorpusBar,
    TrainingBar,
    begin,
    check_target,
    print_records,
    write_texts,
)


def run(arguments: argparse.Namespace) -> int:
    """Train, write the checkpoint and print its scores."""
    out = Path(arguments.out)
    check_target(out, SETTINGS_FILE, arguments.resume)
    config = with_corpus(_config(arguments, out))
    settings = {SETTINGS_FILE: json.dumps(asdict(config), indent=1) + "\n"}
    begin(out, settings)
    try:
        with showing() as shown:
            student, corpus = prepare(config, shown.say, CorpusBar(shown))
            shown.say(_described(student.parameters(), student.vocab_size, corpus))
            bar = TrainingBar(shown, config.training.steps)
            progress = pretrain_on_corpus(
                student,
                corpus,
                config.training,
                config.seed,
                directory=out,
                on_step=bar.step,
                on_score=bar.record,
                write=lambda directory: write_texts(directory, settings),
            )
    except KeyboardInterrupt:
        return interrupted(f"checkpoints are kept, go on with: tokenzero pretrain --out {out} --resume")
    if arguments.json:
        steps, batch = config.training.steps, config.training.optimizer.batch_size
        result: dict[str, Any] = {"out": str(out), "parameters": student.parameters()}
        result |= {
            "corpus": _figures(corpus),
            "steps": steps,
            "tokens": steps * batch * config.training.context,
        }
        print(json.dumps({**result, "scores": progress.records}))
    else:
        print_records(progress.records, f"{out}: {student.parameters():,} parameters")
    return 0


def _config(arguments: argparse.Namespace, out: Path) -> PretrainingConfig:
    """The settings asked for. A resumed training needs none repeated: it kept its own."""
    changes = [override_layer(word) for word in arguments.set]
    if arguments.corpus is not None:
        changes.append(Layer("--corpus", {"corpus": {"path": arguments.corpus, "dataset": ""}}))
    if arguments.seed is not None:
        changes.append(Layer("--seed", {"seed": arguments.seed}))
    kept = out / SETTINGS_FILE
    if arguments.resume and kept.is_file() and arguments.preset is None and arguments.config is None:
        return load_pretraining(path=kept, changes=changes)
    return load_pretraining(arguments.preset, arguments.config, changes)


def _figures(corpus: Corpus) -> dict[str, Any]:
    splits = ("train", "validation", "test")
    return {
        "digest": corpus.digest,
        "vocab_size": len(corpus.tokenizer),
        "tokens": {split: len(corpus.tokens(split)) for split in splits},
        "characters": {split: corpus.characters(split) for split in splits},
    }


def _described(parameters: int, vocabulary: int, corpus: Corpus) -> str:
    tokens, held_out = len(corpus.tokens("train")), len(corpus.tokens("validation"))
    return (
        f"{parameters:,} parameters, a vocabulary of {vocabulary:,}, {tokens:,} tokens to learn from, "
        f"{held_out:,} held out"
    )
