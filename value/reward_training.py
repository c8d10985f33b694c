"""Training of a reward model on preferences: the Bradley-Terry loss, and an early stop on held-out prompts.

Two trainers of the same directory format: "own", a plain loop, and "trl", Hugging Face TRL's RewardTrainer
where it is installed. The weights with the lowest held-out loss are kept. Nothing is resumed: an interrupted
training leaves no output, and starts again.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory
from tokenzero.policy.train_state import OptimizerConfig, TrainState
from tokenzero.value.preferences import Preference, split_by_prompt
from tokenzero.value.reward_metrics import RewardReport, reward_report
from tokenzero.value.reward_model import SETTINGS_FILE, RewardModel, Row

REPORT_FILE = "reward_training.json"
TRAINERS = ("own", "trl")
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class RewardTrainingConfig:
    """How a reward model is trained: AdamW, linear warm-up over a share of the steps, cosine decay to 0.

    ``batch_size`` pairs a step; ``held_out`` share of the prompts (0: none, and then all ``epochs`` are
    trained and the last weights kept); training ends after ``patience`` epochs without a lower held-out loss.
    ``lr`` suits a pretrained backbone; random weights want about 1e-3.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    trainer: str = "own"
    epochs: int = 3
    batch_size: int = 16
    lr: float = 1e-5
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    held_out: float = 0.1
    patience: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        if self.trainer not in TRAINERS:
            raise InputError(
                f"reward model: trainer is {self.trainer!r}; choose one of {', '.join(TRAINERS)}"
            )
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"reward model: {name} is {getattr(self, name)}; give at least 1")
        if not (0 < self.lr < math.inf and 0 < self.clip < math.inf and 0 <= self.weight_decay < math.inf):
            raise InputError(
                f"reward model: lr is {self.lr}, clip {self.clip} and weight_decay {self.weight_decay}; "
                "give lr and clip above 0, weight_decay of at least 0"
            )
        for name in ("warmup_share", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"reward model: {name} is {getattr(self, name)}; give a share from 0 to below 1"
                )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"reward model: seed is {self.seed}; give a whole number from 0 to 2**32 - 1")


@dataclass(frozen=True)
class Epoch:
    """``train_loss``: mean over the epoch's steps, in nats (None before the first); the others are of the
    held-out pairs after it, without their margins, and None where there are none.
    """

    epoch: int
    train_loss: float | None
    held_out_loss: float | None
    held_out_accuracy: float | None


