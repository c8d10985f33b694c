"""``tokenzero audit``: what is printed, the one JSON object, and the page, on runs made by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_run import make_answer, make_run
from test_tokenzero_report import outline

from tokenzero.audit import SHOWN, audit
from tokenzero.audit_page import POINTS, audit_page
from tokenzero.cli import main
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.audit_measures import measure_round
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.run_directory import shard_path

KINDS = [
    "highest reward, and wrong",
    "longest",
    "most repetitive",
    "accepted by the judge, and wrong",
    "rejected by the judge, and right",
]


def gamed(number: int, count: int = 80) -> list[Episode]:
    """Round ``number`` of a run in which a reward pays for length and the judge is taken in more and more."""
    episodes = []
    for index in range(count):
        right = index % 2 == 0
        length = 2 + (7 * index + index // 2) % 20
        taken_in = index % 8 < 2 * number
        episodes.append(
            make_answer(
                "abcdefghijklmnopqrstuvwxyz"[index % 26] + "ab" * length,
                1.0 if right else -1.0,
                problem=str(index),
                attribution=[[0.5, 0.5]] * (2 * length + 1),
                rewards={"exact": float(right), "bleu": length / 25},
                verdict=1 if taken_in else -1,
                audit_verdict=1 if right else -1,
            )
        )
    return episodes


def gamed_run(directory: Path, **changes: Any) -> Path:
    records = [{"teacher_weights": {"ngram": 1.0}}] * 3
    games = [[replace(e, **changes) for e in gamed(number)] for number in (1, 2, 3)]
    return make_run(directory / "run", games, records)


def told(words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_json_is_one_object_with_everything_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gamed_run(tmp_path)
    printed = told(("audit", run, "--json"), capsys)
    assert printed.count("\n") == 1
    found = json.loads(printed)
    assert set(found) == {"run", "out", "look", "findings", "rounds", "samples"}
    assert found["out"] is None
    assert [measures["round"] for measures in found["rounds"]] == [1, 2, 3]
    assert all(set(f) == {"name", "value", "threshold", "verdict", "sentence"} for f in found["findings"])
    verdicts = {finding["name"]: finding["verdict"] for finding in found["findings"]}
    assert verdicts["reward bleu against length"] == "look"
    assert verdicts["teacher ngram"] == "ok"
    assert found["look"] == sum(verdict == "look" for verdict in verdicts.values())
    assert list(found["samples"]) == KINDS
    assert not list(run.glob("*.html"))


def test_the_table_says_each_finding_and_how_many_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = gamed_run(tmp_path)
    names = [finding.name for finding in audit(run).findings]
    printed = told(("audit", run), capsys)
    assert f"of {len(names)} to look at; rounds measured: 1, 2, 3" in printed
    assert "bleu" in printed
    assert "teacher ngram" in printed
    assert printed.count(" look ") >= 1


def test_samples_are_the_most_telling_ones(tmp_path: Path) -> None:
    found = audit(gamed_run(tmp_path)).samples
    assert list(found) == KINDS
    longest = [answer.length for answer in found["longest"]]
    assert longest == sorted(longest, reverse=True)
    assert longest[0] == max(len(e.answer) for e in gamed(3))
    praised = found["highest reward, and wrong"]
    assert len(praised) == SHOWN
    assert [a.right for a in praised] == [False] * SHOWN
    best = sorted((e.rewards["bleu"] for e in gamed(3) if e.outcome < 0), reverse=True)[:SHOWN]
    assert [a.episode.rewards["bleu"] for a in praised] == best
    assert all(a.episode.verdict > 0 and not a.right for a in found["accepted by the judge, and wrong"])
    assert all(a.episode.verdict < 0 and a.right for a in found["rejected by the judge, and right"])
    repetition = [answer.repetition for answer in found["most repetitive"]]
    assert repetition == sorted(repetition, reverse=True)
    assert repetition[0] > 0.8


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gamed_run(tmp_path)
    out = tmp_path / "audit.html"
    assert f"wrote {out}" in told(("audit", run, "--out", out), capsys)
    page = out.read_text()
    parsed = outline(page)
    assert parsed.fetched == []
    assert not re.search(r"url\(|@import|https?://", page)
    said = "".join(parsed.text)
    for heading in ("Findings", "Rewards against length", "Over rounds", "Judge against outcome", "Teachers"):
        assert heading in said
    for kind in KINDS:
        assert f"Samples: {kind}" in said
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    found = audit(run)
    for finding in found.findings:
        assert finding.sentence in said
    confusion = found.rounds[-1]["judge"]["confusion"]["accept"]
    assert f"accept{confusion['solved']}{confusion['unsolved']}" in said


def test_a_scatter_shows_each_answer_up_to_a_limit(tmp_path: Path) -> None:
    for count in (40, POINTS + 1):
        page = audit_page(audit(make_run(tmp_path / str(count), [gamed(1, count)])))
        scatter = page.split("Rewards against length")[1].split("</figure>")[0]
        dots = scatter.count(" dot")
        assert dots == count if count < POINTS else POINTS / 3 < dots <= POINTS
        assert "<polyline" not in scatter


def test_nothing_a_model_wrote_becomes_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "<script>alert(1)</script>"
    games = [[replace(e, prompt=nasty, answer=nasty, rewards={nasty: e.rewards["bleu"]}) for e in gamed(3)]]
    run = make_run(tmp_path / "run", games, [{"teacher_weights": {"<b>[/red]": 1.0}}])
    page = audit_page(audit(run))
    assert "<script" not in page
    assert "<b>[" not in page
    assert nasty in "".join(outline(page).text)
    assert "[/red]" in told(("audit", run), capsys)


def test_rounds_without_games_are_measured_by_their_records(tmp_path: Path) -> None:
    kept = audit(make_run(tmp_path / "kept", [gamed(1), gamed(2), gamed(3)]))
    first = json.loads(json.dumps(measure_round(1, gamed(1), [], lambda text: [])))
    run = make_run(tmp_path / "run", [None, None, gamed(3)], [{"audit": first}, {}, {}])
    found = audit(run)
    assert [measures["round"] for measures in found.rounds] == [1, 3]
    assert found.rounds == [kept.rounds[0], kept.rounds[2]]
    assert found.last == 3


def test_a_run_that_keeps_no_games_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [None, None])
    assert main(["audit", str(run)]) == 2
    assert "keep.shards=all" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert "holds no run" in capsys.readouterr().err
    shard_path(run, 2).parent.mkdir()
    shard_path(run, 2).write_text("no games")
    with pytest.raises(InputError, match="round-0002"):
        audit(run)


def test_a_plain_run_without_judge_rewards_or_teachers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games = [[make_answer("ab", -1.0 + index % 3, problem=str(index)) for index in range(30)], []]
    run = make_run(tmp_path / "run", games)
    page = audit_page(audit(run))
    said = "".join(outline(page).text)
    assert "No judge spoke" in said
    assert "is the student's" in said
    assert "No games are kept" in said, "the last round has none"
    assert json.loads(told(("audit", run, "--json"), capsys))["rounds"][1] == {"round": 2, "answers": 0}
    nothing = make_run(tmp_path / "nothing", [[]])
    assert "No round has an answer" in audit_page(audit(nothing))
    assert "0 of 0 to look at" in told(("audit", nothing), capsys)
