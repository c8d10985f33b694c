"""What a comparison found: from finished runs to rows, and from rows to CSV, Markdown and cells.

It reads what runs left behind and measures nothing; the statistics are in ``compare_statistics``.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.compare import Comparison, Variant, finished
from tokenzero.compare_job import TEST_FILE
from tokenzero.compare_processes import Job, read_records
from tokenzero.compare_statistics import Bootstrapped, bootstrap, first_reached, t_interval
from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger

Row = dict[str, Any]
Report = dict[str, Any]

LEDGER_KINDS = tuple(field.name for field in fields(Ledger) if field.name != "wall_s")
INTERVALS = ("ci95", "difference_ci95", "difference_bootstrap95", "ratio_bootstrap95")
UNEQUAL = 0.02
"""Arms whose tokens in play differ by more than this share are not equally paid, and the report says so."""


@dataclass(frozen=True)
class Result:
    """A finished run. ``tokens``, ``wall_s`` and ``validation`` (greedy accuracy) have one entry a round, the
    warm start's first; tokens and seconds are sums since then. ``validation`` is that of the weights that
    play next, which is an older round's where the candidate was not promoted. ``solved`` is bool [problems]
    of the test split, or None where that was not read. ``ledger`` is of all play.
    """

    tokens: list[float]
    wall_s: list[float]
    validation: list[float]
    solved: npt.NDArray[np.bool_] | None
    ledger: Ledger
    learner_steps: int

    @property
    def accuracy(self) -> float:
        """On the test split where it was read, else on the validation split."""
        return self.validation[-1] if self.solved is None else float(self.solved.mean())

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(tokens in play, validation accuracy) of each round."""
        return list(zip(self.tokens, self.validation, strict=True))


def read_result(directory: Path, job: Job) -> Result:
    """The result of a finished job of the comparison in ``directory``.

    Raises InputError for damaged files.
    """
    run = directory / job.run
    try:
        records = read_records(run)
        ledger = Ledger()
        for record in records[1:]:
            ledger.add(Ledger(**record["ledger"]))
        return Result(
            tokens=_sums(records, "spent"),
            wall_s=_sums(records, "wall_s"),
            validation=[float(records[record["incumbent"]]["greedy_accuracy"]) for record in records],
            solved=_solved(run / TEST_FILE) if job.reads_test else None,
            ledger=ledger,
            learner_steps=job.config.learner.steps * job.config.rounds,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run} is damaged ({error!r}); remove it and compare again") from error


def make_report(comparison: Comparison, failures: dict[str, str]) -> Report:
    """All that was found, ready for JSON.

    ``out``, ``task``, ``split`` ("test", or "validation" where the test split was not read), ``problems`` of
    it, ``rounds``, ``seeds``; ``against``, the reference, and ``against_learnt``: whether its mean validation
    curve ends above its warm start, without which there is nothing to reach; ``rows``, one an arm
    (:func:`make_row`); ``failures`` (reason by run); ``notes`` (sentences about what makes the comparison
    weaker than it looks).
    """
    jobs = {job.run: job for job in comparison.jobs()}
    found: dict[str, dict[int, Result]] = {}
    for variant in comparison.variants:
        own = {seed: jobs[comparison.run_of(variant, seed)] for seed in comparison.seeds}
        found[variant.label] = {
            seed: read_result(comparison.directory, job)
            for seed, job in own.items()
            if finished(comparison.directory, job)
        }
    reference = found[comparison.against]
    rows = [make_row(variant, found[variant.label], reference) for variant in comparison.variants]
    solved = [r.solved for results in found.values() for r in results.values() if r.solved is not None]
    return {
        "out": str(comparison.directory),
        "task": comparison.base.task.name,
        "split": "test" if comparison.reads_test else comparison.base.evaluation.split,
        "problems": len(solved[0]) if solved else comparison.base.evaluation.problems,
        "rounds": comparison.base.rounds,
        "seeds": list(comparison.seeds),
        "against": comparison.against,
        "against_learnt": _learnt([result.curve for result in reference.values()]),
        "rows": rows,
        "failures": failures,
        "notes": _notes(rows, comparison.seeds),
    }


