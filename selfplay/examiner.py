"""What a round's candidate is worth: held-out accuracy, health, and its matches in the arena.

It plays and measures; what follows from it is decided elsewhere (``course``). No weights change here, and
training problems are seen only through games that were played on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tokenzero.policy.pretrain import Example
from tokenzero.policy.student import Student
from tokenzero.selfplay import elo
from tokenzero.selfplay.arena import Match, meet, meet_ladder, should_promote
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.evaluation import evaluate, play_and_score
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.health import Alarm, Probe, check, measure, probe
from tokenzero.selfplay.health_measures import path_of
from tokenzero.selfplay.learner import Losses
from tokenzero.selfplay.listener import Listener, Record
from tokenzero.selfplay.methods import Search, greedy
from tokenzero.selfplay.net import Net
from tokenzero.selfplay.play_stage import Played
from tokenzero.tasks import Task

SELECTED = ("solutions", "rewards")
"""Kinds of targets for which lost games are not kept."""


@dataclass(frozen=True)
class HeldOut:
    """Accuracy on held-out problems, greedy and with search, None where not asked for; ``probe`` of the
    greedy games.
    """

    greedy: float | None = None
    search: float | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class Bout:
    """What the arena came to. ``won`` says whether the candidate is promoted; ``record`` goes into the
    round's record, None while the arena is off.
    """

    won: bool = True
    record: Record | None = None


class Examiner:
    """Examines nets for one run. Owns nothing; ``reference`` is the warm start, None while there is none."""

    def __init__(self, config: SelfPlayConfig, task: Task, listener: Listener) -> None:
        self.reference: Student | None = None
        self._config = config
        self._task = task
        self._listener = listener

    def held_out(self, net: Net, parts: Parts, rng: np.random.Generator) -> HeldOut:
        """Answer the held-out problems with ``net``, whose ``parts`` these are."""
        config = self._config.evaluation
        problems = self._task.problems(config.split)[: config.problems]
        if not problems:
            return HeldOut()
        few = problems[: config.search_problems] if config.simulations else []
        self._listener.stage("evaluate", len(problems) + len(few))
        advance = self._listener.advance
        score, games, scores = play_and_score(greedy(parts), self._task, problems, rng, advance)
        searched = None
        if few:
            search = Search(parts, self._search(config.simulations), self._config.play.leaf)
            searched = evaluate(search, self._task, few, rng, advance).accuracy
        most = self._config.health.games
        examples = [Example(game.prompt + game.tokens, len(game.prompt)) for game in games[:most]]
        outcomes = [2.0 * min(max(score, 0.0), 1.0) - 1.0 for score in scores[:most]]
        return HeldOut(score.accuracy, searched, self._probe(net, examples, outcomes, self.reference))

    def of_games(self, net: Net, episodes: Sequence[Episode], rng: np.random.Generator) -> Probe | None:
        """What ``net`` says of some of ``episodes``, drawn by ``rng``; None where only won ones are kept,
        which say nothing about values.
        """
        if self._config.play.targets in SELECTED:
            return None
        most = min(self._config.health.games, len(episodes))
        if not most:
            return None
        chosen = np.sort(rng.choice(len(episodes), size=most, replace=False))
        paths = [path_of(episodes[index], rng) for index in chosen.tolist()]
        return self._probe(net, [path for path, _ in paths], [z for _, z in paths], None)

    def _probe(
        self, net: Net, examples: Sequence[Example], outcomes: Sequence[Any], reference: Student | None
    ) -> Probe | None:
        if not examples:
            return None
        return probe(net.student, net.head, examples, outcomes, reference=reference)

    def health(
        self,
        losses: Losses | None,
        played: Played,
        held_out: Probe | None,
        fresh: Probe | None,
        learnt: Probe | None,
        records: Sequence[Record],
    ) -> tuple[dict[str, float], list[Alarm]]:
        """The measures of a round and the alarms they raise, given the records of those before. ``losses`` is
        None when nothing was learnt.
        """
        dropped = played.problems - played.solved if self._config.play.targets in SELECTED else 0
        measures = measure(
            losses, played.episodes, held_out=held_out, fresh=fresh, learnt=learnt, dropped=dropped
        )
        history = [_finite(record["health"]) for record in records if record["games"]]
        return measures, check(measures, history, self._config.health)

    def bout(
        self,
        candidate: Parts,
        incumbent: Parts,
        past: Mapping[int, Parts],
        number: int,
        records: Sequence[Record],
        rng: np.random.Generator,
    ) -> Bout:
        """The candidate of round ``number`` against the incumbent and, for their ratings, against ``past``
        rounds.
        """
        config = self._config.arena
        problems = self._task.problems(config.split)
        ways = 2 if config.simulations else 1
        self._listener.stage("arena", 2 * ways * min(config.max_problems, len(problems)))
        advance = self._listener.advance

        def match(simulations: int) -> Match:
            methods = [self._method(parts, simulations) for parts in (candidate, incumbent)]
            return meet(methods[0], methods[1], self._task, problems, rng, config, advance)

        raw = match(0)
        searched = match(config.simulations) if config.simulations else None
        rungs = meet_ladder(
            greedy(candidate),
            [greedy(parts) for parts in past.values()],
            self._task,
            problems[: config.ladder_problems],
            rng,
        )
        record: Record = {
            "against": int(records[-1]["incumbent"]),
            "raw": raw.as_dict(),
            "search": None if searched is None else searched.as_dict(),
            "ladder": [{"against": rung, **met.as_dict()} for rung, met in zip(past, rungs, strict=True)],
        }
        rating = ladder_ratings([*records, {"round": number, "arena": record}])[number]
        record["elo"] = rating.elo
        record["elo_error"] = rating.standard_error
        return Bout(should_promote(raw, searched), record)

    def _method(self, parts: Parts, simulations: int) -> Search:
        if not simulations:
            return greedy(parts)
        return Search(parts, self._search(simulations), self._config.play.leaf)

    def _search(self, simulations: int) -> Any:
        return replace(self._config.play.search, simulations=simulations)


def ladder_ratings(records: Sequence[Mapping[str, Any]]) -> dict[int, elo.Rating]:
    """Ratings of the rounds by every match of their raw policies so far; the warm start has 0."""
    pairings = []
    for record in records:
        arena = record.get("arena")
        if arena is None:
            continue
        for match in ({"against": arena["against"], **arena["raw"]}, *arena["ladder"]):
            counts = (match["wins"], match["losses"], match["ties"])
            pairings.append((record["round"], match["against"], *counts))
    return elo.ratings(pairings)


def without_infinities(measures: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for numbers that are not finite, which JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in measures.items()
    }


def alarm_records(alarms: Sequence[Alarm]) -> list[Record]:
    """Alarms as they are written into a record."""
    return [without_infinities(asdict(alarm)) for alarm in alarms]


def _finite(measures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if value is not None}
