"""How well do counted n-grams foretell a text, by order and smoothing, and how fast are they looked up?

Tables are counted on the first 90 % of the corpus and scored on its last 10 %, read as one running text.
"accuracy" is the share of tokens that were thought likeliest; "own text" are nats per token on the first
million tokens of the counted text itself, "left out" the same when each token is judged by the table without
its own occurrence.

Speed: process time of a token's look-up, medians over repetitions that take turns. "one context" is
`NgramTeacher.distribution`; "rows" are log-probabilities of the whole vocabulary after each token of 12
windows of 64; "rows left out" the same without the occurrence asked about; "text" is the log-probability of
each token of a running text, "likeliest" the likeliest token at each place of one.

OMP_NUM_THREADS=1 python benchmarks/ngrams.py --corpus ../shared/data/tinyshakespeare.txt --json ngrams.json
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import emit

from tokenzero.policy.corpora import Corpus, CorpusConfig, TokenizerConfig, open_corpus
from tokenzero.teachers.ngram import NgramTeacher, evaluate
from tokenzero.teachers.ngram_table import SMOOTHINGS

Row = dict[str, Any]
ROWS, CONTEXT = 12, 64
OWN = 1_000_000
SINGLE = 500


def quality(corpus: Corpus, orders: Sequence[int], smoothings: Sequence[str], directory: Path) -> list[Row]:
    """One row for each table."""
    train, validation = corpus.tokens("train"), corpus.tokens("validation")
    per_character = len(validation) / corpus.characters("validation")
    rows: list[Row] = []
    for smoothing in smoothings:
        for order in orders:
            start = time.process_time()
            teacher = NgramTeacher.fit([train], order, len(corpus.tokenizer), smoothing)
            counted = time.process_time() - start
            path = directory / "table.safetensors"
            teacher.save(path)
            score = evaluate(teacher, validation)
            row: Row = {
                "smoothing": smoothing,
                "order": order,
                "contexts": len(teacher.table.older),
                "file MiB": path.stat().st_size / 2**20,
                "counting s": counted,
                "nats/token": score.nats_per_token,
                "nats/character": score.nats_per_token * per_character,
                "perplexity": math.exp(score.nats_per_token),
                "accuracy": score.accuracy,
                "own text": -float(teacher.token_log_probs(train[:OWN]).mean()),
            }
            if smoothing == "witten-bell":
                row["left out"] = -float(teacher.token_log_probs(train[:OWN], held_out=True).mean())
            rows.append(
                {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            )
    return rows


def speed(corpus: Corpus, orders: Sequence[int], repetitions: int) -> list[Row]:
    """One row for each order: tokens a second by each way of looking up, Witten-Bell."""
    train, validation = corpus.tokens("train"), np.asarray(corpus.tokens("validation"))
    starts = np.random.default_rng(0).integers(0, len(train) - CONTEXT - 1, ROWS)
    windows = np.asarray(train[starts[:, None] + np.arange(CONTEXT + 1)], dtype=np.int64)
    ids, truth = windows[:, :-1], windows[:, 1:]
    rows: list[Row] = []
    for order in orders:
        teacher = NgramTeacher.fit([train], order, len(corpus.tokenizer))
        contexts = [validation[max(0, end - order) : end].tolist() for end in range(SINGLE)]
        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            "one context": (SINGLE, lambda t=teacher, c=contexts: [t.distribution(one) for one in c]),
            "rows": (ids.size, lambda t=teacher: t.row_log_probs(ids)),
            "rows left out": (ids.size, lambda t=teacher: t.row_log_probs(ids, truth)),
            "text": (len(validation), lambda t=teacher: t.token_log_probs(validation)),
            "likeliest": (len(validation), lambda t=teacher: t.guesses(validation)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for repetition in range(repetitions + 1):
            for name, (tokens, way) in ways.items():
                start = time.process_time()
                way()
                if repetition > 0:  # the first one compiles
                    seconds[name].append((time.process_time() - start) / tokens)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        row: Row = {"order": order}
        row |= {f"{name}: tokens/s": round(1 / median) for name, median in medians.items()}
        row["rows / one context"] = round(medians["one context"] / medians["rows"], 1)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="a text file, or a directory of them")
    parser.add_argument("--bpe", type=int, help="a BPE vocabulary of this size instead of characters")
    parser.add_argument("--orders", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--smoothings", nargs="+", default=list(SMOOTHINGS), choices=SMOOTHINGS)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument(
        "--json", type=Path, help="write the tables there; that of speed with -speed in its name"
    )
    options = parser.parse_args()
    tokenizer = TokenizerConfig(kind="bpe", vocab_size=options.bpe) if options.bpe else TokenizerConfig()
    with tempfile.TemporaryDirectory() as directory:
        config = CorpusConfig(path=options.corpus, tokenizer=tokenizer, cache=directory)
        corpus = open_corpus(config)
        size = f"{len(corpus.tokenizer)} tokens in the vocabulary, {len(corpus.tokens('train'))} counted"
        found = quality(corpus, options.orders, options.smoothings, Path(directory))
        emit("n-grams on held-out text", found, options.json, [size])
        paths = options.json and options.json.with_name(options.json.stem + "-speed.json")
        emit("tokens looked up a second", speed(corpus, options.orders, options.repetitions), paths, [size])


if __name__ == "__main__":
    main()
