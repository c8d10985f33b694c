"""How good a method is on held-out problems: accuracy with its interval, overlap with the references, and
what it cost.

Scoring happens after the games are over, so nothing a method does can depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import Budget, Method, OnGames
from tokenzero.tasks import Problem, Task
from tokenzero.value.text_overlap import Overlap, corpus_overlap


@dataclass(frozen=True)
class Score:
    """A method on a set of problems. ``ci95`` is Wilson's interval; ``tokens`` are forwarded per problem,
    prompt included. ``overlap`` of the answers with the references, where it was asked for.
    """

    method: str
    problems: int
    solved: int
    accuracy: float
    ci95: tuple[float, float]
    mean_tokens: float
    p95_tokens: float
    mean_depth: float
    ledger: Ledger
    overlap: Overlap | None = None


def evaluate(
    method: Method,
    task: Task,
    problems: Sequence[Problem],
    rng: np.random.Generator,
    on_games: OnGames | None = None,
    budget: Budget | None = None,
    overlap: bool = False,
) -> Score:
    """Play ``problems``, each within ``budget``, and score the answers; an answer counts as solved at a score
    of 1. With ``overlap`` the words of the answers, without special tokens, are compared with those of the
    references too: corpus BLEU and ROUGE-L.

    Raises InputError when there are no problems, and for ``overlap`` where a problem has no reference.
    """
    references = _references(problems) if overlap else None  # refused before anything is played
    score, games, _ = play_and_score(method, task, problems, rng, on_games, budget)
    if references is None:
        return score
    return replace(score, overlap=corpus_overlap([game.text for game in games], references))


def _references(problems: Sequence[Problem]) -> list[str]:
    for problem in problems:
        if problem.reference is None:
            raise InputError(
                f"problem {problem.public.id!r} has no reference to compare an answer's words with; "
                "leave overlap out"
            )
    return [problem.reference or "" for problem in problems]


def play_and_score(
    method: Method,
    task: Task,
    problems: Sequence[Problem],
    rng: np.random.Generator,
    on_games: OnGames | None = None,
    budget: Budget | None = None,
) -> tuple[Score, list[Game], list[float]]:
    """As :func:`evaluate`, with the games and the score in [0, 1] of each."""
    if not problems:
        raise InputError("there are no problems to evaluate on; give at least one")
    before = method.ledger.copy()
    games = method.play([problem.public for problem in problems], rng, budget=budget, on_games=on_games)
    scores = [task.score(problem, game.text) for problem, game in zip(problems, games, strict=True)]
    solved = sum(score >= 1.0 for score in scores)
    tokens = np.asarray([game.forwarded for game in games])
    score = Score(
        method=method.name,
        problems=len(games),
        solved=solved,
        accuracy=solved / len(games),
        ci95=wilson(solved, len(games)),
        mean_tokens=float(tokens.mean()),
        p95_tokens=float(np.percentile(tokens, 95)),
        mean_depth=float(np.mean([game.depth for game in games])),
        ledger=method.ledger.since(before),
    )
    return score, games, scores


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), 95 % by default."""
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # With none or all of them one end is the share itself, which rounding would miss by 1e-17.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high
