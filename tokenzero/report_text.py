"""The page of a text game: nats, accuracy, calibration against steps, health, matches, tokens.

It reads records alone; the page and its charts are put together as those of any run (see ``report``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from tokenzero.report_charts import Axes, Series, chart, number
from tokenzero.report_health import health_section
from tokenzero.report_page import figures, page, section, table, tiles
from tokenzero.run_records import Record

SEARCH_COUNTS = ("prefill_tokens", "decode_tokens", "value_tokens")


def text_report(run: Path, config: Record, records: Sequence[Record]) -> tuple[str, Record]:
    """The page of a text game with this ``config`` and these ``records``, and a summary for ``--json``."""
    summary = _summary(run, records)
    sections = [
        _head(run, config, records, summary),
        _curves(records),
        health_section(records[1:]),
        _matches(records),
        _ledger(records),
    ]
    return page(f"{run.resolve().name}: text game report", sections), summary


def _summary(run: Path, records: Sequence[Record]) -> Record:
    last = records[-1]
    return {
        "run": str(run),
        "rounds": len(records) - 1,
        "steps": last["step"],
        "incumbent": last["incumbent"],
        "stopped": last["stopped"],
        "nats_per_character": last["nats_per_character"],
        "nats_per_token": last["nats_per_token"],
        "accuracy": last["accuracy"],
        "calibration_error": last["health"].get("policy_calibration_error"),
        "forwarded_tokens": last["forwarded"],
        "wall_s": sum(float(record["wall_s"]) for record in records),
        "alarms": [{"round": r["round"], **alarm} for r in records for alarm in r["alarms"]],
        "elo": last["elo"],
    }


def _head(run: Path, config: Record, records: Sequence[Record], summary: Record) -> str:
    model, learner = config["model"], config["learner"]
    made = model["load"] or f"{model['architecture'].get('model_type')}, random weights at first"
    text = config["corpus"]["path"] or config["corpus"]["dataset"]
    cells = [
        ("rounds", f"{summary['rounds']} of {config['rounds']}"),
        ("steps", number(summary["steps"])),
        ("nats per character", _decimals(summary["nats_per_character"])),
        ("accuracy", f"{100 * summary['accuracy']:.1f} %"),
        ("calibration error", _decimals(summary["calibration_error"])),
        ("tokens forwarded", number(summary["forwarded_tokens"])),
        ("hours", f"{summary['wall_s'] / 3600:.2f}"),
        ("alarms", str(len(summary["alarms"]))),
    ]
    stopped = '<p class="bad">An alarm stopped this run.</p>' if summary["stopped"] else ""
    return (
        f'<h1>{escape(run.resolve().name)}</h1><p class="sub">{escape(Path(str(text)).name)}, '
        f"{escape(str(made))}; {escape(learner['objective'])}; seed {config['seed']}</p>"
        f"{stopped}{tiles(cells)}"
    )


def _curves(records: Sequence[Record]) -> str:
    def curve(name: str, value: Callable[[Record], float | None], colour: int) -> Series:
        found = [(float(r["step"]), value(r)) for r in records]
        return Series(name, [(x, float(y)) for x, y in found if y is not None], colour)

    drawn = [
        (
            "Held-out text",
            chart(
                [curve("nats per character", lambda r: r["nats_per_character"], 0)],
                Axes("optimiser steps", "nats per character", whole=True),
            ),
        ),
        (
            "The likeliest token: how often right, how sure",
            chart(
                [
                    curve("accuracy", lambda r: r["accuracy"], 0),
                    curve("confidence", lambda r: r["health"].get("confidence"), 2),
                    curve("calibration error", lambda r: r["health"].get("policy_calibration_error"), 3),
                ],
                Axes("optimiser steps", "share", percent=True, zero=True, whole=True),
            ),
        ),
    ]
    return section("Text that was not learnt from", figures(drawn))


def _matches(records: Sequence[Record]) -> str:
    rows = [
        [str(r["round"]), *(str(match[key]) for key in ("against", "wins", "losses", "ties"))]
        for r in records
        for match in r["matches"]
    ]
    if not rows:
        return section("Matches", '<p class="none">No earlier round was met.</p>')
    points = [(float(number), elo) for number, elo in records[-1]["elo"].items()]
    axes = Axes("round", "Elo", whole=True, width=900)
    picture = figures([("Elo, the first that took part has 0", chart([Series("Elo", points, 0)], axes))])
    return section("Matches", picture + table(("round", "against", "won", "lost", "tied"), rows))


def _ledger(records: Sequence[Record]) -> str:
    head = ("round", "learnt", "play and search", "referee", "all so far", "seconds")
    rows = [
        [
            str(record["round"]),
            f"{record['learnt_tokens']:,}",
            f"{sum(record['ledger'][kind] for kind in SEARCH_COUNTS):,}",
            f"{record['ledger']['teacher_tokens']:,}",
            f"{record['forwarded']:,}",
            f"{record['wall_s']:.1f}",
        ]
        for record in records
    ]
    note = '<p class="note">Tokens forwarded; scores, monitors and matches are not among them.</p>'
    return section("Ledger", note + table(head, rows))


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
