"""The doctor finds what is broken, not only what is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_student

from tokenzero import doctor
from tokenzero.cli import main
from tokenzero.policy.state_store import StateStore


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attend to the wrong ancestors: every token of a forward gets the path of the first one."""
    right = StateStore.paths

    def wrong(self: StateStore, nodes: Any) -> Any:
        read, lengths = right(self, nodes)
        read[1:, 1:] = read[:1, 1:]
        return read, lengths

    monkeypatch.setattr(StateStore, "paths", wrong)


def test_a_failed_check_is_told_and_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch)
    assert main(["doctor", "--json"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["checks"]["engines agree"]["ok"] is False
    assert "differ by" in found["checks"]["engines agree"]["detail"]
    assert main(["doctor"]) == 1
    assert "FAILED: a tiny Llama needs recompute" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("family", "tier", "reason"),
    [
        ("llama-gqa", "tree attention", "lean forward"),
        ("gemma2", "gathered keys and values", "softcap"),
        ("mamba", "recompute", "differ by"),
    ],
)
def test_a_model_is_told_its_tier_and_why(
    family: str, tier: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_student(family).save(tmp_path / "model")
    assert main(["doctor", str(tmp_path / "model"), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["tier"] == tier
    assert reason in model["reason"]
    assert [finding["reason"] == "" for finding in model["findings"]] == [
        *[False] * (len(model["findings"]) - 1),
        True,
    ]
    assert main(["doctor", str(tmp_path / "model")]) == 0
    assert tier in capsys.readouterr().out


def test_a_model_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "./nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_kernels_are_compiled_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--warm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warm_s"] > 0


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
