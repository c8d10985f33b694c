"""A teacher of your own: a script that knows the last step of Countdown, heard in a tiny run of self-play.

Run `python examples/custom_teacher.py`; under a minute. It prints, with and without the teacher, how many
training problems self-play solved in its only round, and what the run says of the teacher. A script is the
cheapest kind of teacher; `teachers:` of a config takes models, past checkpoints, n-grams and servers alike.
"""

from __future__ import annotations

import operator
import tempfile
from pathlib import Path

import tokenzero

SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def last_step(prompt: str, partial: str) -> dict[str, float]:
    """Texts that may come next, with weights: of "2 3 4 -> 10 :" and "2 * 3 6 " the step "6 + 4 10".

    A step is written a sign b result. Nothing is said where more than two numbers are left.
    """
    *numbers, _, target, _ = prompt.split()
    words = partial.split()
    if len(words) % 4:  # in the middle of a step
        return {}
    for first, _, second, result in zip(*[iter(words)] * 4, strict=True):
        if first not in numbers or second not in numbers:
            return {}
        numbers.remove(first)
        numbers.remove(second)
        numbers.append(result)
    if len(numbers) != 2:
        return {}
    pairs = [(a, b) for a, b in (numbers, numbers[::-1])]
    return {
        f"{a} {sign} {b} {target}": 1.0
        for a, b in pairs
        for sign, apply in SIGNS.items()
        if apply(int(a), int(b)) == int(target)
    }


def main() -> None:
    """Two runs that differ in nothing but the teacher."""
    tiny = [
        "rounds=1",
        "pretrain.steps=100",
        "play.games=100",
        "learner.steps=20",
        "evaluation.problems=0",
    ]
    heard = ["teachers=[{kind: scripted, function: 'custom_teacher:last_step'}]", "ensemble.beta=0.5"]
    for label, changes in (("alone", tiny), ("with the teacher", [*tiny, *heard])):
        config = tokenzero.load_config("countdown-quick", overrides=changes)
        with tempfile.TemporaryDirectory() as directory:
            record = tokenzero.selfplay(config, Path(directory) / "run")[-1]
        print(f"{label}: solved {record['solved']} of {record['games']} training problems")
    print("the teacher", record["teachers"][""]["last_step"]["reason"])  # "" is the whole run, not one tag


if __name__ == "__main__":
    main()
