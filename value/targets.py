"""What the value head is trained towards: the game's outcome mixed with what the search believed.

Target = (1 - mix) * z + mix * root value. The judge has no way in: the signature takes an outcome, the root
values and one share, and no verdict, eta or shifted value. That matters because the judge only steers
exploration; a head trained on shifted values would repeat the judge's opinion as if it were evidence, and the
shift would be added to it again. A root value backed up from shifted leaves does carry the shift, so callers
pass root values of unshifted leaves (or mix = 0). This file does not choose `mix` and does not anneal it:
selfplay/ does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError

_TOLERANCE = 1e-5


def mix_targets(outcome: ArrayLike, root_values: ArrayLike, mix: float) -> NDArray[np.float32]:
    """Value targets, float32, of the broadcast shape of `outcome` and `root_values`.

    outcome: z in [-1, 1], one number per episode or an array. root_values: [T] values of the searched roots
    in [-1, 1], free of the judge's shift. mix: share of the root value in [0, 1]; 0 is AlphaZero's pure
    outcome. Raises InputError when something is out of range or not finite.
    """
    if not 0.0 <= mix <= 1.0:
        raise InputError(f"mix is {mix}: the root value's share must lie in [0, 1]")
    z = _checked("outcome", outcome)
    v = _checked("root value", root_values)
    mixed = (1.0 - mix) * z + mix * v
    return np.clip(mixed, -1.0, 1.0).astype(np.float32)


def _checked(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    inside = np.abs(array) <= 1.0 + _TOLERANCE  # False for NaN
    if not inside.all():
        raise InputError(f"{name} {array[~inside].flat[0]} is outside [-1, 1], the range of values")
    return array
