"""Which of several answers is given: by verdict, value, judge or likelihood, or by a vote.

It draws nothing. Ties go to the answer that was drawn first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.methods.config import CHOOSERS, VOTES
from tokenzero.selfplay.methods.decoder import Answer
from tokenzero.selfplay.parts import Parts
from tokenzero.tasks import PublicProblem
from tokenzero.value.judge import tokens_of

Choose = Callable[[PublicProblem, Sequence[Answer], Ledger], Answer]
"""(problem, finished answers, at least one; the ledger that pays for it) -> the one to give."""


def chooser(parts: Parts, choose: str) -> Choose:
    """The chooser called ``choose``; "first" gives the first answer.

    Raises InputError for an unknown name, and where the parts lack who it asks.
    """
    if choose == "first":
        return lambda problem, answers, ledger: answers[0]
    if choose not in CHOOSERS:
        raise InputError(f"choose is {choose!r}; use one of {', '.join(CHOOSERS)}")
    if choose == "verifier" and not parts.task.public_verifier:
        raise InputError(
            f"choose=verifier needs public verdicts, and {parts.task.name} has none; use value, judge or "
            "likelihood"
        )
    if choose == "value":
        _check_value_head(parts, "choose", "verifier, judge or likelihood")
    if choose == "judge":
        return _by_judge(parts)
    return lambda problem, answers, ledger: max(answers, key=_KEYS[choose])


def _check_value_head(parts: Parts, option: str, others: str) -> None:
    if parts.value_head is None:
        raise InputError(
            f"{option}=value needs a value head, and this checkpoint has none; use {others}, or a checkpoint "
            "of self-play"
        )


def _verified(answer: Answer) -> tuple[float, float]:
    return float(answer.verdict == 1.0), answer.log_probability


def _valued(answer: Answer) -> tuple[float, float]:
    return -math.inf if answer.value is None else answer.value, answer.log_probability


def _likely(answer: Answer) -> tuple[float, float]:
    return answer.log_probability, 0.0


_KEYS = {"verifier": _verified, "value": _valued, "likelihood": _likely}


def _by_judge(parts: Parts) -> Choose:
    judge = parts.judge
    if judge is None:
        raise InputError(
            "choose=judge needs a judge, and none is configured; use verifier, value or likelihood, or "
            "configure one"
        )

    def choose(problem: PublicProblem, answers: Sequence[Answer], ledger: Ledger) -> Answer:
        spent = tokens_of(judge)
        verdicts = judge.judge([problem.prompt] * len(answers), [answer.text for answer in answers])
        ledger.judge_calls += len(answers)
        ledger.judge_tokens += tokens_of(judge) - spent
        ranked = zip(verdicts.tolist(), answers, strict=True)
        return max(ranked, key=lambda pair: (pair[0], pair[1].log_probability))[1]

    return choose


def voting(parts: Parts, vote: str) -> Choose:
    """A vote over the final answers of ``Task.final_answer``; the first sample with the winning one is given.

    A ballot weighs 1 ("count"), the sample's probability ("likelihood"), or its value as a probability of
    success ("value"). Samples that state no final answer vote only where none states one. Raises InputError
    for an unknown name, and for "value" without a value head.
    """
    if vote not in VOTES:
        raise InputError(f"vote is {vote!r}; use one of {', '.join(VOTES)}")
    if vote == "value":
        _check_value_head(parts, "vote", "count or likelihood")

    def choose(problem: PublicProblem, answers: Sequence[Answer], ledger: Ledger) -> Answer:
        stated = [parts.task.final_answer(answer.text) for answer in answers]
        # Weights relative to the likeliest sample, since the probability of a long answer is 0 in floats.
        most = max(answer.log_probability for answer in answers)
        votes: dict[str, float] = {}
        for answer, final in zip(answers, stated, strict=True):
            weight = 1.0
            if vote == "likelihood":
                weight = math.exp(answer.log_probability - most)
            elif vote == "value":
                weight = 0.0 if answer.value is None else (answer.value + 1.0) / 2.0
            votes[final] = votes.get(final, 0.0) + weight
        winner = max(votes, key=lambda final: (final != "", votes[final]))
        return answers[stated.index(winner)]

    return choose
