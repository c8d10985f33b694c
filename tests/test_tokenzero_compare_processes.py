"""The runs of a comparison as processes: order, failures, and that none is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from small_run import copied_run, small_config

from tokenzero import compare_processes
from tokenzero.compare_job import TEST_FILE, _execute, read_test
from tokenzero.compare_processes import Job, Message, execute, read_records
from tokenzero.mcts.errors import InputError

# Stands in for a run: tells its process id and does what its directory is called.
PLAYED = """
import json, os, signal, sys
order = json.loads(sys.stdin.readline())
print(json.dumps({"stage": str(os.getpid())}), flush=True)
deed = order["run"].split("/")[-1]
if deed == "crash":
    sys.exit("a warning\\ntokenzero: error: the disk is full")
if deed == "silent":
    sys.exit(3)
if deed == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if deed == "cut":
    print('{"stage": ', end="", flush=True)
if deed == "endless":
    signal.pause()
"""


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_processes, "PROGRAM", (sys.executable, "-c", PLAYED))


def _job(deed: str, needs: str | None = None, seed: int = 1) -> Job:
    return Job(deed, f"seed-{seed}/{deed}", small_config(), needs)


class _Ear:
    """Hears and remembers."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.most = 0
        self.order: list[str] = []
        self.processes: list[int] = []

    def __call__(self, job: Job, message: Message) -> None:
        if "end" in message:
            self.order.append(job.run)
            self.running.remove(job.run)
        else:
            self.running.add(job.run)
            self.most = max(self.most, len(self.running))
            self.processes.append(int(message["stage"]))

    def all_gone(self) -> bool:
        return not any(_alive(process) for process in self.processes)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("played")
def test_all_jobs_run_after_what_they_need_and_never_more_than_asked_for(tmp_path: Path) -> None:
    jobs = [_job("b", "seed-1/a"), _job("c", "seed-1/a"), _job("a"), _job("d", "seed-0/done-before")]
    for processes in (1, 2):
        ear = _Ear()
        assert execute(tmp_path, jobs, processes, ear) == {}
        assert sorted(ear.order) == [f"seed-1/{name}" for name in "abcd"]
        assert min(ear.order.index("seed-1/b"), ear.order.index("seed-1/c")) > ear.order.index("seed-1/a")
        assert ear.most <= processes
        assert ear.all_gone()
    assert list(tmp_path.rglob("*.log")) == []
    with pytest.raises(InputError, match="--jobs is 0"):
        execute(tmp_path, jobs, 0, _Ear())


@pytest.mark.usefixtures("played")
def test_one_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    deeds = ("crash", "silent", "killed", "cut", "fine")
    jobs = [*(_job(deed) for deed in deeds), _job("after", "seed-1/crash"), _job("later", "seed-1/after")]
    ear = _Ear()
    failures = execute(tmp_path, jobs, 2, ear)
    assert sorted(failures) == sorted(
        f"seed-1/{deed}" for deed in ("crash", "silent", "killed", "after", "later")
    )
    assert failures["seed-1/crash"].startswith("the disk is full (exit code 1; ")
    assert failures["seed-1/silent"].startswith("it said nothing (exit code 3; ")
    assert "killed by signal 9" in failures["seed-1/killed"]
    assert failures["seed-1/after"] == "seed-1/crash failed, where it would have begun"
    assert "a warning" in (tmp_path / "seed-1" / "crash.log").read_text()
    assert not (tmp_path / "seed-1" / "fine.log").exists()
    assert ear.all_gone()


class _Ended(subprocess.Popen[str]):
    """A process that is gone before anything can be written to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.wait()


def test_one_that_never_listens_has_failed_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_processes, "PROGRAM", ("false",))
    monkeypatch.setattr(subprocess, "Popen", _Ended)
    failures = execute(tmp_path, [_job("deaf")], 1, lambda job, message: None)
    assert failures["seed-1/deaf"].startswith("it said nothing (exit code 1; ")


@pytest.mark.usefixtures("played")
def test_whatever_is_raised_no_process_is_left(tmp_path: Path) -> None:
    ear = _Ear()

    def hear(job: Job, message: Message) -> None:
        ear(job, message)
        if len(ear.running) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, [_job("endless"), _job("endless", seed=2), _job("fine")], 2, hear)
    assert len(ear.processes) == 2
    assert ear.all_gone()


@pytest.mark.slow
def test_a_run_ends_when_whoever_started_it_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenzero.compare_job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    config = asdict(replace(small_config(), rounds=10**6))
    order = {"directory": str(tmp_path), "run": "few", "config": config, "reads_test": False}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    assert "stage" in json.loads(process.stdout.readline())
    process.stdin.close()
    process.stdout.read()
    assert process.wait() == 1
    process.stdout.close()


@pytest.mark.slow
def test_what_a_run_complains_about_is_the_reason(tmp_path: Path) -> None:
    run = tmp_path / "seed-1" / "few"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    job = Job("few", "seed-1/few", replace(small_config(), rounds=0))
    failures = execute(tmp_path, [job], 1, lambda job, message: None)
    assert list(failures) == ["seed-1/few"]
    assert "is not empty and holds no run" in failures["seed-1/few"]
    assert "exit code 2" in failures["seed-1/few"]
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_a_run_that_an_alarm_stopped_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        def __init__(self, config: Any, directory: Path, listener: Any) -> None: ...

        def execute(self, *, resume: bool) -> list[dict[str, Any]]:
            return [{"round": 0, "alarms": []}, {"round": 1, "alarms": [{"name": "entropy"}]}]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokenzero.selfplay.run.Run", Stopped)
    order = {"directory": str(tmp_path), "run": "few", "config": asdict(small_config()), "reads_test": True}
    told: list[dict[str, Any]] = []
    with pytest.raises(InputError, match=r"an alarm stopped it after round 1 \(entropy\)"):
        _execute(order, told.append)
    assert told == []  # the test split stays unread


def test_the_test_split_is_read_greedily_and_kept(tmp_path: Path) -> None:
    run = copied_run(tmp_path)
    read = read_test(run, small_config(), 1, 8)
    assert json.loads((run / TEST_FILE).read_text()) == read
    assert (read["asked"], read["problems"], read["round"], len(read["solved"])) == (8, 8, 1, 8)
    assert read["accuracy"] == read["solved"].count("1") / 8
    assert read["ledger"]["decode_tokens"] > 0


def test_records_of_a_run_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"round": 0}\n{"rou')
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path)
