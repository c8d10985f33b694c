"""The play stage of a round: training problems in, scored episodes out.

It draws the round's problems, has them played by search, by sampling or by random legal play, and scores
every answer with the task, gold answers included. It writes nothing and learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.consulting import credit_path
from tokenzero.selfplay.demonstrations import demonstrate
from tokenzero.selfplay.episode import Episode, from_answer, from_game
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.listener import Listener
from tokenzero.selfplay.play_config import PlayConfig
from tokenzero.selfplay.player import Player
from tokenzero.selfplay.sampler import Sampler
from tokenzero.selfplay.scoring import Scoring
from tokenzero.selfplay.tree_targets import gathered_episode, solution_paths, tree_episode
from tokenzero.tasks import Problem, Task


@dataclass
class Played:
    """What a round's play came to: the ``episodes`` to learn from, the ``games`` of search in the problems'
    order, how many ``problems`` were played and ``solved``, the ``solutions`` found, distinct ones of each
    problem, the ``ledger`` of it all, and ``spent``, the tokens its problems needed, prompts included.
    """

    episodes: list[Episode] = field(default_factory=list)
    games: list[Game] = field(default_factory=list)
    problems: int = 0
    solved: int = 0
    solutions: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    spent: int = 0


def play_round(
    parts: Parts,
    task: Task,
    config: PlayConfig,
    train: Sequence[Problem],
    rng: np.random.Generator,
    round_index: int,
    seed: int,
    owed: int,
    listener: Listener,
    scoring: Scoring | None = None,
) -> Played:
    """Play round ``round_index`` on problems of ``train``. ``owed`` is how many tokens earlier rounds
    forwarded beyond their share; with ``config.tokens`` this round forwards as many fewer. ``scoring`` says
    what answers are worth; None leaves it to the task.
    """
    played = Played()
    scoring = scoring or Scoring(task)
    if config.player == "demonstrate":
        played.episodes = demonstrate(task, parts.student, config.games, rng)
        played.problems = len(played.episodes)
        played.solved = played.solutions = sum(episode.outcome > 0 for episode in played.episodes)
        return played
    play = (_sampling if config.player == "sample" else _search)(parts, config, scoring)
    if config.tokens is None:
        problems = _drawn(task, train, config.games, rng)
        listener.stage("play", len(problems))
        play(played, task, problems, rng, round_index - 1, seed, listener.advance)
        played.ledger.add(scoring.ledger)
        return played
    budget = config.tokens - owed
    listener.stage("play", max(0, budget))
    while played.spent < budget:
        before = played.spent
        count = _affordable(played, budget, config)
        play(played, task, _drawn(task, train, count, rng), rng, round_index - 1, seed, _ignore)
        listener.advance(played.spent - before)
    played.ledger.add(scoring.ledger)
    return played


Play = Callable[[Played, Task, Sequence[Problem], np.random.Generator, int, int, Callable[[int], None]], None]
"""Plays problems and adds what came of it to a `Played`."""


def _ignore(count: int) -> None:
    """Nobody wants to know."""


def _affordable(played: Played, budget: int, config: PlayConfig) -> int:
    """How many problems to play next: a batch, or what the budget is good for at the price so far."""
    if not played.problems:
        known = config.search.tokens if config.player == "search" else None
        return min(config.games_in_flight, 64 if known is None else -(-budget // known))
    price = played.spent / played.problems
    return max(1, min(config.games_in_flight, round((budget - played.spent) / price)))


def _drawn(task: Task, train: Sequence[Problem], count: int, rng: np.random.Generator) -> list[Problem]:
    chosen = rng.choice(len(train), size=count, replace=count > len(train))
    return [_shown(task, train[i], rng) for i in chosen.tolist()]


def _shown(task: Task, problem: Problem, rng: np.random.Generator) -> Problem:
    public = replace(problem.public, prompt=task.augment(problem.public.prompt, rng))
    return replace(problem, public=public)


def _search(parts: Parts, config: PlayConfig, scoring: Scoring) -> Play:
    player = Player(
        parts,
        config.search,
        config.leaf,
        games_in_flight=config.games_in_flight,
        fast_simulations=config.fast_simulations,
        full_share=config.full_share,
        gather_visits=config.tree_visits if config.targets == "tree" else 0,
    )

    def play(
        played: Played,
        task: Task,
        problems: Sequence[Problem],
        rng: np.random.Generator,
        version: int,
        seed: int,
        on_games: Callable[[int], None],
    ) -> None:
        known = None if scoring.public else scoring.grader(problems)
        games = player.play([p.public for p in problems], rng, grader=known, on_games=on_games)
        worth = scoring.worth(problems, [game.text for game in games])
        for game, total, rewards in zip(games, worth.total.tolist(), worth.parts, strict=True):
            outcome = 2.0 * total - 1.0
            played.solved += outcome > 0
            played.solutions += int(game.tree.solutions[0]) if game.tree is not None else outcome > 0
            if parts.ensemble is not None and game.tree is None:
                credit_path(parts.ensemble, game, outcome, task.max_answer_tokens)
            learnt = _learnt(game, outcome, version, seed, config)
            played.episodes += scoring.annotated(learnt, [rewards] * len(learnt))
            game.tree = None  # the episodes have it now
            game.searched = {}
        played.games += games
        played.problems += len(games)
        played.spent += sum(game.forwarded for game in games)
        played.ledger = player.ledger

    return play


def _learnt(game: Game, outcome: float, version: int, seed: int, config: PlayConfig) -> list[Episode]:
    """The episodes of one searched game."""
    if config.targets == "tree" and game.tree is not None:
        weight, discount = config.search.value_weight, config.length_discount
        return [tree_episode(game, outcome, version, seed, weight, discount)]
    if config.targets == "tree":
        return [gathered_episode(game, outcome, version, seed)]
    if config.targets == "path":
        return [from_game(game, outcome, version, seed)]
    paths = [game.tokens] if outcome > 0 else []
    if game.tree is not None:
        paths = solution_paths(game.tree)
    return [
        from_answer(game.problem, game.prompt, path, game.text, 1.0, version, seed, game.forwarded)
        for path in paths
    ]


def _sampling(parts: Parts, config: PlayConfig, scoring: Scoring) -> Play:
    sampler = Sampler(parts, config.samples, temperature=config.temperature, in_flight=config.games_in_flight)

    def play(
        played: Played,
        task: Task,
        problems: Sequence[Problem],
        rng: np.random.Generator,
        version: int,
        seed: int,
        on_games: Callable[[int], None],
    ) -> None:
        for one in sampler.play(
            [p.public for p in problems], rng, grader=scoring.grader(problems), on_games=on_games
        ):
            found: dict[tuple[int, ...], Episode] = {}
            for index, (answer, text, score) in enumerate(
                zip(one.answers, one.texts, one.scores.tolist(), strict=True)
            ):
                weighted = config.targets == "rewards"
                key = (index,) if weighted else tuple(answer)
                if key not in found and (score > 0 if weighted else score >= 1.0):
                    found[key] = from_answer(
                        one.problem, one.prompt, answer, text, score, version, seed, one.forwarded
                    )
            played.episodes += scoring.annotated(list(found.values()), [{}] * len(found))
            solved = {tuple(a) for a, s in zip(one.answers, one.scores.tolist(), strict=True) if s >= 1.0}
            played.solutions += len(solved)
            played.solved += bool(solved)
            played.problems += 1
            played.spent += one.forwarded
        played.ledger = sampler.ledger

    return play
