"""The most search that a checkpoint can use: how it is chosen from validation, and the file it is kept in.

More simulations can hurt where the value estimate is poor, and cost where they no longer help. It measures
nothing itself (see ``bench_useful_budget``) and never sees test problems.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text

USEFUL_FILE = "useful_budget.json"
SIGNIFICANT = 1.959964
"""Standard errors by which a larger budget must be better to count as better."""


def useful_index(solved: npt.NDArray[np.bool_]) -> int:
    """Which of B budgets is the useful one; ``solved`` is bool [B, seeds, problems], smallest budget first.

    The first whose accuracy is within one standard error of the best (Breiman et al. 1984, the one standard
    error rule) and that no larger budget beats by more than ``SIGNIFICANT`` standard errors. Differences are
    taken problem by problem, so that the problems' own difficulty does not count as noise.
    """
    shares = solved.mean(axis=1)
    best = int(shares.mean(axis=1).argmax())
    for index in range(len(shares)):
        behind, error = _paired(shares[best] - shares[index])
        larger = (_paired(other - shares[index]) for other in shares[index + 1 :])
        if behind <= error and not any(ahead > SIGNIFICANT * spread for ahead, spread in larger):
            return index
    return best


def _paired(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The mean and its standard error (0 for a single problem, which has no spread)."""
    count = len(differences)
    spread = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return float(differences.mean()), spread


def read_useful_budgets(directory: str | Path) -> dict[str, int]:
    """The useful budget of each method that was measured for the checkpoint in ``directory``.

    Raises InputError for a damaged file.
    """
    path = Path(directory) / USEFUL_FILE
    kept = _kept(path)
    try:
        found = {str(method): int(record["budget"]) for method, record in kept.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if min(found.values(), default=1) < 1:
        raise _damaged(path, "a budget below 1")
    return found


def write_useful_budget(directory: str | Path, method: str, record: dict[str, Any]) -> Path:
    """Keep ``record`` (with its "budget") for ``method`` beside the checkpoint; other methods' stay.

    Raises OutputError.
    """
    path = Path(directory) / USEFUL_FILE
    write_text(path, json.dumps({**_kept(path), method: record}, indent=2) + "\n")
    return path


def check_budgets(budgets: Sequence[int]) -> list[int]:
    """The budgets in rising order. Raises InputError for fewer than two or one below 1."""
    if len(budgets) < 2 or min(budgets) < 1:
        words = ",".join(map(str, budgets))
        raise InputError(f"--budgets is {words!r}; give at least two whole numbers of at least 1")
    return sorted(budgets)


def _kept(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(values, dict):
        raise _damaged(path, f"it holds {type(values).__name__}")
    return values


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path} cannot be read ({reason}); remove it and measure again")
