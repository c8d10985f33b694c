"""Several rewards as one, each still reported apart, so that it shows which part is being gamed.

Weights are fixed here; schedules live in the parts. It does not load models and reads no configuration
(`reward_config`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import NOTHING_GIVEN, Given, Reals, Reward, check_lengths
from tokenzero.value.row_failures import ask_apart


@dataclass(frozen=True)
class Part:
    """A reward and its weight, finite and at least 0; weight 0 is reported and counts for nothing.

    penalty: it takes off what it lacks of 1, instead of having a share in the mean.
    """

    reward: Reward
    weight: float = 1.0
    penalty: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < math.inf:
            raise InputError(
                f"the weight of reward {self.reward.name!r} is {self.weight}; give 0 or a finite number above"
            )


@dataclass(frozen=True)
class Scores:
    """total f64 [L] in [0, 1], and each part by name, f64 [L] in [0, 1] before its weight."""

    total: Reals
    parts: dict[str, Reals]


class CombinedReward:
    """total = clip(sum_i w_i s_i / sum_i w_i - sum_j v_j (1 - s_j), 0, 1).

    i runs over the parts that are no penalties, j over the penalties; w and v are their weights, s their
    scores. A part that raises on a row, or gives it a number outside [0, 1], scores 0 there and is counted in
    `failures_by_part`: what cannot be scored never earns, and a penalty that cannot be computed is paid in
    full. Raises InputError for parts of the same name, and when no part but penalties has weight.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        twice = [name for name, count in Counter(part.reward.name for part in parts).items() if count > 1]
        if twice:
            raise InputError(f"reward {twice[0]!r} is given twice; name each part once")
        self._weight = math.fsum(part.weight for part in parts if not part.penalty)
        if not 0.0 < self._weight < math.inf:
            raise InputError(
                f"the rewards that are no penalties weigh {self._weight} together; "
                "give one of them a weight above 0"
            )
        self.parts = tuple(parts)
        self.failures_by_part: Counter[str] = Counter()

    @property
    def failures(self) -> int:
        """Rows that a part could not score, over all parts."""
        return self.failures_by_part.total()

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Scores:
        """Scores of L answers. Raises InputError when the lists or the verifier's scores differ in length."""
        check_lengths(prompts, answers, references)
        if given.verified is not None and len(given.verified) != len(answers):
            raise InputError(
                f"{len(given.verified)} verifier scores for {len(answers)} answers: give one each, or None"
            )
        mean, taken = np.zeros(len(answers)), np.zeros(len(answers))
        apart: dict[str, Reals] = {}
        for part in self.parts:
            scores = self._scores(part.reward, prompts, answers, references, given)
            apart[part.reward.name] = scores
            if part.penalty:
                taken += part.weight * (1.0 - scores)
            else:
                mean += part.weight / self._weight * scores
        return Scores(np.clip(mean - taken, 0.0, 1.0), apart)

    def _scores(
        self,
        reward: Reward,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given,
    ) -> Reals:
        def ask(rows: Sequence[int]) -> Reals:
            return reward.score(
                [prompts[row] for row in rows],
                [answers[row] for row in rows],
                [references[row] for row in rows],
                given.of(rows),
            )

        def failed(row: int) -> float:
            return math.nan

        if not answers:
            return np.zeros(0)
        scores = np.array(ask_apart(ask, range(len(answers)), failed), dtype=np.float64)
        if scores.shape != (len(answers),):
            raise InputError(
                f"reward {reward.name!r} must return {len(answers)} scores, got shape {scores.shape}"
            )
        good = (scores >= 0.0) & (scores <= 1.0)  # False for NaN
        self.failures_by_part[reward.name] += int((~good).sum())
        return np.where(good, scores, 0.0)
