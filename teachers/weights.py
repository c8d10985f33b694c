"""How much each teacher is heard: weights from running scores of what its proposals led to.

A score says how much likelier success was after a teacher's proposals than after the whole ensemble's, in
log-odds, low-pass filtered over rounds: twice as likely counts alike for a weak student that hardly ever
succeeds and for a strong one that hardly ever fails. Scores are kept over everything and per context (a task
tag and a stage of the answer), so that a specialist can lead where it is good. It does not compute credit
(see ``credit``) and asks nobody.

    w = (1 - epsilon) * softmax(score / temperature) + epsilon / n, capped, and mixed with the uniform weights
    until its entropy reaches the floor

so no weight is ever below epsilon / n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

F64 = NDArray[np.float64]
GLOBAL = ""
"""The context that holds everything."""
PRIOR = 10.0
"""Consultations at the ensemble's rate that every teacher is granted, so that one lucky hit is no score."""
STILL = 0.005
"""A change of weight that is none."""
SURE = 0.005
"""Chances of success are taken to lie this far from 0 and 1."""


@dataclass(frozen=True)
class WeightConfig:
    """temperature: of the softmax, in nats of log-odds. epsilon: share that is
    dealt out equally. cap: highest weight. entropy_floor: least entropy, as a share of that of equal weights.
    low_pass: how much of a new round's credit enters a score. patience: consultations worth of evidence at
    which a context's own score counts as much as the global one. dynamic: False keeps equal weights.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    temperature: float = 0.25
    epsilon: float = 0.1
    cap: float = 1.0
    entropy_floor: float = 0.0
    low_pass: float = 0.7
    patience: float = 200.0
    dynamic: bool = True

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 < self.epsilon <= 1 or not 0 < self.low_pass <= 1:
            raise InputError(
                f"ensemble.weights has temperature {self.temperature}, epsilon {self.epsilon} and low_pass "
                f"{self.low_pass}; give a temperature above 0, the others above 0 and at most 1"
            )
        if not 0 < self.cap <= 1 or not 0 <= self.entropy_floor < 1 or self.patience < 0:
            raise InputError(
                f"ensemble.weights has cap {self.cap}, entropy_floor {self.entropy_floor} and patience "
                f"{self.patience}; give a cap above 0 and at most 1, a floor from 0 to below 1, patience >= 0"
            )


@dataclass
class Standing:
    """One context's state: ``score`` f64 [n] and ``evidence`` f64 [n], consultations credited so far, older
    rounds counted for less."""

    score: F64
    evidence: F64


@dataclass(frozen=True)
class Credit:
    """What a round came to in one context: for each of n teachers f64 [n] the mean outcome after its
    proposals, ``worth``, and how many consultations that rests on, ``evidence``; ``mean`` the same of
    whatever was proposed by anyone.
    """

    worth: F64
    evidence: F64
    mean: float


class TeacherWeights:
    """Scores and weights of the teachers called ``names``. Mutable: `update` is called once a round."""

    def __init__(self, names: Sequence[str], config: WeightConfig) -> None:
        if len(set(names)) < len(names):
            raise InputError(f"teachers {', '.join(names)} are not all called differently; name each once")
        self.names = list(names)
        self.config = config
        self._standing: dict[str, Standing] = {}

    def of(self, context: str = GLOBAL) -> F64:
        """Weights f64 [n] in a context, sum 1. A context without evidence has the global ones."""
        n = len(self.names)
        if not self.config.dynamic or not self._standing:
            return np.full(n, 1.0 / n)
        return weights_of(self._scores(context), self.config)

    def update(self, credits: Mapping[str, Credit]) -> dict[str, dict[str, dict[str, Any]]]:
        """Let a round's credit into the scores; ``credits`` by context, GLOBAL among them.

        Returns, by context and teacher, weight, score and why: what a run's record holds, and what
        `load` takes.
        """
        before = {context: self._known(context) for context in credits}
        weighed = {context: self.of(context) for context in credits}
        alpha = self.config.low_pass
        for context, credit in credits.items():
            standing = self._standing.setdefault(context, self._fresh())
            heard = credit.evidence > 0
            news = np.where(heard, advantage(credit), 0.0)
            # The first news is taken as it is: a start at 0 would be an opinion.
            share = np.where(standing.evidence > 0, alpha, 1.0)
            standing.score = np.where(heard, (1 - share) * standing.score + share * news, standing.score)
            standing.evidence = (1 - alpha) * standing.evidence + credit.evidence
        return {
            context: self._explained(context, credit, before[context], weighed[context])
            for context, credit in credits.items()
        }

    def load(self, record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Take up what `update` returned, for teachers that are still here."""
        for context, teachers in record.items():
            standing = self._standing.setdefault(context, self._fresh())
            for index, name in enumerate(self.names):
                if name in teachers:
                    standing.score[index] = teachers[name]["score"]
                    standing.evidence[index] = teachers[name]["evidence"]

    def _known(self, context: str) -> F64:
        return self._standing.get(context, self._fresh()).score.copy()

    def _fresh(self) -> Standing:
        return Standing(np.zeros(len(self.names)), np.zeros(len(self.names)))

    def _scores(self, context: str) -> F64:
        """Of a context, drawn towards the global ones as long as there is little evidence."""
        everywhere = self._standing.get(GLOBAL, self._fresh())
        here = self._standing.get(context)
        if here is None or context == GLOBAL:
            return everywhere.score.copy()
        trust = here.evidence / np.maximum(here.evidence + self.config.patience, 1e-12)
        return trust * here.score + (1 - trust) * everywhere.score

    def _explained(
        self, context: str, credit: Credit, before: F64, weighed: F64
    ) -> dict[str, dict[str, Any]]:
        weight, standing = self.of(context), self._standing[context]
        told = {}
        for index, name in enumerate(self.names):
            told[name] = {
                "weight": float(weight[index]),
                "weight_before": float(weighed[index]),
                "score": float(standing.score[index]),
                "score_before": float(before[index]),
                "credit": float(credit.worth[index]),
                "ensemble": credit.mean,
                "evidence": float(standing.evidence[index]),
                "reason": self._reason(index, credit, float(weight[index]), float(weighed[index])),
            }
        return told

    def _reason(self, index: int, credit: Credit, weight: float, before: float) -> str:
        """One sentence for people: weights are relative, so it names what the others came to."""
        change = weight - before
        moved = "rose" if change > STILL else "fell" if change < -STILL else "stayed"
        if credit.evidence[index] <= 0:
            return f"{moved}: no proposal of its own this round; its score stays"
        floor = self.config.epsilon / len(self.names)
        at = ", to the floor" if self.config.dynamic and weight <= floor + STILL else ""
        others = np.delete(credit.worth, index)[np.delete(credit.evidence, index) > 0]
        beside = f", the other teachers' to {others.mean():+.2f}" if others.size else ""
        return (
            f"{moved}{at}: its proposals came to {credit.worth[index]:+.2f}{beside}, everyone's to "
            f"{credit.mean:+.2f}, over {credit.evidence[index]:,.0f} states"
        )


