"""A judge of your own: a function that looks at a partial answer and moves the search.

Run `python examples/custom_judge.py`; under a minute. It trains a tiny model on Countdown examples and prints
how many of 60 held-out problems search solves with the model's own values, and with a judge that sees when a
target can no longer be reached. The judge's word counts for `judge_eta` of a win or a loss.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import tokenzero


def reachable(prompt: str, partial: str) -> int:
    """-1 where the two numbers that are left cannot make the target, +1 where they can, 0 before that."""
    *numbers, _, target, _ = prompt.split()
    words = partial.split()
    for place in range(0, len(words) - len(words) % 4, 4):  # a step is written a sign b result
        first, _, second, result = words[place : place + 4]
        if first not in numbers or second not in numbers:
            return -1
        numbers.remove(first)
        numbers.remove(second)
        numbers.append(result)
    if len(numbers) > 2:
        return 0
    if len(numbers) == 1:
        return 1 if numbers == [target] else -1
    a, b, wanted = int(numbers[0]), int(numbers[1]), int(target)
    return 1 if wanted in (a + b, a * b, a - b, b - a) or wanted * a == b or wanted * b == a else -1


def main() -> None:
    """The same search with and without the judge."""
    config = tokenzero.load_config("countdown-quick", overrides=["rounds=0", "pretrain.steps=150"])
    search = tokenzero.Search(simulations=16, method="puct")
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        tokenzero.selfplay(config, run)
        alone = tokenzero.load(run).evaluate("test", search=search)
        judged = tokenzero.load(run, judge=reachable, judge_eta=1.0).evaluate("test", search=search)
    for label, score in (("alone", alone), ("with the judge", judged)):
        print(f"{label}: {score.solved} of {score.problems}, {score.mean_tokens:.0f} tokens a problem")


if __name__ == "__main__":
    main()
