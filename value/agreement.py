"""Does the judge that search listens to agree with one that it never hears, and with the outcome?

A policy that learns to please its judge keeps the judge's favour and loses the audit judge's; agreement that
falls from round to round is the sign. This file measures; what is an alarm is decided by the report that
prints it, and no verdict asked for here reaches search or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Judge, checked_verdicts, paired

VERDICTS = (-1, 0, 1)


@dataclass(frozen=True)
class JudgeReport:
    """One judge against the outcome. Shares of nothing are None.

    verdicts: how often -1, 0 and 1. accept_precision: of the accepted answers, the share that was solved;
    accept_recall: of the solved answers, the share accepted. reject_precision, reject_recall: the same for
    rejected and unsolved ones. failures: verdicts that could not be made, among the 0s.
    """

    name: str
    verdicts: tuple[int, int, int]
    accept_precision: float | None
    accept_recall: float | None
    reject_precision: float | None
    reject_recall: float | None
    failures: int


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers.

    confusion[i][j]: answers on which the first said VERDICTS[i] and the second VERDICTS[j]. agreement: the
    share on the diagonal. kappa: Cohen's (Cohen 1960), (agreement - chance) / (1 - chance), with chance the
    agreement of independent judges that use each verdict as often; None where chance is 1. Both None without
    answers.
    """

    answers: int
    solved: int
    confusion: tuple[tuple[int, int, int], ...]
    agreement: float | None
    kappa: float | None
    first: JudgeReport
    second: JudgeReport

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def agreement(
    first: Judge, second: Judge, prompts: Sequence[str], answers: Sequence[str], outcomes: ArrayLike
) -> Agreement:
    """Ask both judges about finished answers of known outcome.

    outcomes: [L] in [-1, 1] or bool; solved where above 0. Raises InputError when the lengths differ.
    """
    pairs = paired(prompts, answers)
    if np.shape(outcomes) != (len(pairs),):
        raise InputError(f"{len(pairs)} answers have outcomes of shape {np.shape(outcomes)}: give one each")
    failures = [0, 0]
    verdicts = []
    for index, judge in enumerate((first, second)):
        before = judge.failures
        verdicts.append(checked_verdicts(judge.judge(prompts, answers), len(pairs)))
        failures[index] = judge.failures - before
    return agreement_of_verdicts(
        verdicts[0],
        verdicts[1],
        outcomes,
        names=(first.name, second.name),
        failures=(failures[0], failures[1]),
    )


def agreement_of_verdicts(
    first: ArrayLike,
    second: ArrayLike,
    outcomes: ArrayLike,
    *,
    names: tuple[str, str] = ("judge", "audit judge"),
    failures: tuple[int, int] = (0, 0),
) -> Agreement:
    """The same from verdicts [L] that were recorded. Raises InputError for other verdicts or lengths."""
    solved = np.asarray(outcomes, dtype=np.float64) > 0
    if solved.ndim != 1:
        raise InputError(f"outcomes have shape {solved.shape}: give one number per answer")
    ours = [checked_verdicts(verdicts, len(solved)).astype(np.int64) for verdicts in (first, second)]
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (ours[0] + 1, ours[1] + 1), 1)
    agreed, kappa = _agreement(confusion)
    return Agreement(
        answers=len(solved),
        solved=int(solved.sum()),
        confusion=tuple((int(a), int(b), int(c)) for a, b, c in confusion),
        agreement=agreed,
        kappa=kappa,
        first=_report(names[0], ours[0], solved, failures[0]),
        second=_report(names[1], ours[1], solved, failures[1]),
    )


def _agreement(confusion: NDArray[np.int64]) -> tuple[float | None, float | None]:
    total = int(confusion.sum())
    if not total:
        return None, None
    same = int(np.trace(confusion))
    by_chance = int(confusion.sum(axis=1) @ confusion.sum(axis=0))  # times total squared, so still exact
    if by_chance == total * total:
        return same / total, None
    return same / total, (same * total - by_chance) / (total * total - by_chance)


def _report(name: str, verdicts: NDArray[np.int64], solved: NDArray[np.bool_], failures: int) -> JudgeReport:
    accepted, rejected = verdicts > 0, verdicts < 0
    return JudgeReport(
        name=name,
        verdicts=(int(rejected.sum()), int((verdicts == 0).sum()), int(accepted.sum())),
        accept_precision=_share(solved, accepted),
        accept_recall=_share(accepted, solved),
        reject_precision=_share(~solved, rejected),
        reject_recall=_share(rejected, ~solved),
        failures=failures,
    )


def _share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(of[among].mean()) if among.any() else None