def advantage(credit: Credit) -> F64:
    """log-odds of success after each teacher's proposals, less those of the ensemble's; f64 [n]."""
    mean = 0.5 * (credit.mean + 1.0)
    chance = 0.5 * (credit.worth + 1.0)
    chance = (chance * credit.evidence + PRIOR * mean) / (credit.evidence + PRIOR)
    return _log_odds(chance) - _log_odds(np.asarray(mean))


def _log_odds(chance: F64) -> F64:
    chance = np.clip(chance, SURE, 1.0 - SURE)
    odds: F64 = np.log(chance) - np.log1p(-chance)
    return odds


def weights_of(scores: F64, config: WeightConfig) -> F64:
    """Weights f64 [n] of ``scores`` f64 [n]: see the head of this file."""
    n = len(scores)
    odds = np.exp((scores - scores.max()) / config.temperature)
    weights = (1 - config.epsilon) * odds / odds.sum() + config.epsilon / n
    weights = _capped(weights, max(config.cap, 1.0 / n))
    return _spread(weights, config.entropy_floor * np.log(n))


def entropy(weights: F64) -> float:
    """In nats."""
    return float(-(weights * np.log(weights)).sum())


def _capped(weights: F64, cap: float) -> F64:
    """What lies above the cap is dealt out to the others, in proportion."""
    for _ in range(len(weights)):
        above = weights > cap
        if not above.any():
            break
        rest = 1.0 - cap * np.count_nonzero(weights >= cap)
        below = weights < cap
        if not below.any():
            return np.full(len(weights), 1.0 / len(weights))
        weights = np.where(below, weights * rest / weights[below].sum(), cap)
    return weights


def _spread(weights: F64, floor: float) -> F64:
    """Mixed with equal weights as little as the entropy floor asks for."""
    if entropy(weights) >= floor:
        return weights
    equal, low, high = np.full(len(weights), 1.0 / len(weights)), 0.0, 1.0
    for _ in range(50):
        share = 0.5 * (low + high)
        if entropy((1 - share) * weights + share * equal) < floor:
            low = share
        else:
            high = share
    return (1 - high) * weights + high * equal
