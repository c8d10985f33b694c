"""What finished answers to training problems are worth: the task's verifier, or rewards that a config mixes.

Rewards may read the gold reference, so this serves self-play on training problems and nothing else; held-out
accuracy is the task's own score (see ``evaluation``). It also asks the judges about finished answers for the
audit, which nothing is learnt from. It decides no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.outcomes import Grader
from tokenzero.tasks import Problem, Task
from tokenzero.value import Judge
from tokenzero.value.judge import tokens_of
from tokenzero.value.reward_mix import CombinedReward
from tokenzero.value.rewards import Given


@dataclass(frozen=True)
class Worth:
    """Of L answers: ``total`` f64 [L] in [0, 1], and the ``parts`` it was mixed from, by name, of each."""

    total: npt.NDArray[np.float64]
    parts: list[dict[str, float]]


class Scoring:
    """Scores of a ``task``'s training problems in round ``round_index``, by ``rewards`` where there are any.

    ``judge`` is the one that search listens to, ``audit_judge`` one that it never asks; ``ledger`` counts
    what they are asked here.
    """

    def __init__(
        self,
        task: Task,
        rewards: CombinedReward | None = None,
        round_index: int = 1,
        judge: Judge | None = None,
        audit_judge: Judge | None = None,
    ) -> None:
        self.task = task
        self._rewards = rewards
        self._round = round_index
        self._judge = judge
        self._audit_judge = audit_judge
        self.ledger = Ledger()

    def worth(self, problems: Sequence[Problem], answers: Sequence[str]) -> Worth:
        """What ``answers`` to ``problems`` are worth; empty parts without rewards."""
        verified = [self.task.score(p, answer) for p, answer in zip(problems, answers, strict=True)]
        if self._rewards is None:
            return Worth(np.asarray(verified, np.float64), [{} for _ in answers])
        scores = self._rewards.score(
            [problem.public.prompt for problem in problems],
            answers,
            [problem.reference for problem in problems],
            Given(self._round - 1, verified),
        )
        parts = [{name: float(s[i]) for name, s in scores.parts.items()} for i in range(len(answers))]
        return Worth(scores.total, parts)

    def grader(self, problems: Sequence[Problem]) -> Grader:
        """The worth of an answer to one of ``problems`` by its index."""

        def grade(number: int, text: str) -> float:
            if self._rewards is None:
                return self.task.score(problems[number], text)
            return float(self.worth([problems[number]], [text]).total[0])

        return grade

    @property
    def public(self) -> bool:
        """Whether search needs no grader: anyone can say what an answer is worth."""
        return self.task.public_verifier and self._rewards is None

    def annotated(self, episodes: Sequence[Episode], worth: Sequence[dict[str, float]]) -> list[Episode]:
        """The episodes with the parts of their worth and the judges' verdicts on their answers."""
        prompts = [episode.prompt for episode in episodes]
        answers = [episode.answer for episode in episodes]
        verdicts, audits = (self._asked(j, prompts, answers) for j in (self._judge, self._audit_judge))
        return [
            replace(episode, rewards=parts, verdict=verdict, audit_verdict=audit)
            for episode, parts, verdict, audit in zip(episodes, worth, verdicts, audits, strict=True)
        ]

    def _asked(self, judge: Judge | None, prompts: Sequence[str], answers: Sequence[str]) -> list[int]:
        if judge is None or not answers:
            return [0] * len(answers)
        before = tokens_of(judge)
        verdicts: list[int] = judge.judge(prompts, answers).tolist()
        self.ledger.judge_calls += len(answers)
        self.ledger.judge_tokens += tokens_of(judge) - before
        return verdicts
