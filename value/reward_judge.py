"""A reward model as judge: two thresholds turn a score into a verdict, and labelled answers say which.

It trains and scores nothing itself (value/reward_model.py). Precision is measured on the answers that the
thresholds were chosen on, so it flatters; measure it again on others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Verdicts, fingerprint, paired

LEAST = 10
"""Answers that a calibrated threshold must speak about, by default."""


class Scorer(Protocol):
    """score(prompts, answers) -> f32 [L], higher is better. Same pair, same score."""

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float32]: ...


class RewardJudge:
    """score <= low rejects, score >= high accepts, in between 0.

    low < high; -inf or +inf turns a side off. version: that of the scorer, read from its `version` unless it
    is given. A batch on which the scorer raises or returns another shape is 0 and counted in `failures`, and
    so is a score that is not a number. Raises InputError for thresholds in the wrong order and for a scorer
    without version.
    """

    def __init__(
        self, scorer: Scorer, low: float, high: float, *, version: str = "", name: str = "reward_model"
    ) -> None:
        check_thresholds(low, high)
        if not version and not getattr(scorer, "version", ""):
            raise InputError(
                f"{type(scorer).__name__} has no version; give one that changes with its weights"
            )
        self.name = name
        self.scorer = scorer
        self.low = low
        self.high = high
        self.failures = 0
        self._version = version

    @property
    def version(self) -> str:
        """Hash of the scorer's version and the thresholds."""
        scorer = self._version or str(getattr(self.scorer, "version", ""))
        return fingerprint("reward_model", scorer, repr(self.low), repr(self.high))

    @property
    def tokens(self) -> int:
        """Tokens that the scorer forwarded, when it counts them."""
        return int(getattr(self.scorer, "tokens", 0))

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = paired(prompts, partials)
        if not pairs:
            return np.zeros(0, np.int8)
        try:
            scores = np.asarray(self.scorer.score(prompts, partials), dtype=np.float64)
        # A scorer is a model that may fail in any way; the run must go on without it.
        except Exception:  # noqa: BLE001
            scores = np.full(len(pairs), np.nan)
        if scores.shape != (len(pairs),):
            scores = np.full(len(pairs), np.nan)
        self.failures += int(np.isnan(scores).sum())
        return (scores >= self.high).astype(np.int8) - (scores <= self.low).astype(np.int8)


def check_thresholds(low: float, high: float) -> None:
    """Raises InputError unless low < high."""
    if not low < high:
        raise InputError(f"judge thresholds are low {low} and high {high}: low must be below high")


@dataclass(frozen=True)
class Thresholds:
    """`low, high = thresholds`, and what they did on the answers they were chosen on.

    answers, solved: how many there were. rejected: with score <= low; reject_precision: the share of them
    that was not solved. accepted, accept_precision: the same at high. None for a share of nothing.
    """

    low: float
    high: float
    answers: int
    solved: int
    rejected: int
    reject_precision: float | None
    accepted: int
    accept_precision: float | None

    def __iter__(self) -> Any:
        return iter((self.low, self.high))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def calibrated_thresholds(
    scores: ArrayLike, outcomes: ArrayLike, precision: float, *, least: int = LEAST
) -> Thresholds:
    """The thresholds that speak about most answers while each side is right at least `precision` often.

    scores [N]; outcomes [N] in [-1, 1] or bool, solved where above 0; precision in (0, 1]; each side must
    speak about `least` answers. Of equal ones, those that are right more often, then the lower ones.

    Raises InputError when it is impossible, with the precision that is reachable.
    """
    values, solved = _labelled(scores, outcomes)
    if not 0.0 < precision <= 1.0:
        raise InputError(f"precision is {precision}: give a number above 0, at most 1")
    if least < 1:
        raise InputError(f"least is {least}: a threshold must speak about 1 answer or more")
    levels, rejected, reject_precision = _cumulative(values, ~solved)
    _, counts, reached = _cumulative(-values, solved)
    accepted, accept_precision = counts[::-1], reached[::-1]  # by rising level, as the others
    lows = _reaching("low", rejected, reject_precision, precision, least)
    highs = _reaching("high", accepted, accept_precision, precision, least)
    best, chosen = (-1.0, 0.0), (0, 0)
    for low in lows.tolist():
        above = highs[highs > low]
        if not above.size:
            continue
        high = int(above[0])  # the first one above accepts most
        right = rejected[low] * reject_precision[low] + accepted[high] * accept_precision[high]
        spoken = (float(rejected[low] + accepted[high]), float(right))
        if spoken > best:
            best, chosen = spoken, (low, high)
    if best[0] < 0:
        raise InputError(
            f"no low threshold of precision {precision} lies below a high one: the scores rank the answers "
            "the wrong way round or hardly at all; train the scorer, or turn its sign"
        )
    return _report(float(levels[chosen[0]]), float(levels[chosen[1]]), values, solved)


