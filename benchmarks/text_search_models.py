"""What `text_search.py` needs, from one text: a student, teachers, a referee that shares no text with them.

    python benchmarks/text_search_models.py FILE --out DIR [--steps 2000] [--referee-steps 3000]

The first nine tenths of the text are dealt out in blocks of 4,096 characters, in turn to the student and to
the referee: halves that lie side by side would have names of their own (a play's speakers), which the other
had never seen. DIR then holds `student.txt`, `referee.txt` and `prompts.txt` (the last tenth), the student's
and the larger referee's checkpoints, the student's `earlier` self (a quarter of the steps) and a table of
5-grams of its half. What is there already is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenzero.cli import main as tokenzero
from tokenzero.policy.atomic import write_text
from tokenzero.policy.student import Student
from tokenzero.teachers.ngram import NgramTeacher

BLOCK = 4096
SHARE = 0.9
WINDOW = ("--set", "training.context=128", "--set", "training.optimizer.batch_size=8")
LARGER = (
    "{model_type: llama, hidden_size: 192, intermediate_size: 512, num_hidden_layers: 6, "
    "num_attention_heads: 6, num_key_value_heads: 6, max_position_embeddings: 256, tie_word_embeddings: true}"
)


def deal(text: str, out: Path) -> None:
    """Write the halves and the prompts."""
    end = int(SHARE * len(text))
    blocks = [text[at : min(at + BLOCK, end)] for at in range(0, end, BLOCK)]
    parts = {"student": "".join(blocks[::2]), "referee": "".join(blocks[1::2]), "prompts": text[end:]}
    for name, part in parts.items():
        write_text(out / f"{name}.txt", part)


def train(out: Path, name: str, half: str, steps: int, *more: str) -> None:
    """A checkpoint ``out / name`` of ``steps`` steps on a half."""
    if (out / name / "model.safetensors").is_file():
        return
    said = ["pretrain", "--preset", "shakespeare-char", "--corpus", str(out / f"{half}.txt"), "--out"]
    settings = ["--set", f"training.steps={steps}", "--set", "threads=1", *WINDOW, *more]
    resume = ["--resume"] if (out / name).is_dir() else []
    if tokenzero([*said, str(out / name), *settings, *resume]):
        raise SystemExit(f"{name} was not trained")


def main() -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--referee-steps", type=int, default=3000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    deal(options.text.read_text(encoding="utf-8"), options.out)
    # One tokenizer for all: a letter that a half lacks is spelt in bytes.
    small = ("--set", "model.positions=256")
    train(options.out, "student", "student", options.steps, *small)
    shared = ("--set", f"corpus.tokenizer.load={options.out / 'student'}")
    train(options.out, "earlier", "student", options.steps // 4, *small, *shared)
    train(
        options.out, "referee", "referee", options.referee_steps, *shared,
        "--set", f"model.architecture={LARGER}", "--set", "training.optimizer.lr=1.5e-3",
        "--set", "training.optimizer.min_lr=1.5e-4", "--seed", "11",
    )  # fmt: skip
    student = Student.load(options.out / "student")
    ids = student.tokenizer((options.out / "student.txt").read_text(encoding="utf-8"))["input_ids"]
    NgramTeacher.fit([ids], 5, student.vocab_size).save(options.out / "ngram5.safetensors")


if __name__ == "__main__":
    main()
