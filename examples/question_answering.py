"""Question answering end to end: read a small invented world, learn to reason about it, answer new questions.

Run `python examples/question_answering.py [DIRECTORY]` from a clone; it takes about five minutes on one core.
It makes texts that tell facts one by one and questions that need two of them (../tests/fact_corpus.py), and
runs `tokenzero pretrain` on the texts, `tokenzero sft` on chains of thought, and two rounds of `tokenzero
selfplay` on the same training questions, which give a value head. It prints some answers, and for each method
how many held-out questions it answers, the overlap of its answers with the reference chains, and its
forwarded tokens a question.

Nobody can verify an answer at test time here, and what the model does not know no method finds: samples,
beams and searches cost three to fifteen times as much as greedy decoding and answer hardly more. The value
head has seen training questions alone, nearly all of them answered; it takes every answer for right, and the
searches that trust it give what greedy decoding gives.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fact_corpus import make_world

PRETRAINING = {
    "corpus": {"validation_share": 0.05, "tokenizer": {"kind": "bpe", "vocab_size": 800}},
    "model": {"shape": "0.8m", "positions": 128},
    "training": {
        "steps": 600,
        "context": 64,
        "evaluate_every": 200,
        "optimizer": {"lr": 4e-3, "min_lr": 4e-4, "warmup_steps": 40, "ema": 0.98, "batch_size": 16},
    },
    "threads": 1,
}
FINE_TUNING = {
    "epochs": 12,
    "training": {"optimizer": {"lr": 1.5e-3, "min_lr": 1.5e-4, "ema": 0.9}},
    "threads": 1,
}
SELFPLAY = {
    "pretrain": {"steps": 0, "demonstrations": 200},
    "play": {
        "games": 200,
        "player": "sample",
        "samples": 8,
        "targets": "rewards",
        # a value head as young as this one must not be stretched to the full range
        "search": {"method": "puct", "simulations": 32, "candidates": 8, "min_spread": 0.5},
    },
    "learner": {
        "steps": 150,
        "value_warmup": 50,
        "taught_share": 0.5,
        "kl_weight": 1.0,
        "optimizer": {"lr": 1e-4, "min_lr": 5e-5, "ema": 0.95, "batch_size": 32},
    },
    "evaluation": {"problems": 0, "search_problems": 0},
    "arena": {"max_problems": 0},
    "rounds": 2,
    "threads": 1,
}
METHODS = {
    "sft": (
        ("greedy",),
        ("self-consistency", "--n", 8),
        ("self-consistency", "--n", 16),
        ("best-of-n", "--n", 8, "--choose", "likelihood"),
        ("beam", "--n", 4),
    ),
    "selfplay": (
        ("greedy",),
        ("self-consistency", "--n", 8, "--vote", "value"),
        ("best-of-n", "--n", 8, "--choose", "value"),
        ("puct", "--simulations", 32),
        ("gumbel", "--simulations", 32),
    ),
}


def tokenzero(directory: Path, *words: object) -> dict:
    """Run one command in ``directory`` and read what it prints."""
    told = [str(word) for word in words]
    print("$ tokenzero", *told, file=sys.stderr)
    command = [sys.executable, "-m", "tokenzero.cli", *told, "--json"]
    return json.loads(subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE).stdout)


def main(directory: Path) -> None:
    world = make_world(people=80, towns=12, copies=30, seed=2)  # settings were chosen with another world
    world.write(directory)
    files = {f"{split}_files": str(directory / f"{split}.jsonl") for split in ("train", "validation", "test")}
    told = {"reasoning": "reasoning", "answer_format": "sentence", "max_answer_tokens": 48}
    task = {"name": "question-answer", "options": {**files, **told}}
    for name, settings in (
        ("pretraining", PRETRAINING),
        ("fine-tuning", {**FINE_TUNING, "task": task}),
        ("self-play", {**SELFPLAY, "task": task, "model": {"load": str(directory / "sft")}}),
    ):
        (directory / f"{name}.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML too
    corpus = ("--corpus", "facts.jsonl", "--set", f"corpus.cache={directory / 'cache'}")
    tokenzero(directory, "pretrain", "--config", "pretraining.yaml", *corpus, "--out", "base")
    tokenzero(directory, "sft", "base", "--config", "fine-tuning.yaml", "--out", "sft")
    tokenzero(directory, "selfplay", "--config", "self-play.yaml", "--out", "selfplay")
    for chain in world.chains["test"][:3]:
        prompt = f"Question: {chain.question}\nAnswer:\n"
        answer = tokenzero(directory, "generate", "sft", "--prompt", prompt, "--method", "greedy")
        print(f"{prompt}{answer['text']}\n(right: {chain.answer})\n")
    print(f"{'model':9} {'method':43} accuracy   BLEU  ROUGE-L  tokens")
    for model, methods in METHODS.items():
        for words in methods:
            score = tokenzero(directory, "eval", model, "--overlap", "--method", *words)
            spent = sum(score["ledger"][f"{kind}_tokens"] for kind in ("prefill", "decode", "value"))
            print(
                f"{model:9} {' '.join(map(str, words)):43} {score['accuracy']:8.2f} {score['bleu']:6.1f} "
                f"{score['rouge_l']:8.3f} {spent / score['problems']:7.0f}"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place = Path(sys.argv[1]).resolve()
        place.mkdir(parents=True, exist_ok=True)
        main(place)
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
