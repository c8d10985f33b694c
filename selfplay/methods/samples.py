"""Independent samples, and which of them is the answer: best-of-N, self-consistency.

A public verdict may end a sample early. It does not score against gold answers: see ``evaluation``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.decoding import Sampling, sample
from tokenzero.policy.engine import Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.evaluator import Parts, banned_tokens
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.session import PLACES, Budget, Method, OnGames, Session
from tokenzero.tasks import PublicProblem


@dataclass
class Answer:
    """One of several answers: ``log_probability`` under the unfiltered policy in nats; ``verdict`` as in
    ``Game``.
    """

    tokens: list[int]
    text: str
    log_probability: float
    verdict: float | None


@dataclass
class SampledGame(Game):
    """A game with every answer that was drawn, in order; ``value`` is the given answer's log-probability."""

    answers: list[Answer] = field(default_factory=list)

    def give(self, answer: Answer) -> None:
        """Make ``answer`` the game's own."""
        self.tokens, self.text, self.verdict = answer.tokens, answer.text, answer.verdict
        self.value = answer.log_probability


class Decoder(Method):
    """What the methods without a tree share: batches of prompts that are forwarded once, and the ledger."""

    def __init__(self, parts: Parts, name: str) -> None:
        self.ledger = Ledger()
        self.name = name
        self._parts = parts
        self._banned = banned_tokens(parts.student)

    def session(self, places: int = PLACES, clock: Callable[[], float] = time.monotonic) -> Session:
        raise NotImplementedError

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        budget: Budget | None = None,
        on_games: OnGames | None = None,
    ) -> list[Game]:
        """Answer every problem, in order, in batches."""
        games: list[Game] = []
        started = time.perf_counter()
        for start in range(0, len(problems), 1024):
            batch = self._play_batch(problems[start : start + 1024], rng)
            games.extend(batch)
            if on_games is not None:
                on_games(len(batch))
        self.ledger.wall_s += time.perf_counter() - started
        return games

    def _play_batch(self, problems: Sequence[PublicProblem], rng: np.random.Generator) -> list[SampledGame]:
        parts = self._parts
        room = parts.student.max_length - parts.task.max_answer_tokens
        prompts = [encode_prompt(parts.student.tokenizer, problem.prompt, room) for problem in problems]
        games = [
            SampledGame(p, prompt, forwarded=len(prompt)) for p, prompt in zip(problems, prompts, strict=True)
        ]
        before = parts.engine.ledger.copy()
        start = parts.engine.prefill(prompts)
        try:
            self._answer(games, start, rng)
        finally:  # also when the verifier refuses a prompt: the engine serves others after us
            parts.engine.release(start.states)
            self.ledger.add(parts.engine.ledger.since(before))
        return games

    @abstractmethod
    def _answer(self, games: Sequence[SampledGame], start: Step, rng: np.random.Generator) -> None:
        """Give every game an answer, from the forwarded prompts."""

    def _verdict(self, problem: PublicProblem, text: str, token: int) -> tuple[bool, float | None]:
        """Whether the answer ends here, and the public verdict on it if it does (None: only gold could
        tell).
        """
        verdict = self._parts.task.verdict(problem, text)
        self.ledger.verifier_calls += 1
        score = verdict.score if verdict.done else (0.0 if self._parts.task.public_verifier else None)
        return verdict.done or token == self._parts.student.eos_id, score


class BestOfN(Decoder):
    """N independent samples of the whole vocabulary; the prompt is forwarded once, every duplicate is paid
    for.

    With a public verifier sampling stops at the first verified answer; otherwise the policy's likeliest
    answer is given. Raises InputError for ``n`` below 1.
    """

    _stop_when_verified = True

    def __init__(
        self, parts: Parts, n: int, sampling: Sampling | None = None, *, name: str = "best-of-n"
    ) -> None:
        super().__init__(parts, name)
        if n < 1:
            raise InputError(f"n is {n}; give at least 1 sample")
        self._n = n
        self._sampling = sampling or Sampling()

    def _answer(self, games: Sequence[SampledGame], start: Step, rng: np.random.Generator) -> None:
        live = np.arange(len(games))
        for _ in range(self._n):
            pick = torch.from_numpy(live)
            step = Step(start.states[live], start.logits[pick], start.hidden[pick])
            self._sample_once([games[i] for i in live.tolist()], step, rng)
            if self._stop_when_verified:
                going = [i for i in live.tolist() if games[i].answers[-1].verdict != 1.0]
                live = np.asarray(going, np.int64)
            if not live.size:
                break
        for game in games:
            game.give(self._chosen(game.answers))

    def _chosen(self, answers: Sequence[Answer]) -> Answer:
        return max(answers, key=lambda answer: (answer.verdict == 1.0, answer.log_probability))

    def _sample_once(self, games: Sequence[SampledGame], start: Step, rng: np.random.Generator) -> None:
        """One more answer for each game."""
        parts = self._parts
        texts = [""] * len(games)
        verdicts: list[float | None] = [None] * len(games)

        def stop(row: int, tokens: list[int]) -> bool:
            texts[row] = parts.pieces.append(texts[row], tokens[:-1], tokens[-1])
            ended, verdicts[row] = self._verdict(games[row].problem, texts[row], tokens[-1])
            return ended

        limit = parts.task.max_answer_tokens
        tokens, log_probabilities = sample(
            parts.engine, start, self._sampling, rng, stop, banned=self._banned, max_new_tokens=limit
        )
        for row, game in enumerate(games):
            game.forwarded += len(tokens[row]) - 1
            game.depth = max(game.depth, len(tokens[row]))
            game.answers.append(
                Answer(tokens[row], texts[row].strip(), log_probabilities[row], verdicts[row])
            )


class SelfConsistency(BestOfN):
    """The answer given most often among N samples; the first seen wins a tie (Wang et al., ICLR 2023).

    Whole answers are compared, without the white space around them. It asks no verifier which answer to give,
    so all N samples are drawn.
    """

    _stop_when_verified = False

    def __init__(self, parts: Parts, n: int, sampling: Sampling | None = None) -> None:
        super().__init__(parts, n, sampling, name="self-consistency")

    def _chosen(self, answers: Sequence[Answer]) -> Answer:
        # Counter keeps the order of first sight, and most_common is stable.
        text = Counter(answer.text for answer in answers).most_common(1)[0][0]
        return next(answer for answer in answers if answer.text == text)
