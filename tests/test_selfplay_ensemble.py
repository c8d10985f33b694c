"""The teachers of a round: which checkpoint is asked, what it answers, what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_student, plain
from tiny_run import tiny_config

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import ServerConfig
from tokenzero.policy.pretrain import Example, PretrainConfig
from tokenzero.selfplay.ensemble import Teachers, teachers_record
from tokenzero.selfplay.listener import Record
from tokenzero.selfplay.run import Run
from tokenzero.teachers import Ensemble, EnsembleConfig
from tokenzero.teachers.checkpoint import CheckpointConfig, checkpoint_teacher
from tokenzero.teachers.continuations import BeamConfig, SampleConfig
from tokenzero.teachers.local_model import ModelConfig as ModelTeacherConfig
from tokenzero.teachers.ngram import NgramConfig, NgramTeacher
from tokenzero.teachers.remote import RemoteTeacherConfig
from tokenzero.teachers.scripted import ScriptedConfig
from tokenzero.teachers.text_bridge import BridgeConfig

EXAMPLES = [Example([1, 4, 5, 6, 2], 2), Example([1, 4, 5, 7, 2], 2), Example([1, 8, 4, 5, 6, 2], 3)]


def checkpoints(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"round-{r}" for r in range(count)]
    for index, path in enumerate(paths):
        make_student(seed=index).save(path)
    return paths


def test_a_checkpoint_teacher_answers_as_its_student_and_says_what_it_cost() -> None:
    student = make_student()
    teacher = checkpoint_teacher("lag1", student)
    sequences = [[1, 5, 6], [1, 4, 4, 7, 9]]
    proposal = teacher.propose(sequences, 4)
    assert teacher.name == "lag1"
    assert proposal.tokens == 7, "both begin with the same token"
    for row, sequence in enumerate(sequences):
        probs = plain(student, sequence)[0].softmax(-1)
        best = probs.argsort(descending=True)[:4]
        assert proposal.actions[row].tolist() == best.tolist()
        np.testing.assert_allclose(proposal.probs[row], probs[best].numpy(), atol=1e-5)


def records(count: int) -> list[Record]:
    """Rounds 0 to count - 1, each played on by its own candidate."""
    return [{"round": r, "incumbent": r} for r in range(count)]


def opened(
    configs: list[Any], round_index: int, paths: list[Path], told: list[Record] | None = None, **options: Any
) -> Ensemble:
    config = replace(
        tiny_config(), teachers=configs, ensemble=EnsembleConfig(**options), pretrain=PretrainConfig()
    )
    ensemble = Teachers(config).ensemble(
        round_index, make_student(), told or records(round_index), paths.__getitem__, lambda: EXAMPLES
    )
    assert ensemble is not None
    return ensemble


@pytest.mark.parametrize(
    ("round_index", "lag", "version"),
    [
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 1),
        (3, 2, 0),
        (3, 5, 0),
    ],  # round r is played by the student of round r - 1
)
def test_the_lag_counts_back_from_the_student_that_plays(
    tmp_path: Path, round_index: int, lag: int, version: int
) -> None:
    (teacher,) = opened([CheckpointConfig(lag=lag)], round_index, checkpoints(tmp_path, round_index)).teachers
    assert teacher.name == f"lag{lag}"
    expected = plain(make_student(seed=version), [1, 5])[0].softmax(-1)
    assert teacher.propose([[1, 5]], 1).probs[0, 0] == pytest.approx(float(expected.max()), abs=1e-5)


def test_an_ngram_teacher_is_counted_on_the_demonstrations() -> None:
    (teacher,) = opened([NgramConfig(order=3)], 1, []).teachers
    proposal = teacher.propose([[1, 4, 5]], 10)
    assert proposal.actions[0, :2].tolist() == [6, 7], "after 4 5 comes 6 twice and 7 once"
    assert proposal.tokens == 0
    assert teacher.name == "3-gram"


def test_a_saved_ngram_table_needs_no_demonstrations_and_is_opened_before_the_warm_start(
    tmp_path: Path,
) -> None:
    student, path = make_student(), tmp_path / "four.safetensors"
    config = replace(
        tiny_config(),
        teachers=[NgramConfig(table=str(path))],
        ensemble=EnsembleConfig(),
        pretrain=PretrainConfig(steps=0, demonstrations=0),
    )
    teachers = Teachers(config)
    assert not teachers.count_demonstrations
    with pytest.raises(InputError, match=r"four\.safetensors cannot be read"):
        teachers.open(student)
    saved = NgramTeacher.fit([[4, 5, 6, 4, 5, 6]], 4, student.vocab_size)
    saved.save(path)
    teachers.open(student)
    ensemble = teachers.ensemble(1, student, records(1), [tmp_path].__getitem__, list)
    assert ensemble is not None
    (teacher,) = ensemble.teachers
    assert teacher.name == "four"
    assert np.array_equal(teacher.propose([[4, 5]], 3).probs, saved.propose([[4, 5]], 3).probs)


def test_every_kind_is_opened_by_its_settings(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path, 2)
    kinds = [
        ModelTeacherConfig(load=str(paths[0]), label="model"),
        BridgeConfig(load=str(paths[0]), label="bridge"),
        SampleConfig(draws=3, length=2),
        SampleConfig(draws=3, length=2, lag=1),
        BeamConfig(width=2, length=2),
        ScriptedConfig(function="test_selfplay_ensemble:script"),
        RemoteTeacherConfig(server=ServerConfig(url="http://127.0.0.1:9/v1", model="m")),
    ]
    ensemble = opened(kinds, 2, paths)
    assert ensemble.weights.names == [
        "model",
        "bridge",
        "sample",
        "sample-lag1",
        "beam",
        "script",
        "remote:m",
    ]
    for teacher in ensemble.teachers[:-1]:
        proposal = teacher.propose([[1, 4, 5]], 4, [2])
        assert proposal.actions[0, 0] >= 0, teacher.name


def script(prompt: str, partial: str) -> dict[str, float]:
    return {"a": 1.0}


def test_the_same_round_meets_the_same_teachers(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path, 2)
    configs = [NgramConfig(order=2), CheckpointConfig(lag=1)]
    one, other = (opened(configs, 2, paths) for _ in range(2))
    torch.manual_seed(1)
    for first, second in zip(one.teachers, other.teachers, strict=True):
        a, b = first.propose([[1, 4], [1, 8, 4]], 5), second.propose([[1, 4], [1, 8, 4]], 5)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.probs, b.probs)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="round-0"):
        opened([CheckpointConfig()], 1, [tmp_path / "round-0"])


def test_weights_go_on_from_the_last_record_that_has_any(tmp_path: Path) -> None:
    first = opened([NgramConfig(order=2), NgramConfig(order=3)], 1, [])
    one, held = np.ones((1, 1)), np.full((1, 2), 0.5)
    first.credit.add(["x"], np.asarray([[[0.0, 0.2, 0.8]]], np.float32), held, one, one)
    first.credit.add(["x"], np.asarray([[[0.5, 0.5, 0.0]]], np.float32), held, one, -one)
    told = [{"round": 0, "incumbent": 0}, {"round": 1, "incumbent": 1, **teachers_record(first)}]
    assert told[1]["teacher_weights"] == {"2-gram": 0.5, "3-gram": 0.5}
    told.append({"round": 2, "incumbent": 2, **teachers_record(None)})
    again = opened([NgramConfig(order=2), NgramConfig(order=3)], 3, [], told)
    assert again.weights.of("x").tolist() == first.weights.of("x").tolist()
    assert again.weights.of()[1] > 0.5


def test_nobody_is_heard_at_a_share_of_nothing() -> None:
    config = replace(tiny_config(), teachers=[NgramConfig()], ensemble=EnsembleConfig(beta=0.0))
    teachers = Teachers(config)
    assert teachers.ensemble(1, make_student(), records(1), lambda r: Path(), lambda: EXAMPLES) is None
    assert not teachers.count_demonstrations
    fading = EnsembleConfig(beta=0.5, beta_end=0.0, anneal_rounds=2)
    later = Teachers(replace(config, ensemble=fading))
    assert later.count_demonstrations
    assert later.ensemble(3, make_student(), records(3), lambda r: Path(), lambda: EXAMPLES) is None


def test_a_teacher_that_cannot_be_opened_shows_before_the_warm_start(tmp_path: Path) -> None:
    config = replace(tiny_config(), teachers=[ModelTeacherConfig(load=str(tmp_path / "nowhere"))])
    with pytest.raises(InputError, match="nowhere"):
        Run(config, tmp_path / "run").execute()
    assert not (tmp_path / "run" / "checkpoints" / "round-0000").exists()
