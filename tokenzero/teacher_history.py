"""How the teachers of a run gained and lost weight: rows by context, round and teacher, and the page of them.

It reads the rounds' records and computes no weights: those, and why they moved, are in the records. The
picture is ``teacher_plots``'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.report_charts import Axes, Series, chart
from tokenzero.report_page import figures, page, section, table
from tokenzero.run_records import Record

GLOBAL = "global"
"""How the context of every state is called; records write it as ""."""
STILL = 0.005
"""A change of weight that is none."""
COLOURS = 10

Row = dict[str, Any]
History = dict[str, list[Row]]
"""By context, the global one first: a row per round and teacher."""


def history(records: Sequence[Record]) -> History:
    """The weights over the rounds, each row with "round", "teacher", "weight", "change" since the teacher was
    last heard of in that context (None: never before), and "score", "score_before", "credit", "consulted",
    "tokens", "reason" as far as the record has them (else None). Empty where there were no teachers.
    """
    found: History = {}
    before: dict[tuple[str, str], float] = {}
    for record in records:
        for context, teachers in _contexts(record).items():
            for name, entry in teachers.items():
                weight = float(entry["weight"])
                earlier = before.get((context, name))
                before[context, name] = weight
                row: Row = {
                    "round": int(record["round"]),
                    "teacher": name,
                    "weight": weight,
                    "change": None if earlier is None else weight - earlier,
                }
                for key in ("score", "score_before", "credit", "consulted", "tokens", "reason"):
                    row[key] = entry.get(key)
                found.setdefault(context or GLOBAL, []).append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0] != GLOBAL, item[0])))


def one_context(found: History, context: str) -> History:
    """The history in one context alone. Raises InputError where there is no such context, naming those there
    are.
    """
    name = context or GLOBAL
    if name not in found:
        raise InputError(f"--context is {context!r}; this run has {', '.join(found)}")
    return {name: found[name]}


def arrow(change: float | None) -> str:
    """Which way a weight went; nothing where it was not known before."""
    if change is None:
        return ""
    return "→" if abs(change) < STILL else "↑" if change > 0 else "↓"


def by_teacher(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each teacher, teachers in the order in which they first appear."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["teacher"], []).append(row)
    return found


def history_page(title: str, found: History) -> str:
    """The history as one HTML page that needs nothing else."""
    names = list(dict.fromkeys(row["teacher"] for rows in found.values() for row in rows))
    head = f"<h1>{escape(title)}</h1>"
    return page(title, [head, *(_section(context, rows, names) for context, rows in found.items())])


def _contexts(record: Record) -> Mapping[str, Mapping[str, Row]]:
    """The teachers of a round by context; records that know weights alone have the global one."""
    told: Mapping[str, Mapping[str, Row]] | None = record.get("teachers")
    if told:
        return told
    weights = record.get("teacher_weights") or {}
    return {"": {name: {"weight": weight} for name, weight in weights.items()}}


def _section(context: str, rows: Sequence[Row], names: Sequence[str]) -> str:
    series = []
    for name, of in by_teacher(rows).items():
        points = [(float(row["round"]), row["weight"]) for row in of]
        labels = [f"round {row['round']}, {row['weight']:.3f}. {row['reason'] or ''}" for row in of]
        series.append(Series(name, points, names.index(name) % COLOURS, labels=labels))
    picture = chart(series, Axes("round", "weight", zero=True, whole=True, width=900))
    return section(
        f"Context: {context}",
        figures([("Weights over rounds", picture)])
        + table(
            ("round", "teacher", "weight", "", "score", "credit", "consulted", "tokens", "why"),
            [
                [
                    str(row["round"]),
                    escape(row["teacher"]),
                    f"{row['weight']:.3f}",
                    arrow(row["change"]),
                    signed(row["score"]),
                    signed(row["credit"]),
                    counted(row["consulted"]),
                    counted(row["tokens"]),
                    escape(row["reason"] or ""),
                ]
                for row in rows
            ],
            words=(1, 8),
        ),
    )


def signed(value: float | None) -> str:
    """A score for a table; "-" where it is not known."""
    return "-" if value is None else f"{value:+.3f}"


def counted(value: float | None) -> str:
    """A count for a table; "-" where it is not known."""
    return "-" if value is None else f"{round(value):,}"
