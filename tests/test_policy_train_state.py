"""One optimiser step against torch's own AdamW, the schedule in closed form, and exact save and load."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tokenzero.mcts.errors import InputError
from tokenzero.policy.train_state import STATE_FILE, OptimizerConfig, TrainState

CONFIG = OptimizerConfig(
    lr=0.05, min_lr=0.01, warmup_steps=2, weight_decay=0.1, clip=0.5, ema=0.9, batch_size=4
)


def modules(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    generator = torch.Generator().manual_seed(seed)
    first, second = nn.Linear(3, 2), nn.Linear(2, 1)
    for parameter in [*first.parameters(), *second.parameters()]:
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return first, second


def losses(pair: tuple[nn.Module, nn.Module], step: int, parts: int = 1) -> Iterator[torch.Tensor]:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(100 + step))
    for part in inputs.chunk(parts):
        yield 3.0 * (pair[1](torch.tanh(pair[0](part))) - 1.0).square().mean()


def flat(pair: tuple[nn.Module, nn.Module]) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for module in pair for p in module.parameters()])


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.2, warmup_steps=4)
    assert [config.rate(step, 14) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 14):
        angle = math.pi * (step - 4) / 10
        assert config.rate(step, 14) == pytest.approx(0.2 + 0.8 * (1 + math.cos(angle)) / 2)
    assert config.rate(4, 14) == pytest.approx(1.0)
    assert config.rate(14, 14) == config.rate(99, 14) == pytest.approx(0.2)
    assert OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=0).rate(0, 10) == 1.0
    assert OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=20).rate(9, 10) == 0.5, "warm-up beyond the end"


def test_steps_are_adamw_with_clipping_and_an_average() -> None:
    mine, average, reference = modules(), modules(), modules()
    state = TrainState(mine, average, CONFIG, 6)
    parameters = [p for module in reference for p in module.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=CONFIG.betas)
    expected = flat(average).double()
    clipped = 0
    for step in range(6):
        norm = state.step(losses(mine, step))
        for group in adam.param_groups:
            group["lr"] = CONFIG.rate(step, 6)
        adam.zero_grad()
        for loss in losses(reference, step):
            loss.backward()
        true_norm = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
        assert norm == pytest.approx(float(true_norm), rel=1e-5)
        clipped += norm > CONFIG.clip
        for p in parameters:
            assert p.grad is not None
            p.grad.mul_(min(1.0, CONFIG.clip / (float(true_norm) + 1e-6)))
        adam.step()
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * flat(reference).double()
    torch.testing.assert_close(flat(mine), flat(reference), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat(average).double(), expected, atol=1e-6, rtol=0)
    assert clipped > 0
    assert state.steps == 6


def test_no_average_means_the_trained_weights() -> None:
    mine, average = modules(), modules(1)
    state = TrainState(mine, average, OptimizerConfig(ema=0.0), 3)
    state.step(losses(mine, 0))
    assert torch.equal(flat(mine), flat(average))


def test_parts_of_a_batch_make_the_step_of_the_whole() -> None:
    whole, parts = modules(), modules()
    one = TrainState(whole, modules(), CONFIG, 5)
    two = TrainState(parts, modules(), OptimizerConfig(**{**vars(CONFIG), "accumulate": 2}), 5)
    for step in range(5):
        norm = one.step(losses(whole, step))
        assert two.step(losses(parts, step, parts=2)) == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(flat(whole), flat(parts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_restored_state_goes_on_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    mine, average = modules(), modules()
    state = TrainState(mine, average, CONFIG, 8)
    for step in range(stop):
        state.step(losses(mine, step))
    state.save(tmp_path)
    other, other_average = modules(7), modules(7)
    for target, source in zip(other_average, average, strict=True):
        target.load_state_dict(source.state_dict())
    restored = TrainState(other, other_average, CONFIG, 8)
    restored.load(tmp_path)
    assert restored.steps == stop
    for step in range(stop, 8):
        assert state.step(losses(mine, step)) == restored.step(losses(other, step))
    assert torch.equal(flat(mine), flat(other))
    assert torch.equal(flat(average), flat(other_average))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    mine = modules()
    state = TrainState(mine, modules(), CONFIG, 4)
    with pytest.raises(InputError, match=STATE_FILE):
        state.load(tmp_path)
    state.step(losses(mine, 0))
    state.save(tmp_path)
    content = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(content[:-10])
    with pytest.raises(InputError, match=STATE_FILE):
        state.load(tmp_path)
    (tmp_path / STATE_FILE).write_bytes(content)
    wider = (nn.Linear(3, 4), nn.Linear(4, 1))
    with pytest.raises(InputError, match=r"belongs to another model: 0\.weight"):
        TrainState(wider, wider, CONFIG, 4).load(tmp_path)
    more = (nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(1, 1))
    with pytest.raises(InputError, match=r"weight/2\.weight"):
        TrainState(more, more, CONFIG, 4).load(tmp_path)


def test_a_gradient_that_is_no_number_stops_the_training_before_the_weights_are_lost() -> None:
    mine = modules()
    before = flat(mine)
    state = TrainState(mine, modules(), CONFIG, 4)
    with pytest.raises(InputError, match="step 1 is nan"):
        state.step(loss * float("nan") for loss in losses(mine, 0))
    assert torch.equal(flat(mine), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_lr": 1.0},
        {"min_lr": -0.1},
        {"lr": float("nan")},
        {"ema": 1.0},
        {"batch_size": 0},
        {"batch_size": 3, "accumulate": 2},
        {"accumulate": 0},
        {"warmup_steps": -1},
        {"weight_decay": -0.1},
        {"clip": 0.0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        OptimizerConfig(**wrong)
