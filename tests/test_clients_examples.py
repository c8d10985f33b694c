"""The examples that use the server, run as they are against a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import PROBLEM, Served, serving

EXAMPLES = Path(__file__).parent.parent / "examples"
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


def _run(name: str, *words: str, home: Path) -> str:
    """What an example prints. It runs as a program of its own, as a user runs it."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        env={**os.environ, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
def test_the_openai_example(server: Served, tmp_path: Path) -> None:
    said = _run("server_openai.py", "--url", server.url, home=tmp_path)
    assert "simulations" in said
    assert "log P(prompt):" in said


@pytest.mark.slow
def test_the_langchain_example(server: Served, tmp_path: Path) -> None:
    said = _run("server_langchain.py", "--url", server.url, PROBLEM, home=tmp_path)
    assert "verifier_calls" in said
    assert PROBLEM in said


@pytest.mark.slow
def test_the_harness_example(server: Served, tmp_path: Path) -> None:
    said = _run("server_lm_eval.py", "--url", server.url, home=tmp_path)
    assert "acc" in said
    assert said.count("->") == 2, "a line for each row"
