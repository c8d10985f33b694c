"""The picture of teachers' weights over rounds, one panel a context. Rows in, PNG bytes out.

It computes nothing and writes no files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tokenzero.teacher_history import History, by_teacher

# Okabe and Ito's palette without its yellow; as shapes and colours are not equally many, 35 pairs differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v")
ACROSS = 3


def teacher_picture(history: History, title: str) -> bytes:
    """A panel for each context of ``history``, all on the same scale; a teacher looks the same in each."""
    names = list(dict.fromkeys(row["teacher"] for rows in history.values() for row in rows))
    across = min(ACROSS, max(1, len(history)))
    down = -(-max(1, len(history)) // across)
    figure = Figure(figsize=(2 + 4.5 * across, 1.5 + 3.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    for panel, (context, rows) in zip(panels, history.items(), strict=False):
        for name, of in by_teacher(rows).items():
            rounds, weights = [row["round"] for row in of], [row["weight"] for row in of]
            panel.add_line(_line(names.index(name), rounds, weights))
        panel.autoscale_view()
        panel.set_title(context, fontsize=10, parse_math=False)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("round")
        panel.set_ylabel("weight")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    for panel in panels[len(history) :]:
        panel.set_axis_off()
    keys = [_line(index) for index in range(len(names))]
    legend = figure.legend(keys, names, loc="outside lower center", ncols=min(5, max(1, len(names))))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold a dollar sign
    figure.suptitle(title, fontsize=11, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def _line(style: int, rounds: Sequence[float] = (), weights: Sequence[float] = ()) -> Line2D:
    return Line2D(
        rounds,
        weights,
        color=COLOURS[style % len(COLOURS)],
        marker=MARKERS[style % len(MARKERS)],
        markersize=4,
    )