def quantile_thresholds(
    scores: ArrayLike, outcomes: ArrayLike, *, reject: float, accept: float
) -> Thresholds:
    """Thresholds that reject the share `reject` of the lowest scores and accept `accept` of the highest, as
    nearly as equal scores allow: never more than the share. Shapes as `calibrated_thresholds`.

    Raises InputError for shares outside [0, 1) or with a sum above 1.
    """
    values, solved = _labelled(scores, outcomes)
    if not (0.0 <= reject < 1.0 and 0.0 <= accept < 1.0 and reject + accept <= 1.0):
        raise InputError(f"shares are reject {reject} and accept {accept}: give two of at most 1 together")
    levels, below, _ = _cumulative(values, solved)
    above = len(values) - below + np.diff(below, prepend=0)
    lows = np.flatnonzero(below <= reject * len(values) + 1e-9)
    highs = np.flatnonzero(above <= accept * len(values) + 1e-9)
    low = float(levels[lows[-1]]) if lows.size else -math.inf
    high = float(levels[highs[0]]) if highs.size else math.inf
    return _report(low, high, values, solved)


def _labelled(scores: ArrayLike, outcomes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    solved = np.asarray(outcomes, dtype=np.float64) > 0
    if values.ndim != 1 or values.shape != solved.shape or not values.size:
        raise InputError(
            f"scores have shape {values.shape} and outcomes {solved.shape}: give one of each per answer"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"{int((~np.isfinite(values)).sum())} scores are not finite: leave those answers out"
        )
    return values, solved


def _cumulative(
    values: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Distinct values rising; how many answers lie at or below each; the share of those that is right."""
    levels, place = np.unique(values, return_inverse=True)
    counts = np.cumsum(np.bincount(place, minlength=len(levels)))
    hits = np.cumsum(np.bincount(place, weights=right, minlength=len(levels)))
    return levels, counts, hits / counts


def _reaching(
    side: str, counts: NDArray[np.int64], reached: NDArray[np.float64], precision: float, least: int
) -> NDArray[np.int64]:
    """Levels that are precise enough and speak about enough."""
    if counts.max() < least:
        raise InputError(f"{counts.max()} answers cannot set a threshold for {least}: label more")
    enough = counts >= least
    good = np.flatnonzero(enough & (reached >= precision - 1e-12))
    if not good.size:
        best = float(reached[enough].max())
        raise InputError(
            f"no {side} threshold has precision {precision} on {least} answers or more: {best:.3f} is "
            "reachable; ask for that or train the scorer"
        )
    return good


def _report(low: float, high: float, values: NDArray[np.float64], solved: NDArray[np.bool_]) -> Thresholds:
    no, yes = values <= low, values >= high
    return Thresholds(
        low=low,
        high=high,
        answers=len(values),
        solved=int(solved.sum()),
        rejected=int(no.sum()),
        reject_precision=float((~solved[no]).mean()) if no.any() else None,
        accepted=int(yes.sum()),
        accept_precision=float(solved[yes].mean()) if yes.any() else None,
    )
