"""How good a reward model is on pairs whose better answer is known, and whether it merely likes long ones.

Arrays in, a record out. It does not run a model (value/reward_model.py) and chooses no threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.preferences import Preference

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs whose confidence lies in [low, high): how sure the model was on average, and how often right."""

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class LengthReport:
    """What length has to do with it; lengths are characters of the answer, without the prompt.

    ``correlation``: Spearman's, of reward with length over all answers; None where either is constant.
    ``preferred_longer``: share of the pairs of unequal lengths in which the model prefers the longer answer,
    and ``chosen_longer`` the share in which the longer one is truly better: the first well above the second
    is a taste for length. The accuracies are those of the pairs whose chosen answer is the longer, the
    shorter, or as long; None where there is no such pair.
    """

    correlation: float | None
    preferred_longer: float | None
    chosen_longer: float | None
    accuracy_chosen_longer: float | None
    accuracy_chosen_shorter: float | None
    accuracy_same_length: float | None


@dataclass(frozen=True)
class RewardReport:
    """``accuracy``: share of pairs whose chosen answer has the higher reward, ties half. ``auc``: chance that
    a chosen answer of any prompt has a higher reward than a rejected one of any prompt, ties half. ``loss``:
    mean -log sigmoid(chosen - rejected) in nats. ``calibration_error``: of sigmoid(chosen - rejected), in
    [0, 1], over ``bins``. ``mean_margin``: mean of chosen - rejected, in units of the reward.
    """

    pairs: int
    accuracy: float
    auc: float
    loss: float
    calibration_error: float
    mean_margin: float
    bins: list[ReliabilityBin]
    length: LengthReport

    def as_dict(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        return asdict(self)


def reward_report(
    preferences: Sequence[Preference], chosen: ArrayLike, rejected: ArrayLike, bins: int = 10
) -> RewardReport:
    """The report on P pairs whose answers have the rewards ``chosen`` and ``rejected``, both [P].

    Raises InputError for no pairs, other shapes, or rewards that are not finite.
    """
    first, second = _paired(chosen, rejected)
    if len(first) != len(preferences):
        raise InputError(f"{len(preferences)} pairs and {len(first)} rewards; give one for each answer")
    table = reliability(first, second, bins)
    return RewardReport(
        pairs=len(first),
        accuracy=pair_accuracy(first, second),
        auc=auc(first, second),
        loss=float(np.logaddexp(0.0, second - first).mean()),
        calibration_error=sum(b.pairs * abs(b.accuracy - b.confidence) for b in table) / len(first),
        mean_margin=float((first - second).mean()),
        bins=table,
        length=_length_report(preferences, first, second),
    )


def pair_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs with chosen > rejected, ties half, of rewards [P]. Raises InputError as
    `reward_report`.
    """
    first, second = _paired(chosen, rejected)
    return float(_wins(first - second).mean())


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the ROC curve of scores [P] and [N]: P(positive > negative) + P(equal) / 2.

    By ranks, in n log n: (sum of the positives' ranks - P (P + 1) / 2) / (P N), the Mann-Whitney statistic
    (Hanley and McNeil 1982). Raises InputError when either side is empty or not finite.
    """
    first, second = _finite(positive), _finite(negative)
    ranks = average_ranks(np.concatenate([first, second]))
    count = len(first)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(second)))


def average_ranks(values: ArrayLike) -> F64:
    """Ranks from 1 of values [n], equal values sharing the mean of theirs, f64 [n]."""
    array = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: F64 = (last - (counts - 1) / 2)[place]
    return mean


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Rank correlation of two [n] in [-1, 1], ties by average ranks; None for fewer than three and where
    either is constant.
    """
    a, b = average_ranks(first), average_ranks(second)
    if len(a) < 3:
        return None
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float(np.clip((a * b).sum() / spread, -1.0, 1.0)) if spread > 0 else None


def reliability(chosen: ArrayLike, rejected: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Confidence against accuracy of pairs with rewards [P], in ``bins`` equal parts of [0.5, 1]; empty ones
    are left out.

    The chosen answer always comes first, which the model must not profit from: its confidence is that of the
    answer it prefers, sigmoid(|chosen - rejected|), and it is right where it prefers the chosen one (half
    right in a tie). The error over such bins is the expected calibration error of Guo et al. 2017
    (arXiv:1706.04599). Raises InputError for fewer than one bin.
    """
    if bins < 1:
        raise InputError(f"reliability bins are {bins}; use 1 or more")
    first, second = _paired(chosen, rejected)
    difference = first - second
    confidence = 1.0 / (1.0 + np.exp(-np.abs(difference)))
    right = _wins(difference)
    edges = np.linspace(0.5, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    table = []
    for index in np.unique(place).tolist():
        inside = place == index
        table.append(
            ReliabilityBin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                pairs=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    return table


def _length_report(preferences: Sequence[Preference], chosen: F64, rejected: F64) -> LengthReport:
    long = np.array([len(one.chosen) for one in preferences])
    short = np.array([len(one.rejected) for one in preferences])
    extra, right = long - short, _wins(chosen - rejected)
    unequal = extra != 0
    prefers_longer = np.where(extra > 0, right, 1.0 - right)
    return LengthReport(
        correlation=spearman(np.concatenate([chosen, rejected]), np.concatenate([long, short])),
        preferred_longer=_mean(prefers_longer[unequal]),
        chosen_longer=_mean((extra > 0)[unequal]),
        accuracy_chosen_longer=_mean(right[extra > 0]),
        accuracy_chosen_shorter=_mean(right[extra < 0]),
        accuracy_same_length=_mean(right[extra == 0]),
    )


def _wins(difference: F64) -> F64:
    """1 above 0, 0 below, and half a win for a tie."""
    wins: F64 = 0.5 * (np.sign(difference) + 1.0)
    return wins


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _paired(chosen: ArrayLike, rejected: ArrayLike) -> tuple[F64, F64]:
    first, second = _finite(chosen), _finite(rejected)
    if first.shape != second.shape:
        raise InputError(f"{len(first)} rewards of chosen answers and {len(second)} of rejected ones")
    return first, second


def _finite(rewards: ArrayLike) -> F64:
    array = np.asarray(rewards, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"rewards have shape {array.shape}; give a list of at least one number")
    if not np.isfinite(array).all():
        raise InputError("a reward is not finite; the model is damaged or its training diverged")
    return array
