"""The Python interface and the package's lazy surface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import copied_run, finished_run, small_config

import tokenzero
from tokenzero.checkpoint import open_model, resolve
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError

PROMPT = "2 3 4 -> 10 :"


def test_every_promised_name_is_there() -> None:
    for name in tokenzero.__all__:
        assert getattr(tokenzero, name) is not None
        assert name in dir(tokenzero)
    with pytest.raises(AttributeError, match="hg_generate"):
        tokenzero.hg_generate  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("first", ["", "import tokenzero.selfplay\n", "from tokenzero import selfplay\n"])
def test_the_folder_selfplay_can_be_called_whoever_imports_it_first(first: str) -> None:
    script = (
        f"{first}import tokenzero, types\n"
        "called = []\n"
        "import sys; sys.modules['tokenzero.api'] = api = types.ModuleType('tokenzero.api')\n"
        "api.selfplay = lambda *a, **k: called.append((a, k))\n"
        "tokenzero.selfplay(1, out=2)\n"
        "print(called)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[((1,), {'out': 2})]\n"


def test_an_engine_generates_and_evaluates() -> None:
    engine = tokenzero.load(finished_run())
    assert engine.task.name == "countdown"
    assert engine.source.endswith("round-0002")
    assert engine.student.vocab_size > 30
    found = engine.generate(PROMPT, tokenzero.Search(simulations=4, method="puct"))
    assert found.method == "puct"
    assert engine.generate(PROMPT, method="beam", n=2).method == "beam"
    assert engine.generate(PROMPT).method == "gumbel"
    score = engine.evaluate("test", 5, method="greedy")
    assert score.problems == 5
    with pytest.raises(InputError, match="both given"):
        engine.generate(PROMPT, tokenzero.Search(), method="greedy")


def test_a_search_uses_the_models_defaults_or_its_own_config() -> None:
    engine = tokenzero.load(finished_run())
    kept = engine.generate(PROMPT, tokenzero.Search())
    assert len(kept.candidates) == open_model(finished_run()).search.candidates
    own = engine.generate(PROMPT, tokenzero.Search(config=SearchConfig(candidates=3, simulations=2)))
    assert len(own.candidates) == 3


def test_selfplay_runs_a_config(tmp_path: Path) -> None:
    from dataclasses import replace

    config = replace(small_config(), rounds=0)
    records = tokenzero.selfplay(config, tmp_path / "run")  # type: ignore[operator,unused-ignore]
    assert [record["round"] for record in records] == [0]
    with pytest.raises(InputError, match="already holds a run"):
        tokenzero.selfplay(config, tmp_path / "run")  # type: ignore[operator,unused-ignore]


def test_a_run_stands_for_its_latest_finished_checkpoint(tmp_path: Path) -> None:
    run = copied_run(tmp_path)
    assert resolve(run) == str(run / "checkpoints" / "round-0002")
    (run / "checkpoints" / "round-0002" / "round.json").unlink()
    assert resolve(run) == str(run / "checkpoints" / "round-0001")
    assert resolve("some/hub-name") == "some/hub-name"


def test_the_task_is_the_checkpoints_own_with_its_options() -> None:
    own = open_model(finished_run())
    named = open_model(finished_run(), "countdown")
    assert [p.public for p in own.parts.task.problems("test")] == [
        p.public for p in named.parts.task.problems("test")
    ]
    assert own.parts.value_head is not None
    with pytest.raises(InputError, match=r"takes 24 tokens, an answer to game24 may need"):
        open_model(finished_run(), "game24")


def test_a_foreign_value_head_is_refused(tmp_path: Path) -> None:
    from tokenzero.value import ValueHead

    checkpoint = copied_run(tmp_path) / "checkpoints" / "round-0002"
    ValueHead(8).save(checkpoint)
    with pytest.raises(InputError, match="not a pair"):
        open_model(checkpoint)
