"""Countdown: reach a target from given numbers, writing one arithmetic step at a time.

Prompt "4 7 8 10 -> 24 :", answer "8 - 4 4 10 - 7 3 ...": each step is `a op b c` (with equals=True `a op b =
c`), takes two available values, each once, and puts c back; n numbers take n - 1 steps and all must be used.
c equals a op b, is at most `bound` and at least 1 (0 with zero=True); a division is exact unless fractions
are allowed. Anyone can check an answer from the prompt alone, so the verifier is public.

This file does not look ahead: a text is ongoing while it is the beginning of a legal answer, solving or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.countdown_problems import CountdownConfig, build_splits, read_prompt, write_prompt
from tokenzero.tasks.countdown_reading import CountdownAutomaton, Reader
from tokenzero.tasks.countdown_rules import OPERATORS, Position, expression, legal_steps
from tokenzero.tasks.problem import Automaton, Problem, PublicProblem, Task, Verdict, check_split

__all__ = ["CountdownConfig", "CountdownTask"]

MOVES = 1 << 19
"""Moves after which an automaton is too large to be given out again, some 80 MB."""


class CountdownTask(Task):
    """Countdown under one `CountdownConfig`. Problems are built when first asked for, and then kept."""

    public_verifier: ClassVar[bool] = True

    def __init__(self, config: CountdownConfig | None = None, name: str = "countdown") -> None:
        self.config = config or CountdownConfig()
        self.name = name
        self._rules = self.config.rules
        self._reader = Reader(self._rules)
        self._automaton: CountdownAutomaton | None = None
        self._limit = _longest_answer(self.config) + 1

    @property
    def max_answer_tokens(self) -> int:
        """Tokens no legal answer exceeds, one for the end mark included. An upper bound for characters."""
        return self._limit

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split; references are None, since the statement is enough to check an answer."""
        return build_splits(self.config, self.name)[check_split(split)]

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Ongoing while `answer` is the beginning of some legal answer; failed as soon as it is not.

        One leading space is allowed (many tokenizers produce it), and any white space after the last step. A
        last word that is not followed by a space may be unfinished, except that the last result ends the
        answer as soon as it equals a op b: solved if that is the target, failed if not. Raises InputError on
        a prompt that is not Countdown.
        """
        return self._reader.verdict(problem.prompt, answer)

    def automaton(self, pieces: Sequence[str]) -> Automaton:
        """`verdict` for answers that grow by tokens; one is kept and shared until it has become large."""
        kept = self._automaton
        if kept is None or kept.size > MOVES or not kept.reads(pieces):
            kept = self._automaton = CountdownAutomaton(self._reader, pieces)
        return kept

    def steps(self, answer: str) -> int:
        """Finished steps; a word that no white space follows may still grow."""
        words = len(answer.split())
        unfinished = bool(words) and not answer[-1].isspace()
        return (words - unfinished) // self._rules.step_words

    def actions(self, problem: PublicProblem, answer: str) -> Sequence[str]:
        """The legal next steps, or the legal rests of a step that was begun, in text order."""
        return self._reader.continuations(problem.prompt, answer)

    def final_answer(self, answer: str) -> str:
        """Its steps as one expression, so that it does not matter in which order they are written."""
        return expression(self._rules, answer)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_automaton": None}  # what was remembered is no part of the task

    def score(self, problem: Problem, answer: str) -> float:
        """1.0 for a finished legal answer that reaches the target, else 0.0."""
        return self.verdict(problem.public, answer).score or 0.0

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Random legal play on random training problems: each step uniform over the distinct legal ones.

        It teaches the writing only; about 5 % hit their target, by luck (default settings).
        """
        training = self.problems("train")
        if not training:
            raise InputError("countdown train is 0, so there is nothing to demonstrate on; use 1 or more")
        prompts = [training[i].public.prompt for i in rng.integers(len(training), size=count)]
        return [(prompt, self._random_answer(prompt, rng)) for prompt in prompts]

    def _random_answer(self, prompt: str, rng: np.random.Generator) -> str:
        position: Position = self._rules.position(read_prompt(prompt)[0])
        written: list[str] = []
        while len(position) > 1:
            steps = list(legal_steps(self._rules, position).items())
            step, position = steps[rng.integers(len(steps))]
            written.append(step)
        return " ".join(written)

    def augment(self, prompt: str, rng: np.random.Generator) -> str:
        """The same problem with its numbers in a random order."""
        numbers, target = read_prompt(prompt)
        return write_prompt(tuple(numbers[i] for i in rng.permutation(len(numbers))), target)

    def tokenizer_spec(self) -> dict[str, Any]:
        """The words (or characters) of every prompt of these settings and of every legal answer to them."""
        equals = "=" if self.config.equals else ""
        if self.config.granularity == "characters":
            return {"kind": "characters", "alphabet": f"0123456789{OPERATORS}{equals}>: "}
        values = [str(value) for value in range(0 if self.config.zero else 1, self.config.bound + 1)]
        return {"kind": "words", "words": [*values, *OPERATORS, *equals, "->", ":"]}


def _longest_answer(config: CountdownConfig) -> int:
    """Tokens no legal answer exceeds, in the task's own vocabulary."""
    steps = config.numbers - 1
    if config.granularity == "words":
        return steps * config.rules.step_words
    # A value made of m numbers is a fraction with both parts at most 2 * high^(m-1) (and itself at most
    # bound).
    whole = len(str(config.bound))
    widths = [whole]
    for made_of in range(2, config.numbers + 1):
        part = len(str(2 * config.high ** (made_of - 1)))
        widths.append(max(whole, 2 * part + 1) if config.fractions else whole)
    signs_and_spaces = (config.rules.step_words - 3) + (config.rules.step_words - 1)
    return sum(2 * widths[k] + widths[k + 1] + signs_and_spaces for k in range(steps)) + steps - 1
