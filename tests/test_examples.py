"""Every example runs from a clone, offline, and prints what its docstring says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(directory: Path, name: str, *arguments: str) -> str:
    """What an example prints, started in a directory of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(text: str, pattern: str) -> list[int]:
    """The numbers in the only place that ``pattern`` matches."""
    (found,) = re.findall(pattern, text)
    return [int(number) for number in ([found] if isinstance(found, str) else found)]


@pytest.mark.slow
def test_a_custom_task_is_learnt_searched_and_found_again(tmp_path: Path) -> None:
    run_directory = tmp_path / "run"
    printed = run(tmp_path, "custom_task.py", str(run_directory))
    (once,) = numbers(printed, r"at once: (\d+)")
    (searched,) = numbers(printed, r"with search: (\d+)")
    assert searched > once
    coins = re.search(r"2 5 9 -> 21 : ((?:[259] ?){4})$", printed, re.MULTILINE)
    assert coins is not None
    # the run names its task, and the command line finds it from where the file lies
    command = [sys.executable, "-m", "tokenzero.cli", "eval", str(run_directory), "--problems", "5", "--json"]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"task": "custom_task:Change"' in done.stdout


def test_the_custom_task_is_short() -> None:
    assert len((EXAMPLES / "custom_task.py").read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_a_custom_teacher_is_heard(tmp_path: Path) -> None:
    printed = run(tmp_path, "custom_teacher.py")
    alone, of = numbers(printed, r"alone: solved (\d+) of (\d+)")
    taught, among = numbers(printed, r"with the teacher: solved (\d+) of (\d+)")
    assert of == among == 100
    assert alone != taught
    assert "the teacher stayed: its proposals came to" in printed


@pytest.mark.slow
def test_a_custom_judge_moves_the_search(tmp_path: Path) -> None:
    printed = run(tmp_path, "custom_judge.py")
    alone, _ = numbers(printed, r"alone: (\d+) of 60, (\d+) tokens")
    judged, _ = numbers(printed, r"with the judge: (\d+) of 60, (\d+) tokens")
    assert judged > alone


@pytest.mark.slow
def test_depth_against_quality_draws_a_picture(tmp_path: Path) -> None:
    printed = run(tmp_path, "depth_against_quality.py")
    assert printed.count("tokens a problem") == 9
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")


def test_search_inside_transformers(tmp_path: Path) -> None:
    printed = run(tmp_path, "hf_generate.py")
    ways = {line[:15].strip(): line[15:].strip() for line in printed.splitlines()}
    assert list(ways) == ["greedy", "no simulations", "search", "best of 4"]
    assert ways["greedy"] == ways["no simulations"]
    assert ways["search"].count("a") == 1 < ways["greedy"].count("a")  # the prompt's own
    for text in ways.values():
        assert text.startswith("abc")
        assert "." not in text[:-1]
        assert not re.search(r"(.)\1", text)


def test_examples_say_how_they_are_run() -> None:
    for path in sorted(EXAMPLES.glob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert f"python examples/{path.name}" in said, path.name
        assert path.name in (EXAMPLES / "README.md").read_text(encoding="utf-8")
