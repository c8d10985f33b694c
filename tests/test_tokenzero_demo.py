"""The demo on a small configuration: what it prints and leaves, that it goes on, its one-line comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import finished_run, small_config

from tokenzero import demo
from tokenzero.plots import demo_picture, depth_picture
from tokenzero.progress import Progression, percent, round_cells


def _row(method: str, simulations: int, n: int, accuracy: float, tokens: float) -> dict[str, Any]:
    return {
        "method": method,
        "simulations": simulations,
        "n": n,
        "accuracy": accuracy,
        "ci95": [max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)],
        "mean_tokens": tokens,
        "p95_tokens": tokens,
        "seconds": 0.1,
        "mean_depth": 4.0,
    }


ROWS = [
    _row("greedy", 0, 1, 0.2, 20),
    _row("gumbel", 16, 1, 0.3, 40),
    _row("gumbel", 64, 1, 0.5, 80),
    _row("best-of-n", 0, 1, 0.1, 10),
    _row("best-of-n", 0, 8, 0.4, 100),
    _row("best-of-n", 0, 64, 0.6, 400),
]


def test_the_comparison_is_with_the_deepest_search() -> None:
    # halfway from 0.4 to 0.6 is halfway from 100 to 400 in log tokens: 200
    assert demo.comparison(ROWS) == [
        "gumbel with 64 simulations: 50.0 % at 80 tokens a problem; best-of-N needs 200, 2.50 times as many"
    ]


def test_the_comparison_says_when_best_of_n_never_gets_there() -> None:
    [line] = demo.comparison(ROWS[:-1])
    assert "best-of-N has 40.0 % at N=8 with 100, so it needs more than 1.25 times as many" in line
    assert demo.comparison(ROWS[:1]) == []
    twice = [*ROWS, _row("puct", 16, 1, 0.4, 50)]
    assert [line.split(":")[0] for line in demo.comparison(twice)] == [
        "gumbel with 64 simulations",
        "puct with 16 simulations",
    ]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenzero.config.load_config", lambda preset, overrides: small_config())
    monkeypatch.setattr(demo, "BUDGETS", {"gumbel": (0, 4), "puct": (4,), "frontier": (8,)})
    monkeypatch.setattr("tokenzero.bench_settings.SAMPLES", (1, 2))


@pytest.mark.usefixtures("tiny")
def test_the_demo_leaves_a_run_a_table_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert demo.main(["--out", str(out), "--problems", "6"]) == 0
    first = capsys.readouterr()
    kept = json.loads((out / "demo.json").read_text())
    assert [record["round"] for record in kept["rounds"]] == [0, 1, 2]
    assert list(kept["depth"]) == ["round 0", "round 2"]
    assert [row["method"] for row in kept["depth"]["round 2"]] == [
        "greedy",
        "gumbel",
        "puct",
        "frontier",
        "best-of-n",
        "best-of-n",
    ]
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "checkpoints" / "round-0002").is_dir()
    assert "round 2: puct with 4 simulations: " in first.out
    assert f"tokenzero generate {out}" in first.out
    assert "self-play, preset countdown" in first.err
    made = (out / "checkpoints" / "round-0002" / "round.json").stat().st_mtime_ns

    # The same command again plays no round a second time.
    assert demo.main(["--out", str(out), "--problems", "6"]) == 0
    assert (out / "checkpoints" / "round-0002" / "round.json").stat().st_mtime_ns == made
    assert json.loads((out / "demo.json").read_text())["rounds"] == kept["rounds"]


def test_mistakes_of_the_demo_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert demo.main(["--preset", "countdwn", "--out", str(tmp_path)]) == 2
    assert demo.main(["--problem"]) == 2
    assert demo.main(["--seed", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("tokenzero: error: ") for line in lines)


def test_pictures_are_drawn_from_rows_with_gaps() -> None:
    records = [json.loads(line) for line in (finished_run() / "metrics.jsonl").read_text().splitlines()]
    records[1]["greedy_accuracy"] = None
    for curves in ([("round 0", ROWS)], [("round 0", ROWS[:4]), ("round 2", ROWS)]):
        assert demo_picture(records, curves, "title").startswith(b"\x89PNG")
    for rows in (ROWS[:1], ROWS):
        report = {"task": "countdown", "split": "test", "problems": 5, "verifier": "gold", "seeds": [1]}
        assert depth_picture({**report, "pooled": rows}).startswith(b"\x89PNG")


def test_rounds_read_as_rows(capsys: pytest.CaptureFixture[str]) -> None:
    records = [json.loads(line) for line in (finished_run() / "metrics.jsonl").read_text().splitlines()]
    assert round_cells(records[0])[:3] == ["0", "-", "-"]
    cells = round_cells(
        records[1] | {"games": 24, "solved": 6, "greedy_accuracy": 0.125, "search_accuracy": None}
    )
    assert cells[:5] == ["1", "24", "25.0 %", "12.5 %", "-"]
    assert percent(1.0) == "100.0 %"
    progression = Progression(2)
    progression.advance(1)  # before any stage there is no bar to move
    progression.stage("play", 3)
    progression.advance(2)
    for record in records[:2]:
        progression.record(record)
    progression.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 3  # one header, two rows
