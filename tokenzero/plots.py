"""The pictures: accuracy against what it costs, and accuracy over rounds. Rows in, PNG bytes out.

It measures nothing and writes no files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

Row = dict[str, Any]

# Okabe and Ito's palette, and two of Tol's, for colour-blind readers; shapes tell methods apart in grey.
BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
STYLES = {
    "gumbel": (BLUE, "o", "-"),
    "puct": (GREEN, "^", "-"),
    "frontier": (PURPLE, "P", "-"),
    "step-beam": ("#882255", "<", "-."),
    "dvts": ("#999933", ">", "-."),
    "beam": ("#56B4E9", "v", "-."),
    "best-of-n": (ORANGE, "s", "--"),
    "self-consistency": ("#E69F00", "X", "--"),
    "sample": ("#777777", "p", "--"),
    "greedy": (BLACK, "D", "none"),
}
"""Colour, marker and line of each method: searches solid, beams dash-dotted, samples dashed."""

SEARCHES = ("gumbel", "puct", "frontier")
COSTS = (
    ("mean_tokens", "forwarded tokens per problem (mean, prompt included)"),
    ("milliseconds", "milliseconds per problem (all played together)"),
    ("mean_depth", "tokens past the prompt at the deepest node (mean)"),
)
"""What accuracy is drawn over, and how the axis is called."""


def depth_picture(report: dict[str, Any]) -> bytes:
    """``bench depth``: each method through its budgets with 95 % intervals, over tokens, time and depth."""
    figure = Figure(figsize=(16, 6), layout="constrained")
    rows = [{**row, "milliseconds": 1000 * row["seconds"]} for row in report["pooled"]]
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, (key, label) in zip(panels, COSTS, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            _line(axes, own, key, method, label=method, numbers=axes is panels[0])
        _cost_axis(axes, [float(row[key]) for row in rows], label, log=key != "mean_depth")
    _accuracy_axis(panels[0])
    _legend(figure, panels[0], "bars: 95 % intervals; numbers: smallest and largest budget of a method")
    figure.suptitle(_title(report), fontsize=12)
    return _png(figure)


def checkpoints_picture(report: dict[str, Any]) -> bytes:
    """``bench compare``: each method through its budgets, A's line full and B's hollow and dotted."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    by_name = {
        name: [{**row, "milliseconds": 1000 * row["seconds"]} for row in rows]
        for name, rows in report["pooled"].items()
    }
    for axes, (key, label) in zip(panels, COSTS[:2], strict=True):
        for name, rows in by_name.items():
            for method in dict.fromkeys(row["method"] for row in rows):
                own = [row for row in rows if row["method"] == method]
                _line(axes, own, key, method, label=f"{name.upper()} {method}", hollow=name == "b")
        _cost_axis(axes, [float(row[key]) for rows in by_name.values() for row in rows], label, log=True)
    _accuracy_axis(panels[0])
    _legend(figure, panels[0], "bars: 95 % intervals of each; the table has those of the differences")
    figure.suptitle(f"{_title(report)}\nA: {report['a']}\nB: {report['b']}", fontsize=10)
    return _png(figure)


def _title(report: dict[str, Any]) -> str:
    seeds = len(report["seeds"])
    return (
        f"{report['task']}, {report['problems']} {report['split']} problems, "
        f"{seeds} seed{'' if seeds == 1 else 's'}: {_verifier(report['verifier'])}"
    )


def _line(
    axes: Axes,
    rows: Sequence[Row],
    key: str,
    method: str,
    *,
    label: str,
    numbers: bool = False,
    hollow: bool = False,
) -> None:
    """One method's points in the order of their budgets, with bars for the intervals."""
    colour, marker, line = STYLES[method]
    ordered = sorted(rows, key=lambda row: (row["simulations"], row["n"]))
    x = [float(row[key]) for row in ordered]
    y = [float(row["accuracy"]) for row in ordered]
    low = [max(0.0, row["accuracy"] - row["ci95"][0]) for row in ordered]
    high = [max(0.0, row["ci95"][1] - row["accuracy"]) for row in ordered]
    axes.errorbar(
        x,
        y,
        yerr=[low, high],
        color=colour,
        marker=marker,
        markersize=6,
        markerfacecolor="white" if hollow else colour,
        linestyle=":" if hollow and line != "none" else line,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )
    if numbers and len(ordered) > 1:
        for end in (0, -1):
            row = ordered[end]
            axes.annotate(
                str(row["simulations"] or row["n"]),
                (x[end], y[end]),
                textcoords="offset points",
                xytext=(-4, 5) if end == 0 else (4, 5),
                ha="right" if end == 0 else "left",
                fontsize=8,
                color=colour,
            )


def _cost_axis(axes: Axes, costs: Sequence[float], label: str, *, log: bool) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    if log:
        _log_axis(axes, costs)


def _accuracy_axis(axes: Axes) -> None:
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=-0.012)


def _legend(figure: Figure, axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(8, len(labels)),
        fontsize=9,
        title=title,
        title_fontsize=8,
    )


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
    for method in SEARCHES:
        colour = STYLES[method][0]
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
    _cost_axis(axes, [float(row["mean_tokens"]) for row in rows], COSTS[0][1], log=True)
    _accuracy_axis(axes)
    axes.legend(loc="best", fontsize=9, title="numbers at points: simulations, or N", title_fontsize=8)


def _log_axis(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis with round numbers at its ticks; the smallest cost may be a clock's 0."""
    axes.set_xscale("log")
    positive = [cost for cost in costs if cost > 0] or [1.0]
    low, high = min(positive) / 1.25, max(positive) * 1.25
    axes.set_xlim(low, high)
    axes.set_xticks([t for t in _round_numbers() if low <= t <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))


def _round_numbers() -> list[float]:
    return [digit * 10.0**power for power in range(-4, 8) for digit in (1, 2, 5)]


def _verifier(kind: str) -> str:
    return "public verifier used" if kind == "public" else "oracle-free"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
