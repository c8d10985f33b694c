"""Problems played by sampling alone: independent answers of the policy, the prompt forwarded once for all of
them.

This is the expert that search has to beat: every token of every sample is forwarded and paid for, duplicates
too, and no sample stops another. Verdicts come from the task's automaton where there is one, so that it is as
fast as search. It learns nothing and chooses nothing: see ``play_stage`` for what becomes of the samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.evaluator import Parts, banned_tokens
from tokenzero.selfplay.outcomes import Grader, automaton_of
from tokenzero.selfplay.play_out import Draw, play_out
from tokenzero.tasks import Automaton, PublicProblem, Verdicts

LEAST = np.float32(2.0**-24)
"""A draw in float32 is 0 about once in ten million times, and would take its token whatever the policy says:
it counts as the least draw that is not 0."""


@dataclass
class Sampled:
    """One problem and its samples: ``answers`` token ids, ``texts``, ``scores`` f64 [n] (NaN where only gold
    could tell and nobody with gold was asked); ``forwarded`` tokens, prompt included.
    """

    problem: PublicProblem
    prompt: list[int]
    answers: list[list[int]]
    texts: list[str]
    scores: npt.NDArray[np.float64]
    forwarded: int


class Sampler:
    """Draws ``samples`` answers to each problem at ``temperature``, ``in_flight`` of them at a time.

    ``ledger`` is the total over everything played. Raises InputError for numbers out of range.
    """

    def __init__(
        self, parts: Parts, samples: int, *, temperature: float = 1.0, in_flight: int = 1024
    ) -> None:
        if samples < 1 or in_flight < 1 or not temperature > 0:
            raise InputError(
                f"samples is {samples}, in_flight {in_flight} and temperature {temperature}; "
                "give samples and in_flight of at least 1 and a temperature above 0"
            )
        self.ledger = Ledger()
        self._parts = parts
        self._samples = samples
        self._temperature = temperature
        self._problems_at_once = max(1, in_flight // samples)
        student = parts.student
        self._mask = torch.zeros(student.vocab_size, device=student.device)
        self._mask[banned_tokens(student)] = -torch.inf
        self._automaton = automaton_of(student, parts.task, parts.pieces)

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        grader: Grader | None = None,
        on_games: Callable[[int], None] | None = None,
    ) -> list[Sampled]:
        """Sample every problem, in order. ``grader`` knows a problem by its index."""
        played: list[Sampled] = []
        engine, started = self._parts.engine, time.perf_counter()
        before = engine.ledger.copy()
        try:
            for first in range(0, len(problems), self._problems_at_once):
                batch = problems[first : first + self._problems_at_once]
                played += self._sample(batch, first, rng, grader)
                if on_games is not None:
                    on_games(len(batch))
        finally:
            self.ledger.add(engine.ledger.since(before))
            self.ledger.wall_s += time.perf_counter() - started
        return played

    def _sample(
        self,
        problems: Sequence[PublicProblem],
        first: int,
        rng: np.random.Generator,
        grader: Grader | None,
    ) -> list[Sampled]:
        parts, samples = self._parts, self._samples
        room = parts.student.max_length - parts.task.max_answer_tokens
        prompts = [encode_prompt(parts.student.tokenizer, problem.prompt, room) for problem in problems]
        start = parts.engine.prefill(prompts)
        answers = _Answers(parts, self._automaton, problems, samples)
        try:
            every = np.repeat(np.arange(len(problems)), samples)
            pick = torch.from_numpy(every).to(start.logits.device)
            step = Step(start.states[every], start.logits[pick], start.hidden[pick])
            forwarded = play_out(
                parts.engine,
                step,
                self._mask,
                self._noise(rng),
                answers.grow,
            )
        finally:
            parts.engine.release(start.states)
        self.ledger.verifier_calls += answers.verdicts
        texts, scores = answers.finished(grader, first)
        self.ledger.verifier_calls += answers.graded
        rows = np.arange(len(every)).reshape(-1, samples)
        return [
            Sampled(
                problem,
                prompt,
                [answers.tokens(row) for row in own],
                [texts[row] for row in own],
                scores[own],
                len(prompt) + int(forwarded[own].sum()),
            )
            for problem, prompt, own in zip(problems, prompts, rows, strict=True)
        ]

    def _noise(self, rng: np.random.Generator) -> Draw:
        """Standard Gumbel noise times the temperature: the argmax is then drawn at that temperature."""
        scale, width = np.float32(-self._temperature), self._parts.student.vocab_size

        def draw(live: Ids) -> npt.NDArray[np.float32]:
            exponential = rng.standard_exponential((len(live), width), dtype=np.float32)
            noise: npt.NDArray[np.float32] = scale * np.log(np.maximum(exponential, LEAST))
            return noise

        return draw


class _Answers:
    """R answers that grow by a token at a time, and the verdicts on them."""

    def __init__(
        self, parts: Parts, automaton: Automaton | None, problems: Sequence[PublicProblem], samples: int
    ) -> None:
        self.verdicts = 0
        self.graded = 0
        self._parts = parts
        self._samples = samples
        self._problems = [problem for problem in problems for _ in range(samples)]
        rows, longest = len(self._problems), parts.task.max_answer_tokens
        self._tokens = np.zeros((rows, longest), np.int64)
        self._length = np.zeros(rows, np.int64)
        self._score = np.full(rows, np.nan)
        self._texts = [""] * rows
        self._automaton = automaton
        if automaton is not None:
            states, goals = automaton.begin(problems)
            self._state, self._goal = np.repeat(states, samples), np.repeat(goals, samples)

    def grow(self, live: Ids, tokens: Ids) -> npt.NDArray[np.bool_]:
        """Add a token to each answer of ``live`` i64 [L]; bool [L], whether that ended it."""
        self._tokens[live, self._length[live]] = tokens
        self._length[live] += 1
        verdicts = self._read(live, tokens)
        self.verdicts += len(live)
        full = self._length[live] >= self._tokens.shape[1]
        ended = np.asarray(verdicts.done | full | (tokens == self._parts.student.eos_id))
        self._score[live[ended]] = verdicts.score[ended]
        return ended

    def _read(self, live: Ids, tokens: Ids) -> Verdicts:
        if self._automaton is not None:
            after, verdicts = self._automaton.advance(self._state[live], tokens, self._goal[live])
            self._state[live] = after
            return verdicts
        found = []
        for row, token in zip(live.tolist(), tokens.tolist(), strict=True):
            self._texts[row] = self._parts.pieces.append(self._texts[row], self.tokens(row)[:-1], token)
            found.append(self._parts.task.verdict(self._problems[row], self._texts[row]))
        done = np.asarray([verdict.done for verdict in found], np.bool_)
        return Verdicts(done, np.asarray([verdict.score for verdict in found], np.float64))

    def tokens(self, row: int) -> list[int]:
        """An answer's ids."""
        tokens: list[int] = self._tokens[row, : self._length[row]].tolist()
        return tokens

    def finished(self, grader: Grader | None, first: int) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Texts of all answers, and their scores: the public verdict, else the grader's, else NaN."""
        texts = self._texts
        if self._automaton is not None:
            texts = [self._parts.pieces.text(self.tokens(row)) for row in range(len(texts))]
        texts = [text.strip() for text in texts]
        for row in np.flatnonzero(np.isnan(self._score)).tolist():
            if grader is not None:
                self._score[row] = grader(first + row // self._samples, texts[row])
                self.graded += 1
            elif self._parts.task.public_verifier:
                self._score[row] = 0.0
        return texts, self._score
