"""The warm start: what the loss covers, the same bits after an interruption, and a text it can learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import collate, in_epochs, with_replacement
from tokenzero.policy.pretrain import Example, PretrainConfig, clone, pretrain
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.training_loop import PROGRESS_FILE, part_losses

EXAMPLES = [
    Example([1, 5, 6, 7, 2], 3),
    Example([1, 8, 4, 5, 6, 7, 2], 2),
    Example([1, 9, 2], 2),
    Example([1, 4, 4, 6, 2], 4),
]
CONFIG = PretrainConfig(
    steps=7, optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, batch_size=6)
)


STUDENT = make_student()
FORWARD = TrainingForward(STUDENT)


class Stop(Exception):
    pass


def weights(student: Student) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in student.model.parameters()])


def naive_loss(student: Student, examples: list[Example]) -> torch.Tensor:
    """Mean over every answer token of its negative log-probability, one plain forward each."""
    terms = [
        -plain(student, tokens[:position])[0].log_softmax(-1)[tokens[position]]
        for tokens, prompt in examples
        for position in range(prompt, len(tokens))
    ]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loss_is_the_mean_over_answer_tokens_alone(parts: int) -> None:
    student = make_student()
    seen: list[float] = []
    batch = [EXAMPLES] if parts == 1 else [EXAMPLES[:1] + EXAMPLES[2:3], EXAMPLES[1:2] + EXAMPLES[3:]]
    forward = TrainingForward(clone(student))
    produced = list(part_losses(forward, [collate(part, 0, forward) for part in batch], seen))
    total = sum(produced, torch.zeros(())) / parts
    torch.testing.assert_close(total.detach(), naive_loss(student, EXAMPLES), atol=1e-5, rtol=0)
    assert sum(seen) / parts == pytest.approx(total.item())


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
def test_targets_are_the_answers_moved_by_one(lengths: list[tuple[int, int]]) -> None:
    examples = [
        Example([100 * row + i for i in range(prompt + answer)], prompt)
        for row, (prompt, answer) in enumerate(lengths, 1)
    ]
    batch = collate(examples, STUDENT.pad_id, FORWARD)
    read = batch.ids.flatten()[batch.cells]
    assert (batch.targets == read + 1).all(), "the token after the one that is read, of the same example"
    expected = [token for tokens, prompt in examples for token in tokens[prompt:]]
    assert batch.targets.tolist() == expected


def test_the_first_step_is_the_step_of_the_naive_gradient() -> None:
    student = make_student()
    config = PretrainConfig(steps=1, optimizer=replace(CONFIG.optimizer, ema=0.0, batch_size=1, clip=1e9))
    before = weights(student)
    loss = pretrain(student, EXAMPLES[:1], config, seed=0)
    assert loss == pytest.approx(float(naive_loss(make_student(), EXAMPLES[:1])), abs=1e-5)
    moved = (weights(student) - before).abs()
    assert moved.max() == pytest.approx(5e-3, rel=0.05), "Adam's first step is the rate, here half warmed up"


def test_it_learns_what_it_is_shown() -> None:
    student = make_student()
    reported: list[tuple[int, float]] = []
    config = replace(CONFIG, steps=60, optimizer=replace(CONFIG.optimizer, ema=0.5))
    last = pretrain(
        student, EXAMPLES, config, seed=1, on_step=lambda step, loss: reported.append((step, loss))
    )
    assert [step for step, _ in reported] == list(range(1, 61))
    assert reported[-1][1] == last < 0.5 < 1.5 < reported[0][1]
    assert float(naive_loss(student, EXAMPLES)) < 0.5, (
        "the average plays, so it is the average that must know"
    )
    assert student.version == 1
    assert not student.model.training


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])  # gpt2 has dropout in its default config
@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, family: str, stop: int) -> None:
    config = replace(CONFIG, checkpoint_every=2)
    whole = make_student(family)
    torch.manual_seed(0)
    expected = pretrain(whole, EXAMPLES, config, seed=5)

    def interrupt(step: int, loss: float) -> None:
        if step == stop:
            raise Stop

    torch.manual_seed(99)  # what else the process drew must not matter
    with pytest.raises(Stop):
        pretrain(make_student(family), EXAMPLES, config, seed=5, directory=tmp_path / "w", on_step=interrupt)
    torch.manual_seed(7)
    again = make_student(family)
    steps: list[int] = []
    loss = pretrain(
        again, EXAMPLES, config, seed=5, directory=tmp_path / "w", on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 1 + (stop - 1) // 2 * 2, "it goes on from the last checkpoint"
    assert torch.equal(weights(whole), weights(again))
    assert loss == expected


def test_a_finished_training_is_not_repeated_and_remembers_its_loss(tmp_path: Path) -> None:
    first, second = make_student(), make_student()
    expected = pretrain(first, EXAMPLES, CONFIG, seed=5, directory=tmp_path / "w")
    loss = pretrain(second, EXAMPLES, CONFIG, seed=5, directory=tmp_path / "w")
    assert loss == expected
    assert torch.equal(weights(first), weights(second))
    (tmp_path / "w" / PROGRESS_FILE).write_text("{")
    with pytest.raises(InputError, match=PROGRESS_FILE):
        pretrain(make_student(), EXAMPLES, CONFIG, seed=5, directory=tmp_path / "w")


def test_what_a_killed_write_left_is_found_again(tmp_path: Path) -> None:
    """A kill between the two renames leaves the old checkpoint under a temporary name of a dead process."""
    expected = make_student()
    pretrain(expected, EXAMPLES, CONFIG, seed=5, directory=tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / ".tmp-999999999-0-was-w")
    steps: list[int] = []
    student = make_student()
    pretrain(
        student, EXAMPLES, CONFIG, seed=5, directory=tmp_path / "w", on_step=lambda s, _: steps.append(s)
    )
    assert steps == []
    assert torch.equal(weights(student), weights(expected))


def test_parts_of_different_length_make_the_step_of_the_whole_batch() -> None:
    whole, parts = make_student(), make_student()
    pretrain(whole, EXAMPLES, CONFIG, seed=2)
    pretrain(parts, EXAMPLES, replace(CONFIG, optimizer=replace(CONFIG.optimizer, accumulate=3)), seed=2)
    torch.testing.assert_close(weights(whole), weights(parts), atol=1e-4, rtol=0)


def test_a_clone_shares_nothing_and_stays_in_evaluation_mode() -> None:
    student = make_student("gpt2")
    state = torch.random.get_rng_state()
    twin = clone(student)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not twin.model.training
    assert torch.equal(weights(twin), weights(student))
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.add_(1.0)
    assert torch.equal(weights(student), weights(make_student("gpt2")))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples"),
        ([Example([1, 2], 2)], "example 0 has 2 tokens of which 2 are the prompt"),
        ([Example([1, 5, 2], 1), Example([1, 2], 0)], "example 1"),
        ([Example([1] * 33, 3)], "33 tokens, the model takes 32"),
    ],
)
def test_examples_it_cannot_learn_from_are_refused(examples: list[Example], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pretrain(make_student(), examples, CONFIG, seed=0)


def test_negative_counts_are_refused() -> None:
    for name in ("steps", "demonstrations", "checkpoint_every"):
        with pytest.raises(InputError, match=name):
            PretrainConfig(**{name: -1})


@given(st.integers(0, 9), st.integers(1, 13), st.integers(1, 9))
def test_an_epoch_has_every_example_once(seed: int, count: int, size: int) -> None:
    draw = in_epochs(seed, count, size)
    drawn = [index for step in range(2 * count) for index in draw(step).tolist()]
    for start in range(0, len(drawn) - count, count):
        assert sorted(drawn[start : start + count]) == list(range(count))
    assert (in_epochs(seed, count, size)(3) == draw(3)).all(), "it depends on the step alone"


def test_epochs_and_draws_depend_on_the_seed() -> None:
    for draws in (in_epochs, with_replacement):
        assert draws(1, 50, 50)(0).tolist() != draws(2, 50, 50)(0).tolist()
        assert draws(1, 50, 50)(0).tolist() != draws(1, 50, 50)(1).tolist()
