"""Weights that can play: a student, its value head, and the engine that forwards it.

It reads and copies weights. It does not search and does not learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine
from tokenzero.policy.pretrain import clone
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.config import ModelConfig
from tokenzero.tasks import Task
from tokenzero.value import ValueHead

HEAD_FILE = "value_head.json"


@dataclass
class Net:
    """A ``student`` with its value ``head``; ``engine`` forwards the student and is opened for it alone."""

    student: Student
    head: ValueHead
    engine: Engine

    @classmethod
    def load(cls, directory: Path, engine: EngineConfig) -> Net:
        """The net of a checkpoint. Raises InputError for a missing or damaged one."""
        student = Student.load(directory)
        return cls(student, ValueHead.load(directory), open_engine(student, engine))

    @classmethod
    def new(cls, model: ModelConfig, task: Task, seed: int, engine: EngineConfig) -> Net:
        """The net a run starts with: random weights, or ``model.load`` with the value head beside it, where
        there is one. Raises InputError when nothing loadable is there or the two are not a pair.
        """
        if model.load is not None:
            student = Student.load(model.load)
        else:
            tokenizer = from_spec(model.tokenizer or task.tokenizer_spec())
            student = Student.from_config(model.architecture, tokenizer, seed=seed)
        if model.load is not None and (Path(model.load) / HEAD_FILE).is_file():
            head = ValueHead.load(model.load)
        else:
            generator = torch.Generator().manual_seed(seed)
            head = ValueHead(student.hidden_size, model.value, generator)
        if head.hidden_size != student.hidden_size:
            raise InputError(
                f"{model.load}: the value head reads width {head.hidden_size}, the model has width "
                f"{student.hidden_size}; they are not a pair"
            )
        return cls(student, head, open_engine(student, engine))

    def copy(self, engine: EngineConfig) -> Net:
        """A second net with the same weights, sharing nothing but the tokenizer."""
        student = clone(self.student)
        head = ValueHead(student.hidden_size, self.head.config)
        head.load_state_dict(self.head.state_dict())
        return Net(student, head, open_engine(student, engine))

    def take(self, other: Net) -> None:
        """Take over the weights of ``other``, a net of the same shape."""
        self.student.model.load_state_dict(other.student.model.state_dict())
        self.head.load_state_dict(other.head.state_dict())
        self.student.weights_changed()

    def restore(self, directory: Path) -> None:
        """Take over the weights of a checkpoint of this net. Raises InputError for a damaged one."""
        self.student.model.load_state_dict(Student.load(directory).model.state_dict())
        self.head.load_state_dict(ValueHead.load(directory).state_dict())
        self.student.weights_changed()

    def save(self, directory: Path) -> None:
        """Write both as a Hugging Face directory with the head beside it. The caller makes it atomic."""
        self.student.save(directory)
        self.head.save(directory)
