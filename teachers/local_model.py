"""A Hugging Face model with the student's tokenizer as a teacher: its whole next-token distribution.

It has an engine of its own, so a tree of questions costs one token each. Models with another tokenizer are
for teachers/text_bridge.py. It is never trained here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.candidates import likeliest
from tokenzero.policy.engine import Step
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.teachers.base import Proposal, silence
from tokenzero.teachers.distribution import check_options
from tokenzero.teachers.prefix_states import DEFAULT_STATES, PrefixStates

_LOGITS = 1 << 26  # numbers in one batch of logits: 256 MiB of them


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model to ``load`` (a directory or hub name) that has the student's tokenizer.

    label: its name, None for the last part of ``load``. temperature: divides its logits. memory_mb: most MiB
    of keys and values, None for as many as are asked for. states: sequences held to go on from. device: where
    it runs.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["model"] = "model"
    load: str
    label: str | None = None
    temperature: float = 1.0
    memory_mb: float | None = None
    states: int = DEFAULT_STATES
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_load("model", self.load)
        check_options(f"teacher {self.load}", self.temperature, self.memory_mb, self.states)

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or label_of(self.load)


def check_load(kind: str, load: str) -> None:
    """Raise InputError for a teacher that names no model."""
    if not load:
        raise InputError(f"a {kind} teacher has an empty 'load'; name a directory or hub model")


def label_of(load: str) -> str:
    """The last part of a directory or hub name."""
    return load.rstrip("/").rsplit("/", 1)[-1]


def difference_of_tokenizers(student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast) -> str:
    """What keeps ids of the one from meaning the same in the other, in one phrase; empty if nothing does.

    The vocabularies must be equal. The end token need not be: see `ModelTeacher`.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return ""
    sizes = f"{len(ours)} and {len(theirs)} tokens"
    for token, index in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != index:
            there = "absent" if token not in theirs else f"token {theirs[token]}"
            return f"{sizes}; {token!r} is token {index} here and {there} there"
    extra = min(set(theirs) - set(ours), key=theirs.__getitem__)
    return f"{sizes}; {extra!r} is token {theirs[extra]} there and absent here"


class ModelTeacher:
    """Top k of softmax(logits / temperature) over the model's whole vocabulary.

    ``model`` has the student's vocabulary; ``eos`` is the student's end token where the model's own is
    another one: what it gives to its own is then added to the student's. A sequence that is empty or has no
    room left in the model gets no proposal. The model's weights may change (``Student.weights_changed``).
    """

    def __init__(
        self,
        name: str,
        model: Student,
        prefixes: PrefixStates,
        temperature: float = 1.0,
        eos: int | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._prefixes = prefixes
        self._temperature = temperature
        self._eos = model.eos_id if eos is None else eos
        self._everything = torch.zeros(model.vocab_size, device=model.device)

    @classmethod
    def open(cls, config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> ModelTeacher:
        """Load the model for a student with ``tokenizer``. Raises InputError when it cannot be loaded, and
        when its tokenizer is another one.
        """
        model = Student.load(config.load, device=config.device)
        different = difference_of_tokenizers(tokenizer, model.tokenizer)
        if different:
            raise InputError(
                f"teacher {config.name} has another tokenizer than the student ({different}); use kind bridge"
            )
        engine = open_engine(model, EngineConfig(memory_mb=config.memory_mb))
        prefixes = PrefixStates(model, engine, config.states)
        return cls(config.name, model, prefixes, config.temperature, tokenizer.eos_token_id)

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """Top k for each of L sequences; ``tokens`` is what the model forwarded for them. Raises InputError
        when the model's output is not a number.
        """
        proposal = silence(len(sequences), k)
        before = self._prefixes.forwarded
        width = min(k, self._model.vocab_size)
        for rows, step in batches(self._prefixes, self._model, sequences):
            with torch.inference_mode():
                actions, shares = likeliest(
                    self._ended(step.logits), self._everything, width, self._temperature
                )
            probs = np.exp(shares)
            if np.isnan(probs).any():
                raise InputError(f"teacher {self.name}: its output is not a number; its weights are damaged")
            proposal.actions[rows, :width] = np.where(probs > 0, actions, -1)
            proposal.probs[rows, :width] = probs
        return Proposal(proposal.actions, proposal.probs, self._prefixes.forwarded - before)

    def close(self) -> None:
        """Let go of every state the engine holds."""
        self._prefixes.close()

    def _ended(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits with the model's own end token moved to the student's."""
        theirs, ours = self._model.eos_id, self._eos
        if theirs is None or ours is None or theirs == ours:
            return logits
        moved = logits.clone()
        moved[:, ours] = torch.logaddexp(logits[:, ours], logits[:, theirs])
        moved[:, theirs] = -torch.inf
        return moved


def batches(
    prefixes: PrefixStates, model: Student, sequences: Sequence[Sequence[int]]
) -> Iterator[tuple[NDArray[np.int64], Step]]:
    """Rows of ``sequences`` that can be asked about, i64 [R] ascending, with their step, in batches whose
    logits fit memory. Rows that are empty or leave no room are passed over. A step is valid until the next
    one.
    """
    possible = np.flatnonzero([0 < len(sequence) < model.max_length for sequence in sequences])
    most = max(1, _LOGITS // model.vocab_size)
    for start in range(0, len(possible), most):
        rows = possible[start : start + most]
        yield rows, prefixes.step([sequences[row] for row in rows.tolist()])
