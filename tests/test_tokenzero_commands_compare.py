"""The verb ``compare`` from end to end, with real runs in real processes: killed, gone on with, repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import write_config
from tiny_run import fingerprint

from tokenzero import compare_processes
from tokenzero.cli import main
from tokenzero.compare import OWN_DEFAULTS, Comparison, variants
from tokenzero.compare_progress import Overview
from tokenzero.config import load_config
from tokenzero.selfplay.run import Run

SEED = 4
ARMS = "gumbel,sampling"


@pytest.fixture(scope="module")
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def stopped_and_gone_on_with(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison stopped in the middle of a run, as by Ctrl-C, and then finished."""
    place = tmp_path_factory.mktemp("compare")
    words = ["compare", "--config", str(write_config(place)), "--out", str(place / "out")]
    words += ["--arms", ARMS, "--seeds", str(SEED), "--test-problems", "15", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        hear = Overview.hear

        def interrupted(self: Overview, job: Any, message: Any) -> None:
            hear(self, job, message)
            if message.get("record", {}).get("round") == 1:
                raise KeyboardInterrupt

        patch.setattr(Overview, "hear", interrupted)
        assert main(words) == 130
    assert not (place / "out" / "compare.json").exists()
    assert main(words) == 0
    return place / "out"


@pytest.mark.slow
def test_a_comparison_that_was_stopped_ends_as_its_runs_would_alone(
    stopped_and_gone_on_with: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_config(path=write_config(tmp_path), overrides=OWN_DEFAULTS)
    arms = variants(ARMS, base)
    for job in Comparison(tmp_path, base, arms, [SEED], "gumbel").jobs():
        monkeypatch.chdir(tmp_path)
        Run(job.config, Path(job.run)).execute()
        found = fingerprint(stopped_and_gone_on_with / job.run)
        assert ("test.json" in found) == job.reads_test
        found.pop("test.json", None)
        assert found == fingerprint(tmp_path / job.run)


@pytest.mark.slow
def test_the_report_is_one_object_and_a_second_call_starts_no_process(
    stopped_and_gone_on_with: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stopped_and_gone_on_with
    monkeypatch.setattr(compare_processes, "PROGRAM", ("false",))
    capfd.readouterr()
    assert main(["compare", "--out", str(out), "--json"]) == 0  # nothing need be repeated
    printed = capfd.readouterr().out
    assert printed.count("\n") == 1
    report = json.loads(printed)
    assert report == json.loads((out / "compare.json").read_text())
    assert (report["split"], report["problems"], report["seeds"]) == ("test", 15, [SEED])
    assert [row["arm"] for row in report["rows"]] == ["gumbel", "sampling"]
    assert all(row["runs"] == 1 for row in report["rows"])
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "| gumbel |" in (out / "compare.md").read_text()
    assert (out / "compare.csv").read_text().startswith("arm,")
    assert main(["compare", "--out", str(out)]) == 0
    assert "minus gumbel" in capfd.readouterr().out


@pytest.mark.slow
def test_mistakes_are_one_line(
    stopped_and_gone_on_with: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = stopped_and_gone_on_with
    config = str(write_config(tmp_path))
    for words, complaint in (
        ([str(tmp_path / "new")], "give --arms"),
        ([str(tmp_path / "new"), "--arms", " , "], "name at least one arm"),
        ([str(tmp_path / "new"), "--arms", "gumble"], "'gumble' does not exist"),
        ([str(tmp_path / "new"), "--arms", "gumbel", "--seeds", "1,x"], "--seeds is '1,x'"),
        ([str(tmp_path / "new"), "--arms", "gumbel", "--config", config, "--jobs", "0"], "--jobs is 0"),
        ([str(out), "--config", config, "--set", "learner.steps=7"], "learner.steps was 6, now 7"),
        ([str(out), "--test-problems", "9"], "was read on 15 problems"),
    ):
        capfd.readouterr()
        assert main(["compare", "--out", *words]) == 2
        printed = capfd.readouterr()
        assert printed.out == ""
        assert complaint in printed.err.splitlines()[-1]


@pytest.mark.slow
def test_a_run_that_fails_is_reported_beside_the_others(
    stopped_and_gone_on_with: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_processes, "PROGRAM", ("false",))
    capfd.readouterr()
    words = ["compare", "--out", str(stopped_and_gone_on_with), "--arms", "gumbel,puct", "--json"]
    assert main(words) == 1
    report = json.loads(capfd.readouterr().out)
    assert list(report["failures"]) == [f"seed-{SEED}/puct"]
    assert [row["runs"] for row in report["rows"]] == [1, 0]
