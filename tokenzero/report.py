"""A run as one HTML page that needs nothing else: curves, arena, health, teachers, ledger, games.

It reads the run's records, the games that are still kept, and a tokenizer; it measures nothing anew. The
page loads no script, no font and no picture from anywhere. Charts are in ``report_charts``, games in
``report_samples``, text games in ``report_text``.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.report_charts import Axes, Series, chart, number
from tokenzero.report_health import health_section
from tokenzero.report_page import figures, page, section, table, tiles
from tokenzero.report_samples import samples
from tokenzero.report_text import text_report
from tokenzero.run_records import Record, is_text, read_run
from tokenzero.selfplay.episode import read_episodes
from tokenzero.selfplay.examiner import ladder_ratings
from tokenzero.selfplay.run_directory import checkpoint_path, shard_path

TOKEN_COUNTS = ("prefill_tokens", "decode_tokens", "value_tokens", "teacher_tokens")


def report(run: Path) -> tuple[str, Record]:
    """The page of the run in directory ``run``, and a summary of it for ``--json``.

    Raises InputError where there is no run, or none of its rounds is finished, or a file is damaged.
    """
    config, records = read_run(run, text=True)
    if is_text(config):
        return text_report(run, config, records)
    summary = _summary(run, records)
    title = f"{run.resolve().name}: self-play report"
    sections = [
        _head(run, config, records, summary),
        _accuracy(records),
        _losses(records),
        _arena(records),
        health_section(records),
        _teachers(records),
        _ledger(records),
        _games(run, records),
    ]
    return page(title, sections), summary


def spent_tokens(records: Sequence[Record]) -> list[int]:
    """Tokens that play had forwarded by the end of each round, all kinds, cumulative."""
    total, sums = 0, []
    for record in records:
        total += sum(int(record["ledger"][kind]) for kind in TOKEN_COUNTS)
        sums.append(total)
    return sums


def _summary(run: Path, records: Sequence[Record]) -> Record:
    known = [r["greedy_accuracy"] for r in records if r["greedy_accuracy"] is not None]
    return {
        "run": str(run),
        "rounds": len(records) - 1,
        "incumbent": records[-1]["incumbent"],
        "stopped": records[-1]["stopped"],
        "games": sum(int(record["games"]) for record in records),
        "forwarded_tokens": spent_tokens(records)[-1],
        "wall_s": sum(float(record["wall_s"]) for record in records),
        "best_greedy_accuracy": max(known, default=None),
        "last_greedy_accuracy": records[-1]["greedy_accuracy"],
        "last_search_accuracy": records[-1]["search_accuracy"],
        "alarms": [{"round": r["round"], **alarm} for r in records for alarm in r["alarms"]],
        "elo": {str(number): rating.elo for number, rating in ladder_ratings(records).items()},
    }


def _head(run: Path, config: Record, records: Sequence[Record], summary: Record) -> str:
    model = config["model"]
    made = model["load"] or f"{model['architecture'].get('model_type')}, random weights at first"
    cells = [
        ("rounds", f"{summary['rounds']} of {config['rounds']}"),
        ("greedy accuracy", _percent(summary["last_greedy_accuracy"])),
        ("with search", _percent(summary["last_search_accuracy"])),
        ("plays now", f"round {summary['incumbent']}"),
        ("games", number(summary["games"])),
        ("tokens forwarded", number(summary["forwarded_tokens"])),
        ("hours", f"{summary['wall_s'] / 3600:.2f}"),
        ("alarms", str(len(summary["alarms"]))),
    ]
    stopped = '<p class="bad">An alarm stopped this run.</p>' if summary["stopped"] else ""
    return (
        f'<h1>{escape(run.resolve().name)}</h1><p class="sub">{escape(str(config["task"]["name"]))}, '
        f"{escape(str(made))}; {escape(_search_of(config))}; seed {config['seed']}</p>{stopped}{tiles(cells)}"
    )


def _search_of(config: Record) -> str:
    play = config["play"]
    if play.get("player", "search") != "search":
        return f"played by {play['player']}"
    search = play["search"]
    if search.get("tokens"):
        return f"{search['method']} search, {search['tokens']} tokens a problem"
    per = "problem" if search["method"] == "frontier" else "move"
    return f"{search['method']} search, {search['simulations']} simulations a {per}"


def _accuracy(records: Sequence[Record]) -> str:
    def series(xs: Sequence[float]) -> list[Series]:
        return [
            _series(name, key, records, xs, colour)
            for name, key, colour in (
                ("greedy", "greedy_accuracy", 0),
                ("with search", "search_accuracy", 2),
            )
        ]

    rounds = [float(record["round"]) for record in records]
    tokens = [float(count) for count in spent_tokens(records)]
    by_round = Axes("round (0 is the warm start)", "accuracy", percent=True, zero=True, whole=True)
    by_tokens = Axes("tokens forwarded in play", "accuracy", percent=True, zero=True)
    return section(
        "Accuracy on held-out problems",
        figures(
            [
                ("By round", chart(series(rounds), by_round)),
                ("By forwarded tokens", chart(series(tokens), by_tokens)),
            ]
        ),
    )


def _losses(records: Sequence[Record]) -> str:
    drawn = []
    for colour, (key, title) in enumerate(
        (("policy", "Policy loss (nats)"), ("value", "Value loss (nats)"), ("kl", "KL to the warm start"))
    ):
        points = [(float(r["round"]), float(r["loss"][key])) for r in records[1:]]
        if any(y for _, y in points):
            axes = Axes("round", title, whole=True, width=420)
            drawn.append((title, chart([Series(title, points, colour)], axes)))
    return section("Losses", figures(drawn) if drawn else '<p class="none">no round was learnt yet</p>')


def _arena(records: Sequence[Record]) -> str:
    met = [record for record in records if record["arena"] is not None]
    if not met:
        return section(
            "Arena", '<p class="none">The arena was off: after every round the new weights played.</p>'
        )
    ratings = ladder_ratings(records)
    points = [(float(number), rating.elo) for number, rating in ratings.items()]
    promoted = {record["round"] for record in records if record["promoted"]}
    said = [
        f"round {number}: {rating.elo:+.0f} +/- {1.96 * rating.standard_error:.0f}"
        + ("" if number in promoted else ", not promoted")
        for number, rating in ratings.items()
    ]
    errors = [1.96 * rating.standard_error for rating in ratings.values()]
    line = Series("Elo of the raw policy", points, 0, errors, labels=said)
    picture = chart([line], Axes("round (the warm start has 0)", "Elo", whole=True, width=900))
    rows = []
    for record in met:
        for kind in ("raw", "search"):
            match = record["arena"][kind]
            if match is not None:
                rows.append(_match_row(record, "raw policy" if kind == "raw" else match["method"], match))
    head = ("round", "against", "played by", "problems", "won", "lost", "tied", "difference", "", "promoted")
    return section("Arena", figures([("Elo ladder, 95 % intervals", picture)]) + table(head, rows))


def _match_row(record: Record, who: str, match: Record) -> list[str]:
    low, high = match["ci95"]
    return [
        str(record["round"]),
        str(record["arena"]["against"]),
        escape(who),
        number(match["problems"]),
        number(match["wins"]),
        number(match["losses"]),
        number(match["ties"]),
        f"{100 * match['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        escape(str(match["reason"])),
        '<span class="yes">yes</span>' if record["promoted"] else "no",
    ]


def _teachers(records: Sequence[Record]) -> str:
    rows = [
        [str(r["round"]), ", ".join(f"{escape(n)} {w:.2f}" for n, w in r["teacher_weights"].items())]
        for r in records
        if r["teacher_weights"]
    ]
    if not rows:
        return section("Teachers", '<p class="none">The student played alone.</p>')
    return section("Teachers", table(("round", "teachers and their weights"), rows, words=(1,)))


def _ledger(records: Sequence[Record]) -> str:
    kinds = [kind for kind in records[-1]["ledger"] if kind != "wall_s"]
    head = ("round", "games", "solved", *(kind.replace("_", " ") for kind in kinds), "play s", "round s")
    rows = []
    for record in records:
        ledger = record["ledger"]
        counts = [_count(ledger[kind]) for kind in kinds]
        rows.append(
            [
                str(record["round"]),
                _count(record["games"]),
                _count(record["solved"]),
                *counts,
                f"{ledger['wall_s']:.1f}",
                f"{record['wall_s']:.1f}",
            ]
        )
    spent = [sum(record["ledger"][kind] for record in records) for kind in kinds]
    seconds = sum(record["ledger"]["wall_s"] for record in records)
    games, solved, wall = (sum(r[key] for r in records) for key in ("games", "solved", "wall_s"))
    last = ["sum", *map(_count, (games, solved, *spent)), f"{seconds:.1f}", f"{wall:.1f}"]
    note = '<p class="note">What play spent; examining the candidate is not in it.</p>'
    return section("Ledger", note + table(head, rows, last))


def _games(run: Path, records: Sequence[Record]) -> str:
    kept = [r["round"] for r in records if r["round"] and shard_path(run, r["round"]).is_file()]
    if not kept:
        return section("Games", '<p class="none">No games are kept.</p>')
    tokenizer = load_tokenizer(checkpoint_path(run, 0))
    episodes = read_episodes(shard_path(run, kept[-1]))
    note = (
        f'<p class="note">The first games of round {kept[-1]}, won and lost. A frame marks the candidates '
        "that the answer, or the tree, went on with.</p>"
    )
    return section("Games", note + samples(episodes, tokenizer))


def _series(name: str, key: str, records: Sequence[Record], xs: Sequence[float], colour: int) -> Series:
    kept = [(x, r) for x, r in zip(xs, records, strict=True) if r[key] is not None]
    labels = [f"round {r['round']}, {_percent(r[key])}" for _, r in kept]
    return Series(name, [(x, float(r[key])) for x, r in kept], colour, labels=labels)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _count(value: float) -> str:
    return f"{value:,}"
