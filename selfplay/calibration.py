"""Whether predicted probabilities are as often right as they say.

Plain arithmetic on arrays: it makes no predictions and sets no thresholds (see ``health``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError

F64 = npt.NDArray[np.float64]


class Reliability(NamedTuple):
    """A reliability diagram over the bins in use, f64 [B] each: ``share`` of the cases, mean ``predicted``
    and mean ``observed``.
    """

    share: F64
    predicted: F64
    observed: F64


def reliability(predicted: npt.ArrayLike, observed: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Cases [N] by predicted probability, in ``bins`` of equal width over [0, 1]; ``observed`` is what came,
    in [0, 1]. Raises InputError when there are none, when the lengths differ, or for a number outside [0, 1].
    """
    p, z = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    if p.ndim != 1 or p.shape != z.shape or not p.size:
        raise InputError(f"there are {p.size} predictions and {z.size} outcomes; give one outcome for each")
    both = np.concatenate([p, z])
    if not ((both >= 0) & (both <= 1)).all():  # False for NaN
        raise InputError("a predicted probability or an outcome is outside [0, 1]; rescale it")
    places = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(places, minlength=bins)
    used = counts > 0
    sums = [np.bincount(places, weights, minlength=bins)[used] / counts[used] for weights in (p, z)]
    return Reliability(counts[used] / p.size, *sums)


def calibration_error(predicted: npt.ArrayLike, observed: npt.ArrayLike, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017): mean distance of prediction and outcome over the bins,
    each weighed by its share. In [0, 1]; arguments and errors as in :func:`reliability`.
    """
    found = reliability(predicted, observed, bins)
    return float((found.share * np.abs(found.predicted - found.observed)).sum())


def overconfidence_error(predicted: npt.ArrayLike, observed: npt.ArrayLike, bins: int = 10) -> float:
    """The part of :func:`calibration_error` that comes from bins which promise more than they keep."""
    found = reliability(predicted, observed, bins)
    return float((found.share * np.maximum(found.predicted - found.observed, 0.0)).sum())


def explained_variance(predicted: npt.ArrayLike, observed: npt.ArrayLike) -> float | None:
    """1 - Var(observed - predicted) / Var(observed), as reinforcement learning reports it of value functions:
    1 when all differences are foretold, 0 for a constant, below 0 for worse. An error common to all cases
    does not count; see :func:`calibration_error`. None when all outcomes are alike: nothing to explain.

    Raises InputError when the lengths differ or are 0.
    """
    p, z = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    if p.shape != z.shape or not p.size:
        raise InputError(f"there are {p.size} predictions and {z.size} outcomes; give one outcome for each")
    variance = float(z.var())
    return 1.0 - float((z - p).var()) / variance if variance > 0 else None