@dataclass
class TrainingReport:
    """What a training did: ``epochs`` begins with epoch 0, before any step, and the weights kept are those
    after ``best_epoch``; ``tokens`` were forwarded to train and to evaluate; ``held_out`` is the report on
    the held-out pairs with the weights kept, None without such pairs. Those pairs chose the epoch, so that
    the report flatters a little: pairs that had no say in it give the figure to quote.
    """

    trainer: str
    train_pairs: int
    held_out_pairs: int
    steps: int = 0
    tokens: int = 0
    best_epoch: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    held_out: RewardReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        return asdict(self)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected - margin) over rewards [B], a scalar in nats.

    Bradley and Terry 1952, as in Ouyang et al. 2022 (arXiv:2203.02155, equation 1); the margin is Touvron et
    al. 2023 (arXiv:2307.09288, equation 2).
    """
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    return -torch.nn.functional.logsigmoid(difference).mean()


def train_reward_model(
    model: RewardModel,
    preferences: Sequence[Preference],
    config: RewardTrainingConfig,
    *,
    on_step: OnStep | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainingReport:
    """Train ``model`` in place on ``preferences``; same arguments, machine and threads, same weights.

    ``on_step`` hears of pairs that were trained on, ``on_epoch`` of finished epochs and of epoch 0.
    Raises InputError when no prompt is left on one side, TRL is asked for and missing, or the training
    diverges.
    """
    train, held_out = split_by_prompt(preferences, config.held_out, config.seed)
    _check_sides(train, held_out, config)
    watch = _HeldOut(model, train, held_out, config, on_epoch)
    pairs = _encoded(model, train)
    fit = _fit_with_trl if config.trainer == "trl" else _fit
    fit(model, pairs, config, watch, on_step or (lambda count: None))
    return watch.finished()


def save_trained(model: RewardModel, report: TrainingReport, directory: Path) -> None:
    """Write the model and its report as one directory, whole or not at all; a reward model that is there is
    replaced. Raises InputError as `check_target`, OutputError when the disk refuses.
    """
    check_target(directory)
    with replace_directory(directory) as temporary:
        model.save(temporary)
        text = json.dumps(report.as_dict(), indent=2) + "\n"
        (temporary / REPORT_FILE).write_text(text, encoding="utf-8")


def check_target(directory: Path) -> None:
    """Raise InputError where writing to ``directory`` would replace something that is no reward model."""
    if not directory.exists() or (directory / SETTINGS_FILE).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise InputError(f"{directory} is there and is no reward model; choose another --out")


@dataclass(frozen=True)
class _Pair:
    chosen: Row
    rejected: Row
    margin: float


class _HeldOut:
    """Looks at the held-out pairs after each epoch, keeps the best weights, and says when to stop."""

    def __init__(
        self,
        model: RewardModel,
        train: Sequence[Preference],
        held_out: Sequence[Preference],
        config: RewardTrainingConfig,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> None:
        self._model = model
        self._held_out = held_out
        self._pairs = _encoded(model, held_out)
        self._patience = config.patience
        self._on_epoch = on_epoch
        self._before = model.tokens
        self._best: dict[str, Tensor] = {}
        self._lowest = math.inf
        self._report = TrainingReport(config.trainer, len(train), len(held_out))
        self.epoch_ended(None)

    def trained_on(self, pairs: Sequence[_Pair]) -> None:
        """Count one step."""
        self._report.steps += 1
        self._report.tokens += sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs)

    def epoch_ended(self, train_loss: float | None) -> bool:
        """Whether to go on. Raises InputError when the training has diverged."""
        if train_loss is not None and not math.isfinite(train_loss):
            raise InputError(f"the training loss is {train_loss}, the training diverged; lower the lr")
        self._model.weights_changed()
        number, report = len(self._report.epochs), self._look()
        loss = None if report is None else report.loss
        accuracy = None if report is None else report.accuracy
        epoch = Epoch(number, train_loss, loss, accuracy)
        self._report.epochs.append(epoch)
        if self._on_epoch is not None:
            self._on_epoch(epoch)
        if report is None or report.loss < self._lowest:
            self._report.best_epoch, self._report.held_out = number, report
            if report is not None:
                self._lowest = report.loss
                weights = self._model.model.state_dict()
                self._best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        return number - self._report.best_epoch < self._patience

    def finished(self) -> TrainingReport:
        """Put the best weights back and give the report."""
        if self._best:
            self._model.model.load_state_dict(self._best)
            self._model.weights_changed()
        self._report.tokens += self._model.tokens - self._before
        return self._report

    def _look(self) -> RewardReport | None:
        if not self._pairs:
            return None
        rows = [pair.chosen for pair in self._pairs] + [pair.rejected for pair in self._pairs]
        chosen, rejected = np.split(self._model.score_rows(rows), 2)
        return reward_report(self._held_out, chosen, rejected)


def _fit(
    model: RewardModel,
    pairs: Sequence[_Pair],
    config: RewardTrainingConfig,
    watch: _HeldOut,
    on_step: OnStep,
) -> None:
    steps = math.ceil(len(pairs) / config.batch_size)
    total = steps * config.epochs
    optimizer = OptimizerConfig(
        lr=config.lr,
        min_lr=0.0,
        warmup_steps=math.ceil(config.warmup_share * total),
        weight_decay=config.weight_decay,
        betas=(0.9, 0.999),
        clip=config.clip,
        ema=0.0,
        batch_size=config.batch_size,
    )
    state = TrainState([model.model], [model.model], optimizer, total)  # without an average: it is itself
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(pairs))
        losses: list[float] = []
        for part in np.array_split(order, steps):
            batch = [pairs[index] for index in part.tolist()]
            state.step(_losses(model, batch, losses))
            watch.trained_on(batch)
            on_step(len(batch))
        if not watch.epoch_ended(sum(losses) / len(losses)):
            return


def _losses(model: RewardModel, batch: Sequence[_Pair], losses: list[float]) -> Iterator[Tensor]:
    rewards = model.rewards([pair.chosen for pair in batch] + [pair.rejected for pair in batch])
    margin = torch.tensor([pair.margin for pair in batch], device=rewards.device)
    chosen, rejected = rewards.float().chunk(2)
    loss = bradley_terry_loss(chosen, rejected, margin)
    losses.append(float(loss.detach()))
    yield loss


def _fit_with_trl(
    model: RewardModel,
    pairs: Sequence[_Pair],
    config: RewardTrainingConfig,
    watch: _HeldOut,
    on_step: OnStep,
) -> None:
    try:
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer
    except ImportError as error:
        raise InputError(
            f"trainer 'trl' needs {error.name}, which is not installed; pip install 'tokenzero[trl]', "
            "or use trainer 'own'"
        ) from error

    losses: list[float] = []

    class Watching(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            losses.extend([float(logs["loss"])] if "loss" in logs else [])

        def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            model.model.eval()
            go_on = watch.epoch_ended(sum(losses) / len(losses))
            control.should_training_stop = control.should_training_stop or not go_on
            losses.clear()

    def collate(rows: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        batch = [pairs[row["index"]] for row in rows]
        watch.trained_on(batch)
        on_step(len(batch))
        inputs = model.batch([pair.chosen for pair in batch] + [pair.rejected for pair in batch])
        return {**inputs, "margin": torch.tensor([pair.margin for pair in batch], device=model.device)}

    columns = {
        "index": list(range(len(pairs))),
        "chosen_ids": [pair.chosen.ids for pair in pairs],
        "rejected_ids": [pair.rejected.ids for pair in pairs],
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # TRL and transformers take turns in renaming settings
        settings = RewardConfig(
            output_dir=scratch,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.lr,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(
                config.warmup_share * config.epochs * math.ceil(len(pairs) / config.batch_size)
            ),
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip,
            seed=config.seed,
            data_seed=config.seed,
            max_length=None,  # what is too long was cut where it was encoded
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=model.device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            eval_strategy="no",
            save_strategy="no",
            logging_steps=1,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = RewardTrainer(
            model=model.model,
            args=settings,
            data_collator=collate,
            train_dataset=Dataset.from_dict(columns),
            processing_class=model.tokenizer,
            callbacks=[Watching()],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, where results go
        trainer.train()
    model.model.eval()


def _encoded(model: RewardModel, preferences: Sequence[Preference]) -> list[_Pair]:
    return [
        _Pair(model.encode(one.prompt, one.chosen), model.encode(one.prompt, one.rejected), one.margin or 0.0)
        for one in preferences
    ]


def _check_sides(
    train: Sequence[Preference], held_out: Sequence[Preference], config: RewardTrainingConfig
) -> None:
    if not train or (config.held_out > 0 and not held_out):
        side = "train on" if not train else "hold out"
        raise InputError(
            f"reward model: with held_out {config.held_out} no prompt is left to {side} "
            f"({len(train) + len(held_out)} pairs in all); give pairs of more prompts or another share"
        )
