"""A model as whole next-token distributions, what it answered lately remembered.

For teachers that ask about the same prefixes again and again. It picks no candidates: `local_model` does that
without ever making the distributions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.teachers.prefix_states import PrefixStates

_NUMBERS = 1 << 25  # probabilities remembered: 128 MiB of them
Floats = NDArray[np.float32]


def check_options(who: str, temperature: float, memory_mb: float | None, states: int) -> None:
    """Raise InputError for an option of a teacher's model that is out of range."""
    if not 0 < temperature < float("inf"):
        raise InputError(f"{who} has temperature {temperature}; give a number above 0")
    if memory_mb is not None and not memory_mb > 0:
        raise InputError(f"{who} has memory_mb {memory_mb}; give a number above 0, or null")
    if states < 1:
        raise InputError(f"{who} has states {states}; give at least 1")


class Distribution(Protocol):
    """A model's next-token probabilities over ``vocab_size`` V tokens. ``forwarded`` tokens so far;
    sequences are shorter than ``max_length``.
    """

    @property
    def forwarded(self) -> int: ...

    @property
    def max_length(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Probabilities f32 [L, V] of the token after each of L >= 1 sequences, none of them empty."""

    def close(self) -> None: ...


class ModelDistribution:
    """softmax(logits / temperature) of a model, with its prefixes held.

    What was answered lately is remembered: the state after this one mostly asks about the same prefixes.
    """

    def __init__(self, model: Student, prefixes: PrefixStates, temperature: float = 1.0) -> None:
        self.max_length = model.max_length
        self.vocab_size = model.vocab_size
        self._model = model
        self._prefixes = prefixes
        self._temperature = temperature
        self._version = model.version
        self._known: OrderedDict[tuple[int, ...], Floats] = OrderedDict()  # least recently used first
        self._most = max(1, _NUMBERS // model.vocab_size)

    @classmethod
    def open(
        cls, model: Student, temperature: float, memory_mb: float | None, states: int
    ) -> ModelDistribution:
        """The distribution of ``model`` through an engine of its own; see `PrefixStates` for ``states``."""
        engine = open_engine(model, EngineConfig(memory_mb=memory_mb))
        return cls(model, PrefixStates(model, engine, states), temperature)

    @property
    def forwarded(self) -> int:
        return self._prefixes.forwarded

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """See `Distribution`. Raises InputError when the output is not a number."""
        if self._version != self._model.version:
            self._known.clear()
            self._version = self._model.version
        asked = [tuple(sequence) for sequence in sequences]
        unknown = [sequence for sequence in dict.fromkeys(asked) if sequence not in self._known]
        if unknown:
            self._known.update(zip(unknown, self._forward(unknown), strict=True))
        for sequence in asked:
            self._known.move_to_end(sequence)
        probs = np.stack([self._known[sequence] for sequence in asked])
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return probs

    def close(self) -> None:
        self._known.clear()
        self._prefixes.close()

    @torch.inference_mode()
    def _forward(self, sequences: Sequence[tuple[int, ...]]) -> Floats:
        logits = self._prefixes.step(sequences).logits
        probs: Floats = (logits / self._temperature).softmax(dim=-1).cpu().numpy()
        if np.isnan(probs).any():
            raise InputError("a teacher's output is not a number; its weights are damaged")
        return probs
