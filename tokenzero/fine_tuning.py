"""Supervised fine-tuning on prompts with answers, and on reasoning traces: what it is told, and how rows
become examples.

A row has a ``prompt``, taken as it is, or a ``question``, put into a template; an ``answer``; and maybe a
chain of thought before it. Numbers are read as they are written. Or the rows are a task's demonstrations,
which are then asked for as they were taught. The training itself is ``policy.training_loop``'s; nothing is
printed here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from tokenzero.config import Layer, bind_layers
from tokenzero.mcts.errors import InputError
from tokenzero.policy.demonstration_batches import DemonstrationBatches, Example, in_epochs
from tokenzero.policy.language_score import score_answers
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.policy.training_loop import Progress, Record, Scoring, TrainingConfig, train
from tokenzero.pretraining import check_machine
from tokenzero.selfplay.config import TaskConfig
from tokenzero.tasks import get_task
from tokenzero.tasks.answer_extraction import ANSWER_FORMATS, PLAIN, closing
from tokenzero.tasks.prompt_templates import PromptTemplate, open_template
from tokenzero.tasks.text_rows import Row, read_files
from tokenzero.value.continuation_log_probs import continuation_tokens

SETTINGS_FILE = "fine_tuning.json"
"""The settings of a fine-tuning, beside its weights."""
FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class RowsConfig:
    """How a row becomes a prompt and a target. ``prompt``, ``question``, ``answer``: names of fields; a row
    that has the first is not put into ``template``, which is for questions. ``reasoning``: fields of which
    the first that a row has stands before its answer, with ``separator`` between. ``answer_format`` says how
    the answer is stated: "plain", "hashes", "boxed" or "sentence".

    A row longer than ``max_tokens`` (None: the model's positions), prompt and end mark included, is an error,
    or is left out where ``too_long`` is "skip".
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    prompt: str = "prompt"
    question: str = "question"
    answer: str = "answer"
    reasoning: tuple[str, ...] = ("reasoning", "trace")
    template: str = "plain"
    separator: str = "\n"
    answer_format: str = PLAIN
    max_tokens: int | None = None
    too_long: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if self.answer_format not in ANSWER_FORMATS:
            raise InputError(
                f"answer_format is {self.answer_format!r}; use one of {', '.join(ANSWER_FORMATS)}"
            )
        if self.max_tokens is not None and self.max_tokens < 2:
            raise InputError(f"max_tokens is {self.max_tokens}; give at least 2, or null")
        if self.answer in (self.prompt, self.question):
            raise InputError(f"answer is field {self.answer!r}, which the prompt shows; name another field")
        open_template(self.template, self.answer_format)


@dataclass(frozen=True)
class FineTuningConfig:
    """``task``: whose demonstrations are the rows, one for each training problem; it is then the checkpoint's
    own task. None: the rows are in files, and ``rows`` says how they are read.

    ``epochs`` times through the rows, or ``training.steps`` steps where that is not 0. ``held_out`` share
    of the prompts is scored after every ``evaluate_every`` steps (0: every epoch), and never trained on.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    task: TaskConfig | None = None
    rows: RowsConfig = field(default_factory=RowsConfig)
    epochs: int = 3
    held_out: float = 0.1
    evaluate_every: int = 0
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=0, optimizer=OptimizerConfig(lr=1e-4, min_lr=1e-5, ema=0.0, batch_size=16)
        )
    )
    device: str = "auto"
    seed: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        check_machine(self.device, self.threads, self.seed)
        if self.epochs < 1 or self.evaluate_every < 0:
            raise InputError(
                f"epochs is {self.epochs} and evaluate_every {self.evaluate_every}; give epochs >= 1, "
                "evaluate_every >= 0"
            )
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; give a share from 0 to below 1")


class Rows(NamedTuple):
    """The examples to learn from and those held out, and how many rows were too long and skipped."""

    trained: list[Example]
    held_out: list[Example]
    skipped: int

    def digest(self) -> str:
        """SHA-256 of the examples."""
        return hashlib.sha256(json.dumps([self.trained, self.held_out]).encode()).hexdigest()


def load_fine_tuning(layers: Iterable[Layer] = ()) -> FineTuningConfig:
    """The default settings changed by ``layers``. Raises InputError for an unknown key, a wrong type or a
    value out of its range.
    """
    # The defaults are a layer, so that a change of one rate leaves the others as they are here.
    return bind_layers(FineTuningConfig, [Layer("defaults", asdict(FineTuningConfig())), *layers])


def read_rows(paths: Sequence[str], student: Student, config: FineTuningConfig) -> Rows:
    """The rows of files, or of the config's task, as examples for ``student``.

    Raises InputError, naming file and line, for a row without prompt or answer, one with symbols outside the
    vocabulary, and one that is too long unless those are skipped; where nothing is left to train on; and for
    both files and a task, or neither.
    """
    limit = min(config.rows.max_tokens or student.max_length, student.max_length)
    kept: list[tuple[str, Example]] = []
    skipped = 0
    for where, prompt, target in _texts(paths, config):
        example = _example(where, prompt, target, student)
        if len(example.tokens) <= limit:
            kept.append((prompt, example))
        elif config.rows.too_long == "skip":
            skipped += 1
        else:
            raise InputError(
                f"{where}: {len(example.tokens)} tokens with prompt and end mark, the limit is {limit}; "
                "shorten the row, or leave such rows out with rows.too_long=skip"
            )
    held_out = _held_out([prompt for prompt, _ in kept], config.held_out)
    trained = [example for prompt, example in kept if prompt not in held_out]
    if not trained:
        left = f" ({skipped} were too long)" if skipped else ""
        raise InputError(f"no rows are left to train on{left}; give more data")
    return Rows(trained, [example for prompt, example in kept if prompt in held_out], skipped)


def _texts(paths: Sequence[str], config: FineTuningConfig) -> Iterator[tuple[str, str, str]]:
    """Where each row stands, what is given in it, and what is to be written."""
    if bool(paths) == (config.task is not None):
        said = "both --data and a task are" if paths else "neither --data nor a task is"
        raise InputError(f"{said} given; give files of rows, or a task whose demonstrations are the rows")
    if config.task is None:
        template = open_template(config.rows.template, config.rows.answer_format)
        for row in read_files(paths, "data"):
            yield (row.where, *prompt_and_target(row, config.rows, template))
        return
    task = get_task(config.task.name, **config.task.options)
    count, rng = len(task.problems("train")), np.random.default_rng(config.seed)
    for number, (prompt, target) in enumerate(task.demonstrations(count, rng), 1):
        yield f"{task.name} demonstration {number}", prompt, target


def prompt_and_target(row: Row, config: RowsConfig, template: PromptTemplate) -> tuple[str, str]:
    """The texts of a row: what is given, and what is to be written. Raises InputError for a missing field."""
    answer = closing(config.answer_format, row.text(config.answer))
    if row.fields.get(config.prompt) is not None:
        row.text(config.prompt)  # refuses what is no text
        prompt = str(row.fields[config.prompt])  # as it is: white space at its end belongs to it
    elif row.fields.get(config.question) is not None:
        prompt = template.render(row.text(config.question))
    else:
        known = ", ".join(sorted(map(str, row.fields)))
        raise InputError(
            f"{row.where}: neither {config.prompt!r} nor {config.question!r} is there; the fields here are "
            f"{known}; name yours with rows.prompt or rows.question"
        )
    for name in config.reasoning:
        if row.fields.get(name) is not None:
            steps = row.text(name, empty=True)
            if steps.endswith(f"\n{answer}"):  # a trace whose last line states the answer states it once
                steps = steps.removesuffix(answer).rstrip()
            return prompt, f"{steps}{config.separator}{answer}" if steps else answer
    return prompt, answer


def fine_tune(
    student: Student,
    rows: Rows,
    config: FineTuningConfig,
    *,
    directory: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_score: Callable[[Record], None] | None = None,
    write: Callable[[Path], None] | None = None,
) -> Progress:
    """Train ``student`` in place on the targets of ``rows``, each once before any comes again. Records have
    "step", "loss", and of the held-out rows "nats_per_token", "perplexity" and "accuracy"; the rest is as in
    `training_loop.train`.
    """
    optimizer = config.training.optimizer
    draw = in_epochs(config.seed, len(rows.trained), optimizer.batch_size)
    every = config.evaluate_every or steps_of_epoch(rows, config)
    return train(
        student,
        DemonstrationBatches(student, rows.trained, draw, optimizer.accumulate),
        replace(config.training, steps=steps_of(rows, config)),
        directory=directory,
        on_step=on_step,
        scoring=Scoring(lambda _: _scores(student, rows.held_out), every, on_score),
        source=rows.digest(),
        write=write,
    )


def steps_of(rows: Rows, config: FineTuningConfig) -> int:
    """Steps in all."""
    return config.training.steps or config.epochs * steps_of_epoch(rows, config)


def steps_of_epoch(rows: Rows, config: FineTuningConfig) -> int:
    """Steps in which every row has come once."""
    return math.ceil(len(rows.trained) / config.training.optimizer.batch_size)


def _example(where: str, prompt: str, target: str, student: Student) -> Example:
    try:
        head = encode_prompt(student.tokenizer, prompt)
        tail = continuation_tokens(student, target)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    end = [] if student.eos_id is None else [student.eos_id]
    return Example(head + tail + end, len(head))


def _held_out(prompts: Iterable[str], share: float) -> set[str]:
    """The prompts whose hash falls to the held-out share; the nearest one where none does, since so few
    rows would go unscored.
    """
    places = {
        prompt: int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48
        for prompt in prompts
    }
    chosen = {prompt for prompt, place in places.items() if place < share}
    if share and not chosen and len(places) > 1:
        chosen = {min(places, key=lambda prompt: places[prompt])}
    return chosen


def _scores(student: Student, held_out: Sequence[Example]) -> dict[str, float]:
    if not held_out:
        return {}
    score = score_answers(student, held_out)
    return {
        "nats_per_token": score.nats_per_token,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
    }
