"""The pictures: accuracy against forwarded tokens, and accuracy over rounds. Rows in, PNG bytes out.

It measures nothing and writes no files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

Row = dict[str, Any]

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
SEARCH_COLOURS = {"gumbel": BLUE, "puct": GREEN, "frontier": PURPLE}


def depth_picture(report: dict[str, Any]) -> bytes:
    """``bench depth``: each search (its simulations beside the points), best-of-N and greedy, with their 95 %
    intervals.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    _methods(axes, report["rows"])
    axes.set_title(
        f"{report['task']}, {report['problems']} {report['split']} problems, {_verifier(report['verifier'])}",
        fontsize=11,
    )
    return _png(figure)


def demo_picture(records: Sequence[Row], curves: Sequence[tuple[str, Sequence[Row]]], title: str) -> bytes:
    """The demo: accuracy by round on the left, then accuracy against tokens for each of ``curves`` (label,
    rows).
    """
    figure = Figure(figsize=(6 + 5 * len(curves), 5), layout="constrained")
    panels = figure.subplots(1, 1 + len(curves))
    _rounds(panels[0], records)
    for axes, (label, rows) in zip(panels[1:], curves, strict=True):
        _methods(axes, rows)
        axes.set_ylim(0, 1)
        axes.set_title(f"Test problems, {label}", fontsize=11)
    figure.suptitle(title, fontsize=12)
    return _png(figure)


def _methods(axes: Axes, rows: Sequence[Row]) -> None:
    for method, colour in SEARCH_COLOURS.items():
        _curve(axes, [r for r in rows if r["method"] == method], colour, f"{method} search", "simulations")
    _curve(axes, [r for r in rows if r["method"] == "best-of-n"], ORANGE, "best-of-N", "n")
    _greedy(axes, rows, BLACK, "greedy")
    _token_axes(axes, rows)


def _rounds(axes: Axes, records: Sequence[Row]) -> None:
    rounds = [record["round"] for record in records]
    for key, colour, label in (
        ("search_accuracy", GREEN, "with search"),
        ("greedy_accuracy", BLUE, "greedy"),
    ):
        known = [
            (r, record[key]) for r, record in zip(rounds, records, strict=True) if record[key] is not None
        ]
        if known:
            axes.plot([r for r, _ in known], [a for _, a in known], marker="o", color=colour, label=label)
    axes.set_xlabel("round of self-play (0 is the warm start)")
    axes.set_ylabel("accuracy on held-out problems")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=-0.012)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    axes.set_title("Validation accuracy by round", fontsize=11)


def _curve(axes: Axes, rows: Sequence[Row], colour: str, label: str, budget: str) -> None:
    """Points by tokens with a band of intervals; each point says its budget."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda r: float(r["mean_tokens"]))
    tokens = [r["mean_tokens"] for r in ordered]
    accuracy = [r["accuracy"] for r in ordered]
    axes.fill_between(
        tokens,
        [r["ci95"][0] for r in ordered],
        [r["ci95"][1] for r in ordered],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )
    sampling = budget == "n"
    axes.plot(
        tokens,
        accuracy,
        marker="s" if sampling else "o",
        linestyle="--" if sampling else "-",
        color=colour,
        label=label,
    )
    for row in ordered:
        axes.annotate(
            str(row[budget]),
            (row["mean_tokens"], row["accuracy"]),
            textcoords="offset points",
            xytext=(5, -11) if sampling else (-5, 6),
            ha="left" if sampling else "right",
            fontsize=8,
            color=colour,
        )


def _greedy(axes: Axes, rows: Sequence[Row], colour: str, label: str) -> None:
    for row in rows:
        if row["method"] == "greedy":
            low, high = row["ci95"]
            axes.errorbar(
                [row["mean_tokens"]],
                [row["accuracy"]],
                yerr=[[max(0.0, row["accuracy"] - low)], [max(0.0, high - row["accuracy"])]],
                fmt="D",
                color=colour,
                capsize=3,
                label=label,
            )


def _token_axes(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_xscale("log")
    tokens = [float(row["mean_tokens"]) for row in rows]
    low, high = min(tokens) / 1.25, max(tokens) * 1.25
    axes.set_xlim(low, high)
    axes.set_xticks([t for t in _round_numbers() if low <= t <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("forwarded tokens per problem (mean, prompt included)")
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=-0.012)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9, title="numbers at points: simulations, or N", title_fontsize=8)


def _round_numbers() -> list[int]:
    return [digit * 10**power for power in range(8) for digit in (1, 2, 5)]


def _verifier(kind: str) -> str:
    return "public verifier" if kind == "public" else "no verifier at test time"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
