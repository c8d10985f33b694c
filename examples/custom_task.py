"""A task of your own: pay an amount with exactly four coins, learnt by self-play in under a minute.

Run `python examples/custom_task.py [DIRECTORY]`. It prints how many of 100 held-out problems the model solves
at once and with search, and one answer. Beside this file, `tokenzero eval DIRECTORY` finds the task again.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import tokenzero
from tokenzero.tasks import FAILED, ONGOING, SOLVED, Problem, PublicProblem, Task


class Change(Task):
    """The prompt "2 5 9 -> 21 :" names three kinds of coins and an amount; "2 5 5 9 " is right."""

    name, public_verifier, max_answer_tokens = "custom_task:Change", True, 5  # one token for the end mark

    def __init__(self):
        rng = np.random.default_rng(0)
        sets = [sorted(rng.choice(np.arange(1, 10), 3, replace=False)) for _ in range(1500)]
        prompts = [f"{' '.join(map(str, coins))} -> {rng.choice(coins, 4).sum()} :" for coins in sets]
        self.prompts = list(dict.fromkeys(prompts))  # no problem twice, so that splits share none

    def problems(self, split):
        part = {"train": slice(200, None), "validation": slice(100), "test": slice(100, 200)}[split]
        return [Problem(PublicProblem(prompt, prompt)) for prompt in self.prompts[part]]

    def verdict(self, problem, answer):
        *coins, _, amount, _ = problem.prompt.split()
        paid = answer.split()
        if not set(paid) <= set(coins):
            return FAILED
        if len(paid) < 4:
            return ONGOING
        return SOLVED if sum(map(int, paid)) == int(amount) else FAILED

    def score(self, problem, answer):
        return float(self.verdict(problem.public, answer) == SOLVED)

    def demonstrations(self, count, rng):  # how answers are written, not how they are right
        prompts = rng.choice(self.prompts[200:], count)
        return [(prompt, " ".join(rng.choice(prompt.split()[:3], 4))) for prompt in prompts]

    def tokenizer_spec(self):
        return {"kind": "words", "words": [*map(str, range(1, 37)), "->", ":"]}


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    changes = ["task.name=custom_task:Change", "rounds=2", "pretrain.steps=150", "play.games=200"]
    tokenzero.selfplay(tokenzero.load_config("countdown-quick", overrides=changes), out)
    engine, hard = tokenzero.load(out), tokenzero.Search(simulations=32)
    print("solved at once:", engine.evaluate("test", method="greedy").solved)
    print("solved with search:", engine.evaluate("test", search=hard).solved)
    print("2 5 9 -> 21 :", engine.generate("2 5 9 -> 21 :", hard).text)
