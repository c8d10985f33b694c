"""A run's page: whole, self-contained, and about this run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import copied_run, finished_run, small_config

from tokenzero.cli import main
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.report import report, spent_tokens
from tokenzero.report_charts import Axes, Series, chart, number, ticks
from tokenzero.report_samples import positions, samples
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.episode import Episode, read_episodes
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path, shard_path

VOID = {"meta", "line", "circle", "polyline", "br"}


class Outline(HTMLParser):
    """Refuses tags that are not closed in order; collects what would be fetched, titles and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag in ("script", "link", "iframe", "object", "img"):
            self.fetched.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page, _ = report(finished_run())
    parsed = outline(page)
    assert parsed.fetched == []
    assert not re.search(r"url\(|@import|https?://", page)
    assert parsed.counts["svg"] >= 10
    said = "".join(parsed.text)
    for heading in ("Accuracy", "Losses", "Arena", "Health", "Teachers", "Ledger", "Games"):
        assert heading in said
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)


def test_the_numbers_are_the_runs(tmp_path: Path) -> None:
    run = finished_run()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    page, summary = report(run)
    assert summary["rounds"] == 2
    assert summary["games"] == sum(record["games"] for record in records)
    assert summary["forwarded_tokens"] == spent_tokens(records)[-1]
    assert summary["last_greedy_accuracy"] == records[-1]["greedy_accuracy"]
    assert len(summary["alarms"]) == sum(len(record["alarms"]) for record in records)
    said = "".join(outline(page).text)
    for record in records:
        for alarm in record["alarms"]:
            assert alarm["message"] in said
        assert f"{record['ledger']['decode_tokens']:,}" in said
    assert f"{sum(record['ledger']['simulations'] for record in records):,}" in said
    assert f"{len(summary['alarms'])}alarms" in said


def test_arena_and_ladder_are_drawn(tmp_path: Path) -> None:
    config = replace(
        small_config(), arena=ArenaConfig(max_problems=8, batch=4, margin=0.5, alpha=0.2, simulations=2)
    )
    records = Run(config, tmp_path / "run").execute()
    page, summary = report(tmp_path / "run")
    said = "".join(outline(page).text)
    assert "Elo ladder" in said
    assert summary["elo"]["0"] == 0.0
    assert set(summary["elo"]) == {"0", "1", "2"}
    assert records[2]["arena"]["elo"] == pytest.approx(summary["elo"]["2"])
    assert said.count("raw policy") >= 3
    assert f"round {records[-1]['incumbent']}" in said


def test_the_command_writes_the_page_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(finished_run()), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(out)
    assert told["rounds"] == 2
    assert out.read_text().startswith("<!doctype html>")
    run = copied_run(tmp_path)
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (run / "report.html").is_file()


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no run"):
        report(tmp_path / "nowhere")


def test_a_prompt_cannot_write_the_page() -> None:
    run = finished_run()
    episodes = read_episodes(shard_path(run, 2))
    tokenizer = load_tokenizer(checkpoint_path(run, 0))
    nasty = replace(episodes[0], prompt="<script>alert(1)</script>", answer="<b>&")
    page = samples([nasty], tokenizer)
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page
    outline(page)


def test_the_positions_of_a_game_are_what_search_knew() -> None:
    run = finished_run()
    tokenizer: Any = load_tokenizer(checkpoint_path(run, 0))
    episode = next(e for e in read_episodes(shard_path(run, 2)) if len(e.positions) > 2)
    first, second, *_ = positions(episode, tokenizer)
    assert first.text == ""
    assert second.text == tokenizer.decode([episode.tokens[episode.prompt_len]])
    assert first.value == episode.root_values[0]
    weights = [weight for _, weight, _ in first.candidates]
    assert weights == sorted(weights, reverse=True)
    assert [text for text, _, taken in first.candidates if taken] in ([second.text], [])


def test_the_positions_of_a_tree_are_told_by_their_paths() -> None:
    run = finished_run()
    tokenizer: Any = load_tokenizer(checkpoint_path(run, 0))
    ids = tokenizer("3 + 4 * 5", add_special_tokens=False)["input_ids"]
    tree = Episode(
        problem="",
        prompt="",
        answer="",
        tokens=[ids[0], *ids[:4]],
        prompt_len=1,
        parents=[-1, 0, 0, 2],
        positions=[0, 1, 3],
        actions=[[ids[0]], [ids[1], ids[2]], [ids[3]]],
        weights=[[1.0], [0.25, 0.75], [1.0]],
        importance=[2.0, 2.0, 1.0],
        root_values=[0.1, 0.2, 0.3, 0.4, 0.5],
        attribution=[[1.0]] * 3,
        outcome=1.0,
        forwarded_tokens=4,
        simulations=2,
        policy_version=0,
        seed=0,
    )
    root, one, deep = positions(tree, tokenizer)
    assert (root.text, root.value) == ("", 0.1)
    assert (one.text, one.value) == (tokenizer.decode([ids[0]]), 0.2)
    assert deep.text == tokenizer.decode([ids[0], ids[2]])
    assert deep.value == 0.4
    assert [weight for _, weight, _ in one.candidates] == [0.75, 0.25]
    assert all(taken for _, _, taken in one.candidates)


# ---- charts

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, st.floats(1e-6, 1e9), st.integers(2, 9))
def test_ticks_are_round_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_ticks_by_hand() -> None:
    assert ticks(0.0, 10.0, 5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert ticks(0.0, 4.0, 8, whole=True) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert ticks(3.0, 3.0) == [3.0]
    assert len(ticks(1.31, 1.46, 5)) >= 3


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0.0, 1234.0, 12345.0, 3.1e6, 0.01234, -2.5)] == [
        "0",
        "1,234",
        "12.3k",
        "3.1M",
        "0.0123",
        "-2.5",
    ]


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_points_lie_inside_the_picture(points: list[tuple[float, float]], zero: bool, percent: bool) -> None:
    axes = Axes("x", "y", percent=percent, zero=zero)
    drawn = chart([Series("a<b", sorted(points), marked=frozenset([0]))], axes)
    root = ElementTree.fromstring(drawn)
    for circle in root.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= axes.width
        assert 0 <= float(circle.attrib["cy"]) <= axes.height
    assert drawn.count('class="alarm"') == 1


def test_nothing_to_draw_is_said() -> None:
    assert "nothing measured" in chart([Series("a", [])], Axes("x", "y"))
