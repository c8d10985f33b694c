"""The picture of a comparison: held-out accuracy against tokens in play, and against wall time. Rows in, PNG
bytes out.

It measures nothing and writes no files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

Row = dict[str, Any]

# Okabe and Ito's palette without its yellow, which is faint on white; shapes tell arms apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def compare_picture(report: dict[str, Any]) -> bytes:
    """One line an arm, the reference's dashed; the bands go from the lowest seed to the highest. An arm that
    plays without a model has no tokens to be drawn over: a dotted line shows where it ends.
    """
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    by_tokens, by_time = figure.subplots(1, 2, sharey=True)
    rows = [row for row in report["rows"] if row["curve"]]
    _lines(by_tokens, rows, "tokens", 1.0, report["against"])
    _lines(by_time, rows, "wall_s", 1 / 60, report["against"])
    by_tokens.set_xlabel("tokens forwarded in play, since the warm start")
    by_tokens.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: _short(tokens)))
    by_tokens.set_ylabel("greedy accuracy on validation problems")
    by_tokens.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    by_time.set_xlabel("minutes of wall time, since the warm start")
    if rows:
        lines, labels = by_time.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=min(3, len(rows)), fontsize=9)
    seeds = len(report["seeds"])
    band = "1 seed" if seeds == 1 else f"mean of {seeds} seeds, band from the lowest to the highest"
    figure.suptitle(f"{report['task']}, {report['rounds']} rounds; {band}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def _lines(axes: Axes, rows: Sequence[Row], key: str, scale: float, against: str) -> None:
    for index, row in enumerate(rows):
        colour = COLOURS[index % len(COLOURS)]
        x = [point[key] * scale for point in row["curve"]]
        if not x[-1]:
            axes.axhline(row["curve"][-1]["accuracy"], color=colour, linestyle=":")
            continue
        if row["runs"] > 1:
            low, high = ([point[end] for point in row["curve"]] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            x,
            [point["accuracy"] for point in row["curve"]],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linestyle="--" if row["arm"] == against else "-",
            label=row["title"],
        )
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _short(number: float) -> str:
    """1200 as "1.2k", 3000000 as "3M"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
