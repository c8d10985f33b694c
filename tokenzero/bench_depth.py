"""How much search is worth paying for: methods side by side at equal tokens and at equal wall time.

All methods answer the same problems; every token that goes through the model is counted, prompts included.
With a public verifier every method may stop at its first verified answer, and the report says so. No method
sees a gold answer. It plays nothing itself: see ``bench_outcomes``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenzero.bench_curves import curves, draw, equal_cost, pooled, to_reach
from tokenzero.bench_outcomes import OUTCOMES_FILE, Outcomes, as_csv, as_rows, write_outcomes
from tokenzero.checkpoint import Opened
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.tasks import Task

Report = dict[str, Any]


def depth_report(opened: Opened, outcomes: Outcomes, split: str, against: str) -> Report:
    """All that was found, ready for JSON.

    ``task``, ``split``, ``problems``, ``checkpoint``, ``verifier`` (see :func:`verifier_of`), ``seeds``,
    ``against`` (the reference method), ``useful_budget`` (of each method that it was measured for);
    ``rows``, one a setting and seed (``bench_outcomes.as_rows``), and ``pooled``, one a setting; ``greedy``,
    its ``tokens`` and ``seconds`` a problem, or None; ``equal_tokens``, ``equal_shared`` and
    ``equal_seconds`` (``bench_curves.equal_cost``) and ``tokens_to_reach`` (``bench_curves.to_reach``).
    """
    draws = draw(len(outcomes.seeds), len(outcomes.ids))
    by_tokens = curves(outcomes, draws, "tokens")
    by_shared = curves(outcomes, draws, "shared")
    by_seconds = curves(outcomes, draws, "seconds")
    return {
        "task": opened.parts.task.name,
        "split": split,
        "problems": len(outcomes.ids),
        "checkpoint": opened.source,
        "verifier": verifier_of(opened.parts.task),
        "seeds": outcomes.seeds,
        "against": against,
        "useful_budget": dict(opened.useful),
        "rows": as_rows(outcomes),
        "pooled": pooled(outcomes, draws),
        "greedy": None if by_tokens.unit is None else {"tokens": by_tokens.unit, "seconds": by_seconds.unit},
        "equal_tokens": equal_cost(by_tokens, against),
        "equal_shared": equal_cost(by_shared, against),
        "equal_seconds": equal_cost(by_seconds, against),
        "tokens_to_reach": to_reach(by_tokens, against),
    }


def verifier_of(task: Task) -> str:
    """Who could check answers while they were made: "public" (anyone) or "gold" (nobody, at test time)."""
    return "public" if task.public_verifier else "gold"


def write_report(
    directory: Path, name: str, report: Report, picture: bytes, outcomes: dict[str, Outcomes]
) -> list[Path]:
    """Write NAME.json, NAME.csv, NAME.png and ``outcomes.parquet`` (of each checkpoint); returns their paths.

    Raises OutputError.
    """
    paths = [directory / f"{name}.{kind}" for kind in ("json", "csv", "png")]
    write_text(paths[0], json.dumps(report, indent=2) + "\n")
    write_text(paths[1], as_csv(report["rows"]))
    write_bytes(paths[2], picture)
    return [*paths, write_outcomes(directory / OUTCOMES_FILE, outcomes)]