def make_row(variant: Variant, own: dict[int, Result], reference: dict[int, Result]) -> Row:
    """One arm, its results by seed, beside the reference's.

    ``arm``, ``title``, ``runs``; ``accuracy`` (mean over seeds), ``ci95`` (Student's t over seeds),
    ``accuracy_by_seed``; ``difference`` from the reference over the seeds that both have, in shares of 1,
    with ``difference_ci95`` (t over seeds, paired) and ``difference_bootstrap95`` (over problems and seeds);
    ``ratio`` with ``ratio_bootstrap95``; ``token_share``: share of the reference's tokens in play at which
    the mean validation curve reaches the reference's last point (None: not reached, or the reference learnt
    nothing), and ``token_shares`` for each seed; ``tokens`` in play, ``learner_steps``, ``wall_s`` and
    ``ledger``: means of a run, without its warm start; ``curve``: one of ``round``, ``tokens``, ``wall_s``,
    ``accuracy``, ``low`` and ``high`` (lowest and highest seed) a round. Intervals are [low, high], or None
    where there are too few runs.
    """
    accuracies = [result.accuracy for result in own.values()]
    seeds = [seed for seed in own if seed in reference]
    differences = [own[s].accuracy - reference[s].accuracy for s in seeds]
    resampled = _resampled([own[s] for s in seeds], [reference[s] for s in seeds])
    below = _mean([reference[s].accuracy for s in seeds])
    above = _mean([own[s].accuracy for s in seeds])
    return {
        "arm": variant.label,
        "title": variant.title,
        "runs": len(own),
        "accuracy": _mean(accuracies),
        "ci95": _listed(t_interval(accuracies)),
        "accuracy_by_seed": {str(seed): result.accuracy for seed, result in own.items()},
        "difference": _mean(differences),
        "difference_ci95": _listed(t_interval(differences)),
        "difference_bootstrap95": _listed(resampled.difference if resampled else None),
        "ratio": above / below if above is not None and below else None,
        "ratio_bootstrap95": _listed(resampled.ratio if resampled else None),
        "token_share": _share([own[s].curve for s in seeds], [reference[s].curve for s in seeds]),
        "token_shares": {str(s): _share([own[s].curve], [reference[s].curve]) for s in seeds},
        "tokens": _mean([result.tokens[-1] for result in own.values()]),
        "learner_steps": _mean([result.learner_steps for result in own.values()]),
        "wall_s": _mean([result.wall_s[-1] for result in own.values()]),
        "ledger": {
            kind: _mean([float(getattr(result.ledger, kind)) for result in own.values()])
            for kind in LEDGER_KINDS
        },
        "curve": _curve(list(own.values())),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """The rows without their curves and seeds; an interval takes two columns, a ledger one a kind."""
    plain = [key for key in rows[0] if key not in ("accuracy_by_seed", "token_shares", "ledger", "curve")]
    columns = [
        name for key in plain for name in ([f"{key}_low", f"{key}_high"] if key in INTERVALS else [key])
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *LEDGER_KINDS])
    for row in rows:
        cells: list[Any] = []
        for key in plain:
            cells.extend((row[key] or [None, None]) if key in INTERVALS else [row[key]])
        writer.writerow([*cells, *(row["ledger"][kind] for kind in LEDGER_KINDS)])
    return text.getvalue()


def accuracy_table(report: Report) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of columns, and cells: how good each arm is and how much better than the reference."""
    against = report["against"]
    columns = ("arm", "runs", f"{report['split']} accuracy, %", f"minus {against}, points", "bootstrap")
    return (*columns, "ratio", "tokens, %"), [_accuracy_cells(row, report) for row in report["rows"]]


def spending_table(report: Report) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of columns, and cells: what a run of each arm spent in play and learning, means over seeds; kinds
    of which no arm spent any are left out.
    """
    columns = ("arm", "tokens in play", "learner steps", "seconds")
    kinds = [kind for kind in LEDGER_KINDS if any(row["ledger"][kind] for row in report["rows"])]
    cells = [
        [row["arm"], _count(row["tokens"]), _count(row["learner_steps"]), _count(row["wall_s"])]
        + [_count(row["ledger"][kind]) for kind in kinds]
        for row in report["rows"]
    ]
    names = (kind.removesuffix("_tokens").replace("_", " ") for kind in kinds)
    return (*columns, *names), cells


def caption_of(report: Report) -> str:
    """What the numbers of :func:`accuracy_table` are."""
    against = report["against"]
    return (
        "Means over seeds with 95 % intervals (Student's t; differences are paired by seed). bootstrap: "
        "95 % interval of the difference over problems and seeds. tokens: share of "
        f"{against}'s tokens in play at which the validation curve reaches the end of {against}'s."
    )


def title_of(report: Report) -> str:
    """One line over the tables and the picture."""
    return f"{report['task']}: {report['problems']} {report['split']} problems, {report['rounds']} rounds"


