"""What goes between a search and the thing that knows the game: `Evaluation` and `Evaluator`.

This file also checks what an evaluator hands over, so that the kernels can trust it. It evaluates nothing
itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.compiled import call, kernel
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.records import Rows

INFINITY = np.float32(np.inf)
DTYPES = tuple(
    np.dtype(kind) for kind in (np.int64, np.float32, np.float32, np.float32, np.bool_, np.int64)
)  # of the fields of `Rows`, in order


@dataclass
class Evaluation:
    """L evaluated nodes with up to K candidate actions each.

    actions: int64 [L, K], opaque ids, -1 in slots that hold no candidate.
    logits: float32 [L, K], unnormalised log prior; ignored in empty slots; -inf allowed unless a whole row
        is.
    value: float32 [L], expected outcome of the node itself, by convention in [-1, 1].
    reward: float32 [L], on the edge into the node; ignored at a root.
    terminal: bool [L].
    states: int64 [L], handles that the evaluator will be given back.
    """

    actions: NDArray[np.int64]
    logits: NDArray[np.float32]
    value: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    states: NDArray[np.int64]


class Evaluator(Protocol):
    """Knows states and actions; the search knows only their numbers."""

    def expand(self, states: NDArray[np.int64], actions: NDArray[np.int64]) -> Evaluation:
        """Evaluate the L children reached from parent handles `states` [L] by `actions` [L], in that
        order.
        """
        ...

    def release(self, states: NDArray[np.int64]) -> None:
        """Forget handles. A search never calls it: the handles of a finished tree belong to the caller."""
        ...


def checked(evaluation: Evaluation, rows: int, candidates: int, name: str) -> Rows:
    """The evaluation with exact dtypes, padded to `candidates` slots; as it is if it is like that already.

    Raises InputError that names `name`, the field and the first bad row: wrong shapes or kinds, too many
    candidates, NaN or +inf logits, a row whose candidates are all -inf, values or rewards that are not
    finite.
    """
    exact = _exact(evaluation, rows, candidates)
    if exact is not None:
        return exact
    actions = _array(evaluation.actions, np.int64, "iu", f"{name}.actions")
    if actions.ndim != 2 or actions.shape[0] != rows:
        raise InputError(f"{name}.actions has shape {actions.shape}; give [{rows}, candidates]")
    if actions.shape[1] > candidates:
        raise InputError(
            f"{name}.actions has {actions.shape[1]} candidates; "
            f"give at most {candidates} or raise search.candidates"
        )
    logits = _array(evaluation.logits, np.float32, "fiu", f"{name}.logits")
    if logits.shape != actions.shape:
        raise InputError(f"{name}.logits has shape {logits.shape}; give {actions.shape} like the actions")
    check_logits(actions != -1, logits, name)
    value = _vector(evaluation.value, np.float32, "fiu", rows, f"{name}.value")
    reward = _vector(evaluation.reward, np.float32, "fiu", rows, f"{name}.reward")
    for field, numbers in (("value", value), ("reward", reward)):
        finite = np.isfinite(numbers)
        if not finite.all():
            row = int(np.argmin(finite))
            raise InputError(f"{name}.{field} is {numbers[row]} in row {row}; give finite numbers")
    return Rows(
        actions=_padded(actions, candidates, -1),
        logits=_padded(logits, candidates, 0),
        value=value,
        reward=reward,
        terminal=_vector(evaluation.terminal, np.bool_, "b", rows, f"{name}.terminal"),
        states=_vector(evaluation.states, np.int64, "iu", rows, f"{name}.states"),
    )


def _exact(evaluation: Evaluation, rows: int, candidates: int) -> Rows | None:
    """The arrays of the evaluation without a copy, if nothing is wrong with them; else None.

    Every step passes here, and for a single tree the full check would cost more than the search.
    """
    wide, long = (rows, candidates), (rows,)
    found = Rows(
        evaluation.actions, evaluation.logits, evaluation.value,
        evaluation.reward, evaluation.terminal, evaluation.states,
    )  # fmt: skip
    for array, dtype, shape in zip(found, DTYPES, (wide, wide, long, long, long, long), strict=True):
        if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
            return None
        if not array.flags.carray:
            return None
    return found if call(faultless, found) else None


@kernel
def faultless(rows: Rows) -> bool:
    """Whether all numbers can be searched with: see `checked`."""
    good = True
    for i in range(rows.value.shape[0]):
        good &= math.isfinite(rows.value[i]) & math.isfinite(rows.reward[i])
        bad, real, likely = np.int32(0), np.int32(0), np.int32(0)
        for k in range(rows.actions.shape[1]):
            here, x = rows.actions[i, k] != -1, rows.logits[i, k]
            real |= np.int32(here)
            bad |= np.int32(here & (not x < INFINITY))  # NaN compares false
            likely |= np.int32(here & (x > -INFINITY))
        good &= (bad == 0) & ((real == 0) | (likely == 1))
    return good


def check_logits(real: NDArray[np.bool_], logits: NDArray[np.float32], name: str) -> None:
    """Raise InputError unless logits [L, K] are usable in the slots `real` [L, K] of every row that has
    any.
    """
    bad = real & ~(logits < np.inf)  # NaN compares false
    if bad.any():
        row, slot = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}.logits is {logits[row, slot]} in row {row}, slot {slot}; give numbers below +inf"
        )
    empty = real.any(axis=1) & ~(real & (logits > -np.inf)).any(axis=1)
    if empty.any():
        raise InputError(
            f"{name}.logits is -inf at every open slot of row {int(np.argmax(empty))}; give one a chance"
        )


def _array(values: Any, dtype: type[np.generic], kinds: str, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} has dtype {array.dtype}; give {np.dtype(dtype).name}")
    return np.require(array, dtype, ["C", "A", "W"])


def _vector(values: Any, dtype: type[np.generic], kinds: str, rows: int, name: str) -> NDArray[Any]:
    array = _array(values, dtype, kinds, name)
    if array.shape != (rows,):
        raise InputError(f"{name} has shape {array.shape}; give [{rows}]")
    return array


def _padded(array: NDArray[Any], width: int, fill: int) -> NDArray[Any]:
    if array.shape[1] == width:
        return array
    wide = np.full((array.shape[0], width), fill, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
