"""An audit as one HTML page that needs nothing else: findings, charts, tables, and samples for the eye.

It draws what ``audit`` measured. Every text that a model, a task or a config wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from tokenzero.audit import Answer, Audit
from tokenzero.report_charts import Axes, Series, chart, number
from tokenzero.report_page import figures, page, section, table, tiles
from tokenzero.report_samples import game
from tokenzero.selfplay.audit_findings import LOOK, UNKNOWN
from tokenzero.selfplay.audit_measures import VERDICTS, Measures, signals

POINTS = 600
"""Answers that a scatter shows at most, evenly taken; all of them are measured."""
COLOURS = 10
SOLVED, UNSOLVED = 2, 1
"""Numbers in the palette."""

Pick = Callable[[Measures], Any]
Line = tuple[str, int, Pick]
"""What a line over rounds is called, its colour, and the mean that it shows of a round (None: nothing)."""


def audit_page(audit: Audit) -> str:
    """The page."""
    sections = [
        _head(audit),
        _findings(audit),
        _against_length(audit),
        _over_rounds(audit.rounds),
        _judge(audit.rounds),
        _teachers(audit.rounds),
        *(_samples(audit, kind, answers) for kind, answers in audit.samples.items()),
    ]
    return page(f"{audit.run.resolve().name}: audit", sections)


def _head(audit: Audit) -> str:
    looks = sum(finding.verdict == LOOK for finding in audit.findings)
    unknown = sum(finding.verdict == UNKNOWN for finding in audit.findings)
    last = audit.rounds[-1]
    cells = [
        ("to look at", f"{looks} of {len(audit.findings)}"),
        ("could not be told", str(unknown)),
        ("rounds measured", str(len(audit.rounds))),
        ("answers", number(sum(measures["answers"] for measures in audit.rounds))),
        ("right in the last round", _percent(last["solved"]["mean"] if last["answers"] else None)),
    ]
    return (
        f"<h1>{escape(audit.run.resolve().name)}: audit</h1>"
        f'<p class="sub">Is a reward, the judge or a teacher being gamed? Rounds '
        f"{audit.rounds[0]['round']} to {audit.rounds[-1]['round']}.</p>{tiles(cells)}"
    )


def _findings(audit: Audit) -> str:
    kinds = {LOOK: "bad", UNKNOWN: "note"}
    rows = [
        [
            escape(finding.name),
            _short(finding.value),
            _short(finding.threshold),
            f'<span class="{kinds.get(finding.verdict, "yes")}">{finding.verdict}</span>',
            escape(finding.sentence),
        ]
        for finding in sorted(audit.findings, key=lambda finding: finding.verdict != LOOK)
    ]
    if not rows:
        return section("Findings", '<p class="none">No round has an answer.</p>')
    return section("Findings", table(("finding", "value", "limit", "verdict", "seen"), rows, words=(0, 4)))


def _against_length(audit: Audit) -> str:
    """Each signal against the answer's length, right and wrong answers apart."""
    title = "Rewards against length"
    if not audit.answers:
        return section(title, '<p class="none">No games are kept.</p>')
    drawn = []
    for name, values in signals([answer.episode for answer in audit.answers]).items():
        kept = [(a, float(v)) for a, v in zip(audit.answers, values, strict=True) if v == v]
        step = -(-len(kept) // POINTS)
        series = []
        for kind, right, colour in (("wrong", False, UNSOLVED), ("right", True, SOLVED)):
            points = [(float(a.length), v) for a, v in kept[::step] if a.right == right]
            series.append(Series(kind, points, colour, joined=False))
        drawn.append((name, chart(series, Axes("length in tokens", name))))
    return section(f"{title}, round {audit.last}", figures(drawn))


def _over_rounds(rounds: Sequence[Measures]) -> str:
    played = [measures for measures in rounds if measures["answers"]]
    names = dict.fromkeys(name for measures in played for name in measures["rewards"])
    scores: list[Line] = [("right", 0, lambda measures: measures["solved"])]
    for colour, name in enumerate(names, start=1):
        scores.append((f"reward {name}", colour % COLOURS, _reward(name)))
    axes = Axes("round", "share or score", whole=True)
    drawn = [("Right answers and rewards", _lines(played, scores, axes))]
    for key, title, axes in (
        ("length", "Length of answers", Axes("round", "tokens", zero=True, whole=True)),
        ("repetition", "Repeated 3-grams", Axes("round", "share", percent=True, zero=True, whole=True)),
    ):
        groups: list[Line] = [
            ("wrong", UNSOLVED, _group(key, "unsolved")),
            ("right", SOLVED, _group(key, "solved")),
        ]
        drawn.append((title, _lines(played, groups, axes)))
    judge: list[Line] = [
        ("accepted", 0, lambda m: m["judge"] and m["judge"]["accepted"]),
        ("right of the accepted", SOLVED, lambda m: m["judge"] and m["judge"]["accepted_solved"]),
        ("agrees with the audit judge", 3, lambda m: m["audit_judge"] and m["audit_judge"]["agreement"]),
    ]
    if any(measures["judge"] for measures in played):
        axes = Axes("round", "share of answers", percent=True, zero=True, whole=True)
        drawn.append(("The judge", _lines(played, judge, axes)))
    return section("Over rounds", figures(drawn))


def _reward(name: str) -> Pick:
    return lambda measures: measures["rewards"].get(name)


def _group(key: str, group: str) -> Pick:
    return lambda measures: measures[key][group]


def _lines(played: Sequence[Measures], wanted: Sequence[Line], axes: Axes) -> str:
    series = []
    for name, colour, pick in wanted:
        known = [(measures["round"], mean) for measures in played if (mean := pick(measures)) is not None]
        points = [(float(r), float(mean["mean"])) for r, mean in known]
        labels = [f"round {r}, {number(mean['mean'])} over {mean['count']:,} answers" for r, mean in known]
        series.append(Series(name, points, colour, labels=labels))
    return chart(series, axes)


def _judge(rounds: Sequence[Measures]) -> str:
    spoken = [measures for measures in rounds if measures["answers"] and measures["judge"]]
    if not spoken:
        return section("Judge", '<p class="none">No judge spoke on finished answers.</p>')
    last = spoken[-1]
    confusion = last["judge"]["confusion"]
    rows = [
        [name, *(f"{confusion[name][kind]:,}" for kind in ("solved", "unsolved")), _right_of(confusion[name])]
        for name in VERDICTS.values()
    ]
    body = f'<p class="note">Round {last["round"]}: verdicts on finished answers against outcomes.</p>'
    body += table(("judge", "right", "wrong", "share right"), rows, words=(0,))
    if last["audit_judge"]:
        pairs = last["audit_judge"]["confusion"]
        body += '<p class="note">Against the audit judge, which search never asks:</p>'
        rows = [[f"judge: {name}", *(f"{pairs[name][n]:,}" for n in VERDICTS.values())] for name in pairs]
        body += table(("", *(f"audit judge: {name}" for name in VERDICTS.values())), rows, words=(0,))
    return section("Judge against outcome", body)


def _right_of(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return _percent(counts["solved"] / total if total else None)


def _teachers(rounds: Sequence[Measures]) -> str:
    rows = [
        [
            str(measures["round"]),
            escape(name),
            _percent(of["share"]),
            _short(of["outcome"]),
            _short(of["of_others"]),
            number(round(of["answers"])),
        ]
        for measures in rounds
        if measures["answers"] and len(measures["teachers"]) > 1
        for name, of in measures["teachers"].items()
    ]
    if not rows:
        return section("Teachers", '<p class="none">Every token of every answer is the student\'s.</p>')
    note = (
        '<p class="note">Who proposed the tokens of answers, and what answers weighted by that came to '
        "(outcome from -1 to 1).</p>"
    )
    head = ("round", "proposed by", "share of tokens", "outcome", "of the others", "answers' worth")
    return section("Teachers", note + table(head, rows, words=(1,)))


def _samples(audit: Audit, kind: str, answers: Sequence[Answer]) -> str:
    title = f"Samples: {kind}"
    if not answers:
        return section(title, '<p class="none">none</p>')
    return section(title, "".join(game(a.episode, audit.tokenizer, a.right, _said(a)) for a in answers))


def _said(answer: Answer) -> str:
    episode = answer.episode
    rewards = [f"{name} {reward:.2f}" for name, reward in episode.rewards.items()]
    verdicts = [
        f"{who}: {VERDICTS[verdict]}"
        for who, verdict in (("judge", episode.verdict), ("audit judge", episode.audit_verdict))
        if verdict
    ]
    told = f"outcome {episode.outcome:+.2f}, {answer.length:,} tokens, {_percent(answer.repetition)} repeated"
    return "; ".join([told, *rewards, *verdicts])


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
