"""``tokenzero teachers``: rows, arrows, contexts, pictures, and a run without teachers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_run import make_run
from test_tokenzero_report import outline

from tokenzero.cli import main
from tokenzero.mcts.errors import InputError
from tokenzero.teacher_history import COLOURS, arrow, history, history_page, one_context
from tokenzero.teacher_plots import COLOURS as INKS
from tokenzero.teacher_plots import MARKERS, teacher_picture

WEIGHTS = {
    "": [{"good": 0.5, "bad": 0.5}, {"good": 0.9, "bad": 0.1}, {"good": 0.899, "bad": 0.101}],
    "high/1": [{}, {"good": 0.2, "bad": 0.8}, {"good": 0.1, "bad": 0.9}],
}


def entry(weight: float, number: int) -> dict[str, Any]:
    return {
        "weight": weight,
        "score": 0.25,
        "score_before": 0.125,
        "credit": 0.375,
        "consulted": 512,
        "tokens": 4096,
        "reason": f"rose in {number}: its proposals came to +0.31",
    }


RECORDS: list[dict[str, Any]] = [
    {
        "teachers": {
            context: {name: entry(weight, number + 1) for name, weight in weights[number].items()}
            for context, weights in WEIGHTS.items()
        }
    }
    for number in range(3)
]


def run_with_teachers(directory: Path) -> Path:
    return make_run(directory / "run", [None] * 3, RECORDS)


def rounds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"round": number, **record} for number, record in enumerate(records)]


def test_the_history_has_a_row_for_each_round_and_teacher() -> None:
    found = history(rounds([{}, *RECORDS]))
    assert list(found) == ["global", "high/1"]
    assert [(r["round"], r["teacher"]) for r in found["global"]] == [
        (1, "good"),
        (1, "bad"),
        (2, "good"),
        (2, "bad"),
        (3, "good"),
        (3, "bad"),
    ]
    assert [r["change"] for r in found["high/1"]] == [None, None, pytest.approx(-0.1), pytest.approx(0.1)]
    assert [arrow(r["change"]) for r in found["global"]] == ["", "", "↑", "↓", "→", "→"]
    first = found["global"][0]
    assert first == {"round": 1, "teacher": "good", "change": None, **entry(0.5, 1)}


def test_a_teacher_that_was_away_is_compared_with_its_last_weight() -> None:
    told = [
        {"teachers": {"": {name: {"weight": w} for name, w in each.items()}}}
        for each in (
            {"a": 0.4, "b": 0.6},
            {"b": 1.0},
            {"a": 0.6, "b": 0.4},
        )
    ]
    assert history(rounds(told))["global"][3]["change"] == pytest.approx(0.2)


def test_records_of_weights_alone_are_read() -> None:
    found = history(rounds([{"teacher_weights": {}}, {"teacher_weights": {"ngram": 1.0}}]))
    assert [(r["teacher"], r["weight"], r["reason"]) for r in found["global"]] == [("ngram", 1.0, None)]
    assert history(rounds([{}, {"teacher_weights": {}}, {"teachers": {}}])) == {}


def test_the_table_shows_the_global_weights_and_names_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with_teachers(tmp_path)
    assert main(["teachers", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "context: global" in printed
    lines = [line for line in printed.splitlines() if re.search(r"\b(good|bad)\b", line)]
    assert len(lines) == 6
    assert "0.900" in lines[2]
    assert "↑" in lines[2]
    assert "4,096" in lines[2]
    assert "rose in 2: its proposals came to +0.31" in lines[2]
    assert "other contexts, for --context: high/1" in printed


@pytest.mark.parametrize("context", ["high/1", "global", ""])
def test_one_context_is_shown_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], context: str) -> None:
    run = run_with_teachers(tmp_path)
    assert main(["teachers", str(run), "--context", context]) == 0
    printed = capsys.readouterr().out
    assert f"context: {context or 'global'}" in printed
    assert "other contexts" not in printed
    assert printed.count("rose in 1") == (0 if context == "high/1" else 2)
    assert main(["teachers", str(run), "--context", context, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["contexts"]) == [context or "global"]


def test_an_unknown_context_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teachers", str(run_with_teachers(tmp_path)), "--context", "low/1"]) == 2
    assert "'low/1'; this run has global, high/1" in capsys.readouterr().err
    with pytest.raises(InputError):
        one_context(history(rounds(RECORDS)), "low/1")


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with_teachers(tmp_path)
    assert main(["teachers", str(run), "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"run": str(run), "out": None, "contexts": history(rounds([{}, *RECORDS]))}


def test_a_run_without_teachers_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [None, None])
    out = tmp_path / "weights.png"
    assert main(["teachers", str(run), "--out", str(out), "--context", "high/1"]) == 0
    assert capsys.readouterr().out == f"{run} had no teachers: the student played alone\n"
    assert not out.exists()
    assert main(["teachers", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contexts"] == {}
    assert main(["teachers", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = run_with_teachers(tmp_path), tmp_path / "weights.png"
    assert main(["teachers", str(run), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["teachers", str(run), "--out", str(tmp_path / "weights.pdf")]) == 2
    assert ".png or .html" in capsys.readouterr().err


def test_names_in_the_picture_are_text_and_not_mathematics() -> None:
    told = {"teachers": {"$x_{": {f"$\\frac{number}": {"weight": 0.1} for number in range(11)}}}
    assert teacher_picture(history(rounds([told, told])), "$\\odd").startswith(b"\x89PNG")


def test_ten_teachers_look_different() -> None:
    looks = {(INKS[style % len(INKS)], MARKERS[style % len(MARKERS)]) for style in range(35)}
    assert len(looks) == 35
    style = (Path(__file__).parent.parent / "tokenzero" / "report.css").read_text()
    inks = [re.findall(rf"--s{index}: (#[0-9a-f]+)", style) for index in range(COLOURS)]
    assert all(len(found) == 2 for found in inks), "one on light paper, one on dark"
    assert all(f".c{index} " in style and f".k{index} " in style for index in range(COLOURS))
    assert len({found[0] for found in inks}) == COLOURS


def test_the_page_is_whole_and_says_why(tmp_path: Path) -> None:
    page = history_page("run", history(rounds([{}, *RECORDS])))
    parsed = outline(page)
    assert parsed.fetched == []
    assert not re.search(r"url\(|@import|https?://", page)
    said = "".join(parsed.text)
    assert "Context: global" in said
    assert "Context: high/1" in said
    assert said.count("rose in 2") >= 8, "in the table and at the points of both contexts"
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    nasty = [{"teachers": {"<i>": {"<script>": {"weight": 1.0, "reason": "<img src=x>"}}}}]
    page = history_page("<u>", history(rounds(nasty)))
    assert not re.search(r"<(script|img|u|i)>|<img", page.replace('<i class="key', ""))
    outline(page)


def test_names_are_no_markup_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"teachers": {"": {"[/red]": {"weight": 1.0, "reason": "[bold]"}}}}
    run = make_run(tmp_path / "run", [None], [told])
    assert main(["teachers", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "[/red]" in printed
    assert "[bold]" in printed


def test_a_terminal_without_arrows_gets_plain_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, printed = run_with_teachers(tmp_path), tmp_path / "printed"
    with printed.open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["teachers", str(run)]) == 0
    lines = [line for line in printed.read_text("ascii").splitlines() if "good" in line]
    assert "^" in lines[1]
