"""Weights in training, their moving average, and AdamW's moments: one step at a time, saved and restored
exactly.

Shared by the warm start and the self-play learner. It does not compute losses and does not know what the
modules are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tokenzero.mcts.errors import InputError

STATE_FILE = "train_state.safetensors"
_SAVED = ("weight", "step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay from ``lr`` to ``min_lr``, gradient clipping and a weight
    average (EMA).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    lr: float = 2e-3
    min_lr: float = 5e-4
    warmup_steps: int = 20
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    ema: float = 0.99
    batch_size: int = 64
    accumulate: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.min_lr <= self.lr:
            raise InputError(f"optimizer.min_lr is {self.min_lr} and lr is {self.lr}; give 0 <= min_lr <= lr")
        if self.warmup_steps < 0 or self.weight_decay < 0 or not self.clip > 0:
            raise InputError(
                f"optimizer.warmup_steps is {self.warmup_steps}, weight_decay {self.weight_decay} and clip "
                f"{self.clip}; give warmup_steps and weight_decay >= 0, clip > 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimizer.betas are {self.betas}; give two numbers from 0 to below 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"optimizer.ema is {self.ema}; give a number from 0 (off) to below 1")
        if self.batch_size < 1 or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise InputError(
                f"optimizer.batch_size is {self.batch_size} and accumulate is {self.accumulate}; "
                "give a batch that splits evenly into that many parts"
            )

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of 0-based ``step`` of ``total_steps``."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        span = max(1, total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / span)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


class TrainState:
    """Owns ``trained`` (updated by gradients) and keeps ``average`` (same structure) as its moving average.

    Play and evaluation use the average; only :meth:`step` writes either. ``steps`` counts optimiser steps
    taken.
    """

    def __init__(
        self,
        trained: Iterable[nn.Module],
        average: Iterable[nn.Module],
        config: OptimizerConfig,
        total_steps: int,
    ) -> None:
        self.config = config
        self.total_steps = total_steps
        self.steps = 0
        self._trained = list(_named(trained))
        self._average = list(_named(average))
        self._optimizer = self._fresh_optimizer()

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        decayed = [p for _, p in self._trained if p.ndim >= 2]
        plain = [p for _, p in self._trained if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=self.config.betas, fused=True)

    def step(self, losses: Iterator[torch.Tensor]) -> float:
        """One optimiser step over ``accumulate`` losses (each a mean over its part); returns the gradient's
        norm before clipping.
        """
        rate = self.config.rate(self.steps, self.total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            (loss / self.config.accumulate).backward()
        norm = nn.utils.clip_grad_norm_([p for _, p in self._trained], self.config.clip, foreach=True)
        if not torch.isfinite(norm):
            raise InputError(
                f"the gradient of step {self.steps + 1} is {float(norm)}, the training diverged; "
                "lower optimizer.lr or optimizer.clip"
            )
        self._optimizer.step()
        self.steps += 1
        self._update_average()
        return float(norm)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short history must not weigh the random start: the average's horizon grows with the steps taken.
        decay = min(self.config.ema, self.steps / (self.steps + 9.0))
        torch._foreach_lerp_([p for _, p in self._average], [p for _, p in self._trained], 1.0 - decay)

    def save(self, directory: Path) -> None:
        """Write ``train_state.safetensors``: trained weights and moments. The average is saved by its
        owner.
        """
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self._trained:
            tensors[f"weight/{name}"] = parameter.detach()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value.detach()
        save_file(
            {k: v.contiguous().cpu() for k, v in tensors.items()},
            directory / STATE_FILE,
        )

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Restore what :meth:`save` wrote. Raises InputError for a missing, truncated or foreign file."""
        path = directory / STATE_FILE
        try:
            tensors = load_file(path)
            steps = 0
            for name, parameter in self._trained:
                weight = tensors[f"weight/{name}"]
                saved = {key: tensors[f"{key}/{name}"] for key in _SAVED if f"{key}/{name}" in tensors}
                if any(one.shape != parameter.shape for key, one in saved.items() if key != "step"):
                    raise InputError(
                        f"{path} belongs to another model: {name} is {tuple(weight.shape)} there "
                        f"and {tuple(parameter.shape)} here; give the directory of this model's own training"
                    )
                parameter.copy_(weight)
                if "step" in saved:
                    self._optimizer.state[parameter] = {
                        key: saved[key].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
                    }
                    steps = int(saved["step"])
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(
                f"cannot read the training state {path}: {str(error).strip() or type(error).__name__}; "
                "restore the file or start a new run"
            ) from error
        self.steps = steps


def _named(modules: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for index, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            yield f"{index}.{name}", parameter
