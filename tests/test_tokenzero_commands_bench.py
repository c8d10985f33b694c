"""The verbs of benchmarks on a small run: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from small_run import copied_run, finished_run

from tokenzero import plots
from tokenzero.cli import main
from tokenzero.commands import bench_play
from tokenzero.selfplay.methods import METHODS
from tokenzero.useful_budget import USEFUL_FILE, read_useful_budgets

LIMIT = 100
"""Columns in which every table must be readable."""


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return call


def _json(outcome: tuple[int, str, str]) -> Any:
    code, out, err = outcome
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def _narrow(outcome: tuple[int, str, str]) -> str:
    code, out, err = outcome
    assert code == 0, err
    assert [line for line in out.splitlines() if line[:1] in "┏┃┡│└" and len(line) > LIMIT] == []
    return out


def test_depth_keeps_its_contract(cli: Any, tmp_path: Path) -> None:
    words = ("bench", "depth", finished_run(), "--simulations", "0,4", "--samples", "1,2", "--problems", 6)
    found = _json(cli(*words, "--out", tmp_path, "--json"))
    assert set(found) == {
        *("task", "split", "problems", "checkpoint", "verifier", "seeds", "against", "useful_budget", "rows"),
        *("pooled", "greedy", "equal_tokens", "equal_shared", "equal_seconds", "tokens_to_reach"),
    }
    keys = {
        *("method", "simulations", "n", "seed", "accuracy", "ci95", "mean_tokens", "p95_tokens", "wall_s"),
        "mean_depth",
    }
    assert all(set(row) == keys for row in found["rows"])
    assert [row["method"] for row in found["rows"]] == ["greedy", "gumbel", "best-of-n", "best-of-n"]
    assert found["verifier"] == "public"
    assert json.loads((tmp_path / "depth.json").read_text()) == found
    assert len((tmp_path / "depth.csv").read_text().splitlines()) == 1 + len(found["rows"])
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    assert len(pyarrow.parquet.read_table(tmp_path / "outcomes.parquet")) == 4 * 6
    shown = _narrow(cli(*words, "--method", "gumbel,puct", "--out", tmp_path))
    assert "public verifier used" in shown
    assert "depth.png" in shown


def test_depth_with_seeds_pools_them_and_compares_at_equal_cost(cli: Any, tmp_path: Path) -> None:
    words = ("bench", "depth", finished_run(), "--methods", "greedy,best-of-n,self-consistency,frontier")
    words += ("--simulations", "4,64", "--samples", "1,4,40", "--seed", "3,4", "--temperature", 0.9)
    found = _json(cli(*words, "--problems", 8, "--out", tmp_path, "--json"))
    assert found["seeds"] == [3, 4]
    assert len(found["rows"]) == 2 * len(found["pooled"]) == 2 * 9
    for row in found["pooled"]:
        own = [r for r in found["rows"] if all(r[key] == row[key] for key in ("method", "simulations", "n"))]
        assert row["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in own]))
        assert row["mean_tokens"] == pytest.approx(np.mean([r["mean_tokens"] for r in own]))
        assert row["seconds"] == pytest.approx(np.mean([r["wall_s"] for r in own]) / 8)
    [greedy] = [row for row in found["pooled"] if row["method"] == "greedy"]
    assert found["greedy"]["tokens"] == greedy["mean_tokens"]
    assert {row["method"] for row in found["equal_tokens"]} == {"best-of-n", "self-consistency", "frontier"}
    voted = {row["times"]: row for row in found["equal_tokens"] if row["method"] == "self-consistency"}
    assert voted[4]["accuracy"] is not None  # 1 to 40 samples enclose it, and no verdict ends them early
    shown = _narrow(cli(*words, "--problems", 4, "--out", tmp_path))
    assert "at equal forwarded tokens" in shown
    assert "at equal wall time" in shown


def test_depth_refuses_what_it_cannot_measure(cli: Any, tmp_path: Path) -> None:
    bench = ("bench", "depth", finished_run(), "--out", tmp_path)
    for words, reason in (
        (("--methods", "gumbl"), "did you mean 'gumbel'"),
        (("--methods", "beam", "--method", "puct"), "both given"),
        (("--against", "best"), "does not exist"),
        (("--seed", "1,-1"), "--seed is 1,-1"),
        (("--methods", "beam", "--temperature", "0.5"), "sampling means nothing to beam"),
        (("--methods", "gumbel", "--simulations", "0"), "nothing to measure"),
    ):
        code, out, err = cli(*bench, *words)
        assert (code, out) == (2, "")
        assert reason in err


def test_compare_is_paired_problem_by_problem(cli: Any, tmp_path: Path) -> None:
    run = finished_run()
    words = ("bench", "compare", run / "checkpoints" / "round-0000", run, "--methods", "greedy,best-of-n")
    words += ("--samples", "2,8", "--seed", "1,2", "--out", tmp_path)
    found = _json(cli(*words, "--json"))
    assert found["b"].endswith("round-0002")
    table = pyarrow.parquet.read_table(tmp_path / "outcomes.parquet").to_pylist()
    for row in found["rows"]:
        shares = {
            name: np.mean(
                [
                    line["solved"]
                    for line in table
                    if line["checkpoint"] == name
                    and all(line[key] == row[key] for key in ("method", "simulations", "n"))
                ]
            )
            for name in ("a", "b")
        }
        assert row["a_accuracy"] == pytest.approx(shares["a"])
        assert row["difference"] == pytest.approx(shares["b"] - shares["a"])
        low, high = row["difference_ci95"]
        assert low <= row["difference"] <= high
    assert json.loads((tmp_path / "compare.json").read_text()) == found
    assert len((tmp_path / "compare.csv").read_text().splitlines()) == 1 + 3
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "B less A" in _narrow(cli(*words))


def test_a_checkpoint_compared_with_itself_differs_by_nothing(cli: Any, tmp_path: Path) -> None:
    words = ("bench", "compare", finished_run(), finished_run(), "--methods", "greedy,best-of-n")
    found = _json(cli(*words, "--samples", "4", "--problems", 8, "--out", tmp_path, "--json"))
    assert all(row["difference"] == 0.0 and row["difference_ci95"] == [0.0, 0.0] for row in found["rows"])


def test_useful_budget_is_found_on_validation_and_kept(cli: Any, tmp_path: Path) -> None:
    run = copied_run(tmp_path)
    words = ("bench", "useful-budget", run, "--budgets", "8,1,2", "--problems", 10, "--json")
    found = _json(cli(*words))
    checkpoint = run / "checkpoints" / "round-0002"
    assert found["out"] == str(checkpoint / USEFUL_FILE)
    assert (found["split"], found["method"]) == ("validation", "gumbel")
    assert [row["simulations"] for row in found["rows"]] == [1, 2, 8]
    assert read_useful_budgets(checkpoint) == {"gumbel": found["budget"]}
    sampled = _json(cli(*words, "--method", "best-of-n"))
    assert [row["n"] for row in sampled["rows"]] == [1, 2, 8]
    assert set(read_useful_budgets(checkpoint)) == {"gumbel", "best-of-n"}
    out = _narrow(cli(*words[:-1]))
    assert f"useful budget of gumbel: {found['budget']}" in out
    depth = ("bench", "depth", run, "--simulations", "0", "--samples", "1", "--problems", 2)
    assert _json(cli(*depth, "--out", tmp_path / "d", "--json"))["useful_budget"] == {
        "gumbel": found["budget"],
        "best-of-n": sampled["budget"],
    }
    # A run whose checkpoint has the file is still whole: it can be gone on with.
    assert cli("selfplay", "--out", run, "--resume")[0] == 0


def test_useful_budget_refuses_test_problems(cli: Any) -> None:
    bench = ("bench", "useful-budget", finished_run())
    for words, reason in (
        (("--split", "test"), "--split is test"),
        (("--method", "greedy"), "greedy has no budget"),
        (("--method", "gumbl"), "did you mean 'gumbel'"),
        (("--budgets", "4"), "--budgets is '4'"),
    ):
        code, out, err = cli(*bench, *words)
        assert (code, out) == (2, "")
        assert reason in err
    assert not (finished_run() / "checkpoints" / "round-0002" / USEFUL_FILE).exists()


def test_titles_say_who_checked_answers() -> None:
    report = {"task": "t", "split": "test", "problems": 3, "seeds": [1]}
    assert "oracle-free" in plots._title({**report, "verifier": "gold"})
    assert "public verifier used" in plots._title({**report, "verifier": "public"})
    assert bench_play.verdicts("gold") == "oracle-free"


def test_every_method_has_a_look_and_a_name_in_the_help(cli: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert set(plots.STYLES) == set(METHODS)
    assert len({style[:2] for style in plots.STYLES.values()}) == len(METHODS)
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = " ".join(capfd.readouterr().out.split()).replace("- ", "-")
    assert [name for name in METHODS if name not in text] == []
