"""Teachers of Countdown that know something the student does not, or pretend to: scripts for `teachers.py`.

Each looks at what is left of the numbers, splits the steps that may be written into those from which the
target can still be reached and the others, and proposes one kind or the other. `swap()` exchanges the good
one and the adversary, as it were half-way through a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

from tokenzero.tasks.countdown_problems import read_prompt
from tokenzero.tasks.countdown_rules import Position, Rules, legal_steps

RULES = Rules(bound=100)
THRESHOLD = 24  # the specialist knows targets above it
Weights = dict[str, float]

_swapped = False


def swap(swapped: bool) -> None:
    """From now on the good teacher proposes what the adversary did, and the other way round."""
    global _swapped
    _swapped = swapped


@lru_cache(maxsize=1 << 18)
def solvable(position: Position, target: int) -> bool:
    """Whether the target can still be written last."""
    if len(position) == 1:
        return position[0] == str(target)
    return any(solvable(after, target) for after in legal_steps(RULES, position).values())


def open_steps(prompt: str, partial: str) -> tuple[Weights, Weights] | None:
    """What may be written next, as (the rest of steps that keep the target in reach, the rest of others);
    None where the partial answer is no beginning of a legal one."""
    numbers, target = read_prompt(prompt)
    words = partial.split()
    position = RULES.position(numbers)
    while len(words) >= RULES.step_words:
        step = " ".join(words[: RULES.step_words])
        if step not in (steps := legal_steps(RULES, position)):
            return None
        position, words = steps[step], words[RULES.step_words :]
    begun = "".join(f"{word} " for word in words)
    good: Weights = {}
    bad: Weights = {}
    for step, after in legal_steps(RULES, position).items():
        if step.startswith(begun):
            (good if solvable(after, target) else bad)[" " + step[len(begun) :]] = 1.0
    return good, bad


def knowing(prompt: str, partial: str) -> Weights:
    found = open_steps(prompt, partial)
    return {} if found is None else found[0] or found[1]


def misleading(prompt: str, partial: str) -> Weights:
    found = open_steps(prompt, partial)
    return {} if found is None else found[1] or found[0]


def uniform(prompt: str, partial: str) -> Weights:
    """Any legal step."""
    found = open_steps(prompt, partial)
    return {} if found is None else found[0] | found[1]


def right_in(share: float, prompt: str, partial: str) -> Weights:
    """Right in a share of all states, drawn by their text, and misleading in the others."""
    drawn = hashlib.blake2b(f"{prompt}|{partial}".encode(), digest_size=1).digest()[0] / 256
    return knowing(prompt, partial) if drawn < share else misleading(prompt, partial)


def good(prompt: str, partial: str) -> Weights:
    """Right in nine states of ten."""
    return misleading(prompt, partial) if _swapped else right_in(0.9, prompt, partial)


def adversarial(prompt: str, partial: str) -> Weights:
    return right_in(0.9, prompt, partial) if _swapped else misleading(prompt, partial)


def mediocre(prompt: str, partial: str) -> Weights:
    """Right in half of all states."""
    return right_in(0.5, prompt, partial)


def specialist(prompt: str, partial: str) -> Weights:
    """Right where the target is above the threshold, misleading elsewhere."""
    known = read_prompt(prompt)[1] > THRESHOLD
    return knowing(prompt, partial) if known else misleading(prompt, partial)


def still_solvable(prompt: str, partial: str) -> bool:
    """What a judge of Countdown would like to know; half a step is judged by what it can become."""
    found = open_steps(prompt, partial)
    return found is not None and bool(found[0])


FIVE: dict[str, Callable[[str, str], Weights]] = {
    one.__name__: one for one in (good, mediocre, uniform, adversarial, specialist)
}