def as_markdown(report: Report) -> str:
    """Both tables with their captions, and the notes."""
    parts = [f"# {title_of(report)}"]
    spending = "Spent by a run in play and learning, mean over seeds."
    tables = ((accuracy_table(report), caption_of(report)), (spending_table(report), spending))
    for (columns, rows), caption in tables:
        rule = ["---", *["---:"] * (len(columns) - 1)]
        lines = [columns, rule, *rows]
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in lines))
        parts.append(caption)
    lines = [*report["notes"], *(f"{run} failed: {reason}" for run, reason in report["failures"].items())]
    if lines:
        parts.append("\n".join(f"* {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _accuracy_cells(row: Row, report: Report) -> list[str]:
    if not row["runs"]:
        return [row["arm"], "0", *["-"] * 5]
    same = row["arm"] == report["against"]
    share = row["token_share"]
    reached = "not reached" if share is None else f"{100 * share:.0f}"
    return [
        row["arm"],
        str(row["runs"]),
        _around(row["accuracy"], row["ci95"], ""),
        "-" if same else _around(row["difference"], row["difference_ci95"], "+"),
        "-" if same else _between(row["difference_bootstrap95"], "+"),
        "-" if same or row["ratio"] is None else f"{row['ratio']:.2f}",
        reached if report["against_learnt"] else "-",
    ]


def _around(share: float | None, interval: Sequence[float] | None, sign: str) -> str:
    """In hundredths, as "50.0 (45.1 to 54.9)"."""
    if share is None:
        return "-"
    around = "" if interval is None else f" ({_between(interval, sign)})"
    return f"{100 * share:{sign}.1f}{around}"


def _between(interval: Sequence[float] | None, sign: str) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f}"


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _notes(rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    notes = []
    tokens = [row["tokens"] for row in rows if row["tokens"]]
    if tokens and max(tokens) > (1 + UNEQUAL) * min(tokens):
        notes.append(
            f"tokens in play are not equal: {min(tokens):,.0f} to {max(tokens):,.0f}; "
            "play.tokens gives every arm the same"
        )
    steps = {row["learner_steps"] for row in rows if row["learner_steps"] is not None}
    if len(steps) > 1:
        notes.append(f"learner steps are not equal: {min(steps):,.0f} to {max(steps):,.0f}")
    if len(seeds) < 3:
        notes.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: too few for intervals worth quoting")
    return notes


def _sums(records: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Running sums over the rounds, 0 at the warm start, which all arms share."""
    return list(itertools.accumulate((float(record[key]) for record in records[1:]), initial=0.0))


def _solved(path: Path) -> npt.NDArray[np.bool_]:
    digits = json.loads(path.read_text(encoding="utf-8"))["solved"]
    return np.asarray([digit == "1" for digit in digits], dtype=np.bool_)


def _resampled(own: Sequence[Result], reference: Sequence[Result]) -> Bootstrapped | None:
    pair = [[r.solved for r in results if r.solved is not None] for results in (own, reference)]
    if len(own) < 2 or len(pair[0]) < len(own) or len(pair[1]) < len(own):
        return None
    return bootstrap(np.stack(pair[0]), np.stack(pair[1]))


def _share(
    own: Sequence[list[tuple[float, float]]], reference: Sequence[list[tuple[float, float]]]
) -> float | None:
    if not _learnt(reference):
        return None
    tokens, accuracy = _mean_curve(reference)[-1]
    reached = first_reached(_mean_curve(own), accuracy)
    return reached / tokens if reached is not None and tokens else None


def _learnt(curves: Sequence[list[tuple[float, float]]]) -> bool:
    """Whether the mean curve ends above its beginning."""
    mean = _mean_curve(curves)
    return bool(mean) and mean[-1][1] > mean[0][1]


def _mean_curve(curves: Sequence[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    return [
        (_exact_mean([t for t, _ in points]), _exact_mean([a for _, a in points]))
        for points in zip(*curves, strict=True)
    ]


def _curve(results: Sequence[Result]) -> list[dict[str, float]]:
    points = []
    for index in range(len(results[0].tokens) if results else 0):
        accuracies = [result.validation[index] for result in results]
        points.append(
            {
                "round": index,
                "tokens": _exact_mean([result.tokens[index] for result in results]),
                "wall_s": _exact_mean([result.wall_s[index] for result in results]),
                "accuracy": _exact_mean(accuracies),
                "low": min(accuracies),
                "high": max(accuracies),
            }
        )
    return points


def _exact_mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean(values: Sequence[float]) -> float | None:
    return _exact_mean(values) if values else None


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
