"""Two checkpoints on the same problems, setting by setting, paired.

It plays nothing itself: see ``bench_outcomes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenzero.bench_curves import Draws, difference, draw, pooled
from tokenzero.bench_depth import verifier_of
from tokenzero.bench_outcomes import Outcomes, budget_of
from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.tasks import Problem

Row = dict[str, Any]
NAMES = ("a", "b")


def compare_report(opened: Sequence[Opened], outcomes: Sequence[Outcomes], split: str) -> dict[str, Any]:
    """All that was found, ready for JSON: ``task``, ``split``, ``problems``, ``verifier``, ``seeds``, the
    checkpoints ``a`` and ``b``, ``rows`` (:func:`compare_rows`), and ``pooled``, the rows of each checkpoint
    (``bench_curves.pooled``).
    """
    task = opened[0].parts.task
    draws = draw(len(outcomes[0].seeds), len(outcomes[0].ids))
    return {
        "task": task.name,
        "split": split,
        "problems": len(outcomes[0].ids),
        "verifier": verifier_of(task),
        "seeds": outcomes[0].seeds,
        **{name: one.source for name, one in zip(NAMES, opened, strict=True)},
        "rows": compare_rows(outcomes[0], outcomes[1], draws),
        "pooled": {name: pooled(one, draws) for name, one in zip(NAMES, outcomes, strict=True)},
    }


def compare_rows(a: Outcomes, b: Outcomes, draws: Draws) -> list[Row]:
    """One row a setting: ``method``, ``simulations``, ``n``; ``a_accuracy`` and ``b_accuracy``;
    ``difference``, b's less a's, with ``difference_ci95`` (bootstrap over problems and seeds, each draw for
    both alike); ``a_tokens``, ``b_tokens``, ``a_seconds`` and ``b_seconds``, means of a problem.
    """
    shares = {name: draws.means(one.solved) for name, one in zip(NAMES, (a, b), strict=True)}
    return [
        {
            **budget_of(setting),
            **{f"{name}_accuracy": float(shares[name][0, r]) for name in NAMES},
            **difference(shares["b"][:, r], shares["a"][:, r]),
            **{
                f"{name}_tokens": float(one.tokens[r].mean()) for name, one in zip(NAMES, (a, b), strict=True)
            },
            **{
                f"{name}_seconds": float(one.wall_s[r].mean()) / len(one.ids)
                for name, one in zip(NAMES, (a, b), strict=True)
            },
        }
        for r, setting in enumerate(a.settings)
    ]


def check_same(a: Sequence[Problem], b: Sequence[Problem]) -> None:
    """Raises InputError where two checkpoints would not be asked the same."""
    if [problem.public for problem in a] != [problem.public for problem in b]:
        raise InputError("A and B were trained on other problems than each other; name both's --task")
