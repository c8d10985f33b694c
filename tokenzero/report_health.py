"""The health of a run as a part of its page: measures by round, and the alarms. It judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tokenzero.report_charts import Axes, Series, chart, number
from tokenzero.report_page import figures, section, table
from tokenzero.run_records import Record


def health_section(records: Sequence[Record]) -> str:
    """Every measure over the rounds, its alarms marked, and a table of the alarms."""
    names = list(dict.fromkeys(name for record in records for name in record["health"]))
    drawn = []
    for name in names:
        kept = [r for r in records if r["health"].get(name) is not None]
        alarms = {r["round"]: a for r in records for a in r["alarms"] if a["name"] == name}
        points = [(float(r["round"]), float(r["health"][name])) for r in kept]
        marked = frozenset(i for i, r in enumerate(kept) if r["round"] in alarms)
        labels = [
            alarms[r["round"]]["message"] if r["round"] in alarms else number(r["health"][name]) for r in kept
        ]
        limit = alarms[max(alarms)]["threshold"] if alarms else None
        axes = Axes("round", name, whole=True, width=330, height=200, line=limit)
        title = name.replace("_", " ")
        drawn.append((title, chart([Series(title, points, 0, marked=marked, labels=labels)], axes)))
    rows = [
        [str(a.get("step", r["round"])), escape(a["name"]), escape(a["action"]), escape(a["message"])]
        for r in records
        for a in r["alarms"]
    ]
    said = '<p class="note">No alarm was raised.</p>'
    if rows:
        at = "step" if any("step" in a for r in records for a in r["alarms"]) else "round"
        said = table((at, "alarm", "consequence", "what to do"), rows, words=(1, 2, 3))
    return section("Health", said + figures(drawn, small=True))
