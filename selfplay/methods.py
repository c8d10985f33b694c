"""Ways to answer problems, behind one face and one ledger: greedy, search, best-of-N.

Every method sees ``PublicProblem``s only. A public verdict may end a sample or a search early for every method alike. It
does not score against gold answers: see ``evaluation``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from tokenzero.mcts import SearchConfig
from tokenzero.policy.decoding import Sampling, sample
from tokenzero.policy.engine import Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.evaluator import LeafConfig, Parts, banned_tokens
from tokenzero.selfplay.player import Game, Player
from tokenzero.tasks import PublicProblem

OnGames = Callable[[int], None]


class Method(Protocol):
    """Something that answers problems and keeps count."""

    name: str
    ledger: Ledger

    def play(
        self, problems: Sequence[PublicProblem], rng: np.random.Generator, *, on_games: OnGames | None = None
    ) -> list[Game]:
        """One finished game for each problem, in order."""
        ...


class Search(Player):
    """A Player that neither explores nor records: no noise, and it stops at a solution that anyone can verify."""

    def __init__(self, parts: Parts, config: SearchConfig, leaf: LeafConfig | None = None) -> None:
        quiet = dataclasses.replace(config, gumbel_scale=0.0, dirichlet_fraction=0.0, temperature=0.0)
        super().__init__(parts, dataclasses.replace(quiet, stop_on_solution=parts.task.public_verifier), leaf)
        self.name = config.method if config.simulations else "greedy"


def greedy(parts: Parts) -> Search:
    """The raw policy, its likeliest token each time; teachers and judge have no say."""
    return Search(parts, SearchConfig(simulations=0, candidates=1))


class BestOfN:
    """N independent samples of the whole vocabulary; the prompt is forwarded once, every duplicate is paid for.

    With a public verifier sampling stops at the first verified answer; otherwise the policy's likeliest answer is given.
    """

    name = "best-of-n"

    def __init__(
        self, parts: Parts, n: int, sampling: Sampling | None = None, *, name: str = "best-of-n"
    ) -> None:
        self.ledger = Ledger()
        self.name = name
        self._parts = parts
        self._n = n
        self._sampling = sampling or Sampling()
        self._banned = banned_tokens(parts.student)

    def play(
        self, problems: Sequence[PublicProblem], rng: np.random.Generator, *, on_games: OnGames | None = None
    ) -> list[Game]:
        """Answer in batches, one sample of every unsolved problem at a time."""
        games: list[Game] = []
        started = time.perf_counter()
        for start in range(0, len(problems), 1024):
            batch = self._play_batch(problems[start : start + 1024], rng)
            games.extend(batch)
            if on_games is not None:
                on_games(len(batch))
        self.ledger.wall_s += time.perf_counter() - started
        return games

    def _play_batch(self, problems: Sequence[PublicProblem], rng: np.random.Generator) -> list[Game]:
        parts = self._parts
        room = parts.student.max_length - parts.task.max_answer_tokens
        prompts = [encode_prompt(parts.student.tokenizer, problem.prompt, room) for problem in problems]
        games = [Game(p, prompt, forwarded=len(prompt)) for p, prompt in zip(problems, prompts, strict=True)]
        before = parts.engine.ledger.copy()
        start = parts.engine.prefill(prompts)
        live = np.arange(len(games))
        for _ in range(self._n):
            pick = torch.from_numpy(live)
            step = Step(start.states[live], start.logits[pick], start.hidden[pick])
            self._sample_once([games[i] for i in live.tolist()], step, rng)
            live = np.asarray([i for i in live.tolist() if games[i].verdict != 1.0], np.int64)
            if not live.size:
                break
        parts.engine.release(start.states)
        self.ledger.add(parts.engine.ledger.since(before))
        return games

    def _sample_once(self, games: Sequence[Game], start: Step, rng: np.random.Generator) -> None:
        """One more sample of each game; it replaces the game's answer if it is verified or likelier."""
        parts = self._parts
        texts = [""] * len(games)
        verdicts: list[float | None] = [None] * len(games)

        def stop(row: int, tokens: list[int]) -> bool:
            texts[row] = parts.pieces.append(texts[row], tokens[:-1], tokens[-1])
            verdict = parts.task.verdict(games[row].problem, texts[row])
            self.ledger.verifier_calls += 1
            verdicts[row] = verdict.score if verdict.done else (0.0 if parts.task.public_verifier else None)
            return verdict.done or tokens[-1] == parts.student.eos_id

        limit = parts.task.max_answer_tokens
        tokens, log_probabilities = sample(
            parts.engine, start, self._sampling, rng, stop, banned=self._banned, max_new_tokens=limit
        )
        for row, game in enumerate(games):
            game.forwarded += len(tokens[row]) - 1
            game.depth = max(game.depth, len(tokens[row]))
            if not game.tokens or verdicts[row] == 1.0 or log_probabilities[row] > game.value:
                game.tokens, game.text, game.verdict = tokens[row], texts[row].strip(), verdicts[row]
                game.value = log_probabilities[row]
