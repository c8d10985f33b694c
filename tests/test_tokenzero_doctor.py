"""The doctor finds what is broken, not only what is well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenzero import doctor
from tokenzero.cli import main
from tokenzero.policy.engine import GatherEngine, Ids, RecomputeEngine, Step


class Forgetful(GatherEngine):
    """Attends to the wrong ancestors: every state's path is that of the first state of its batch."""

    def extend(self, states: Ids, tokens: Ids) -> Step:
        return super().extend(states[:1].repeat(len(states)), tokens)


def test_engines_that_agree_and_one_that_does_not() -> None:
    student = doctor._student()
    plain = RecomputeEngine(student)
    assert doctor.compare_engines(GatherEngine(student), plain, student.vocab_size) <= doctor.TOLERANCE
    assert doctor.compare_engines(Forgetful(student), plain, student.vocab_size) > 100 * doctor.TOLERANCE


def test_a_failed_check_is_told_and_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "GatherEngine", Forgetful)
    assert main(["doctor", "--json"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["checks"]["engines agree"]["ok"] is False
    assert "differ by" in found["checks"]["engines agree"]["detail"]
    assert main(["doctor"]) == 1
    assert "FAILED: cached and recomputed logits differ" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/nowhere")
    found = doctor.examine()
    assert found["checks"]["numba cache"]["ok"] is False
    assert "NUMBA_CACHE_DIR" in found["checks"]["numba cache"]["detail"]


def test_versions_are_those_installed() -> None:
    import torch

    found = doctor.examine()
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()
    assert found["cuda"]["available"] == torch.cuda.is_available()
