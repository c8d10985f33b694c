"""Batches of (prompt, answer) sequences: the loss covers answer tokens and the end mark, never the prompt.

It does not tokenize and does not train (see `training_loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sequence_packing import place
from tokenzero.policy.student import Student
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.training_loop import Batch

Ids = npt.NDArray[np.int64]
Draw = Callable[[int], Ids]
"""From a 0-based step to the indices i64 [batch size] of the examples it learns from."""


class Example(NamedTuple):
    """Token ids of a whole sequence and how many of them are the prompt."""

    tokens: list[int]
    prompt_length: int


class DemonstrationBatches:
    """The examples that ``draw`` names for each step, in ``accumulate`` parts.

    Raises:
        InputError: no examples, one without prompt or answer, or one longer than the model's positions.
    """

    def __init__(self, student: Student, examples: Sequence[Example], draw: Draw, accumulate: int) -> None:
        check_examples(student, examples)
        self._examples = examples
        self._pad_id = student.pad_id
        self._draw = draw
        self._accumulate = accumulate

    def parts(self, step: int, forward: TrainingForward) -> list[Batch]:
        """The step's examples, packed or padded as ``forward`` can read them."""
        drawn = np.split(self._draw(step), self._accumulate)
        return [collate([self._examples[i] for i in part.tolist()], self._pad_id, forward) for part in drawn]


def with_replacement(seed: int, count: int, size: int) -> Draw:
    """Each step draws ``size`` of ``count`` examples by itself; one may come twice."""
    return lambda step: np.random.default_rng([seed, step]).integers(0, count, size=size)


def in_epochs(seed: int, count: int, size: int) -> Draw:
    """Every one of ``count`` examples once, in random order, before any comes again; ``size`` a step."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> Ids:
        return np.random.default_rng([seed, epoch]).permutation(count)

    def draw(step: int) -> Ids:
        places = np.arange(step * size, (step + 1) * size)
        return np.asarray([order(place // count)[place % count] for place in places.tolist()])

    return draw


def collate(examples: Sequence[Example], pad_id: int, forward: TrainingForward) -> Batch:
    """One part: ``examples`` in the rows that ``forward`` lays out for them."""
    layout = forward.layout(np.asarray([len(example.tokens) for example in examples]))
    ids, positions = place([example.tokens for example in examples], layout, pad_id)
    cells = np.concatenate(
        [
            np.arange(start + prompt - 1, start + len(tokens) - 1)
            for start, (tokens, prompt) in zip(layout.starts.tolist(), examples, strict=True)
        ]
    )
    arrays = (ids, positions, cells, ids.ravel()[cells + 1])
    batch = Batch(*map(torch.from_numpy, arrays))
    return batch if layout.packed else batch._replace(positions=None)


def check_examples(student: Student, examples: Sequence[Example]) -> None:
    """Raise InputError for examples that ``student`` cannot learn from."""
    if not examples:
        raise InputError("there are no examples to train on; give at least one (prompt, answer) pair")
    for index, (tokens, prompt) in enumerate(examples):
        if not 1 <= prompt < len(tokens):
            raise InputError(
                f"example {index} has {len(tokens)} tokens of which {prompt} are the prompt; "
                "give at least one token of each, prompt and answer"
            )
    longest = max(len(example.tokens) for example in examples)
    if longest > student.max_length:
        raise InputError(
            f"an example has {longest} tokens, the model takes {student.max_length}; "
            "raise max_position_embeddings"
        )
