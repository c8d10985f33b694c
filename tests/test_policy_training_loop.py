"""The loop itself: records of held-out scores across interruptions, precision, divergence, foreign data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_student

from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import DemonstrationBatches, Example, with_replacement
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.training_loop import (
    METRICS_FILE,
    Batch,
    Scoring,
    TrainingConfig,
    clone,
    part_losses,
    train,
)

EXAMPLES = [Example([1, 5, 6, 7, 2], 3), Example([1, 8, 4, 5, 6, 7, 2], 2), Example([1, 9, 2], 2)]
CONFIG = TrainingConfig(
    steps=7, checkpoint_every=3, optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, batch_size=4)
)


class Stop(Exception):
    pass


def weights(student: Student) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in student.model.parameters()])


def batches(student: Student, parts: int = 1) -> DemonstrationBatches:
    return DemonstrationBatches(student, EXAMPLES, with_replacement(5, len(EXAMPLES), 4), parts)


def fingerprint(student: Student) -> Scoring:
    """A score that tells which weights were scored."""
    return Scoring(lambda last: {"sum": float(weights(student).double().sum()), "last": last}, every=2)


@pytest.mark.parametrize("stop", range(1, 8))
def test_records_and_bits_are_those_of_an_unbroken_training(tmp_path: Path, stop: int) -> None:
    whole = make_student()
    losses: list[float] = []
    expected = train(
        whole, batches(whole), CONFIG, scoring=fingerprint(whole), on_step=lambda _, loss: losses.append(loss)
    )
    assert [record["step"] for record in expected.records] == [2, 4, 6, 7]
    assert [record["last"] for record in expected.records] == [False, False, False, True]
    assert expected.records[1]["loss"] == (losses[2] + losses[3]) / 2, "the mean since the last record"
    assert expected.loss == losses[-1]

    def interrupt(step: int, loss: float) -> None:
        if step == stop:
            raise Stop

    broken, again = make_student(), make_student()
    where: dict[str, Any] = {"directory": tmp_path / "t", "source": "digest"}
    with pytest.raises(Stop):
        train(broken, batches(broken), CONFIG, scoring=fingerprint(broken), on_step=interrupt, **where)
    found = train(again, batches(again), CONFIG, scoring=fingerprint(again), **where)
    assert torch.equal(weights(whole), weights(again))
    assert (found.loss, found.records) == (expected.loss, expected.records)
    lines = (tmp_path / "t" / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected.records


def test_what_is_scored_and_kept_is_the_moving_average(tmp_path: Path) -> None:
    student = make_student()
    progress = train(
        student, batches(student), CONFIG, scoring=fingerprint(student), directory=tmp_path / "t"
    )
    assert progress.records[-1]["sum"] == float(weights(student).double().sum())
    assert torch.equal(weights(Student.load(tmp_path / "t")), weights(student))


def test_a_checkpoint_has_what_the_caller_writes_and_nothing_of_other_data(tmp_path: Path) -> None:
    student = make_student()
    train(
        student,
        batches(student),
        CONFIG,
        directory=tmp_path / "t",
        source="one text",
        write=lambda directory: (directory / "mine.txt").write_text("kept") and None,
    )
    assert (tmp_path / "t" / "mine.txt").read_text() == "kept"
    assert not (tmp_path / "t" / METRICS_FILE).exists(), "nothing was scored"
    longer = replace(CONFIG, steps=9)
    with pytest.raises(InputError, match="begun on other data"):
        train(student, batches(student), longer, directory=tmp_path / "t", source="another text")


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    examples = [EXAMPLES[i] for i in (0, 1, 2, 1, 2, 0, 1, 0)]

    def gradient(parts: int) -> torch.Tensor:
        student = make_student()
        source = DemonstrationBatches(student, examples, lambda step: torch.arange(8).numpy(), parts)
        forward = TrainingForward(student)
        for loss in part_losses(forward, source.parts(0, forward), []):
            (loss / parts).backward()
        grads = [p.grad for p in student.model.parameters()]
        return torch.cat([g.flatten() for g in grads if g is not None])

    torch.testing.assert_close(gradient(4), gradient(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])
def test_bfloat16_forwards_train_float32_weights(family: str, tmp_path: Path) -> None:
    half, full = make_student(family), make_student(family)
    config = replace(CONFIG, precision="bfloat16", steps=4)
    scored = {"scoring": fingerprint(half), "directory": tmp_path / "t"}
    loss = train(half, batches(half), config, **scored).loss
    exact = train(full, batches(full), replace(config, precision="float32")).loss
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert not torch.equal(weights(half), weights(full)), "its products are coarser"
    assert loss == pytest.approx(exact, rel=0.05)
    forward = TrainingForward(clone(half), autocast=torch.bfloat16)
    part = batches(half).parts(0, forward)[0]
    logits = forward(part.ids, part.positions, part.cells).logits
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits.bfloat16().float()), "they come from half-precision products"


def test_auto_is_float32_on_the_cpu() -> None:
    found = []
    for precision in ("auto", "float32"):
        student = make_student()
        train(student, batches(student), replace(CONFIG, precision=precision))
        found.append(weights(student))
    assert torch.equal(*found)


def test_a_diverged_training_ends_with_one_line_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    student = make_student()
    source = batches(student)

    class Poisoned:
        def parts(self, step: int, forward: TrainingForward) -> list[Batch]:
            if step == 4:
                with torch.no_grad():
                    next(forward._student.model.parameters()).fill_(float("inf"))
            return source.parts(step, forward)

    with pytest.raises(InputError, match=r"step 5 is nan, the training diverged; lower optimizer\.lr"):
        train(student, Poisoned(), CONFIG, directory=tmp_path / "t")
    kept = Student.load(tmp_path / "t")
    assert bool(torch.isfinite(weights(kept)).all())
    other = make_student()
    with pytest.raises(InputError, match=r"held-out nats_per_token of step 2 is nan, the training diverged"):
        train(other, source, CONFIG, scoring=Scoring(lambda last: {"nats_per_token": float("nan")}, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"checkpoint_every": -1}, "checkpoint_every is -1"),
        ({"precision": "half"}, "precision is 'half'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingConfig(**values)
