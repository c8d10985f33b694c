"""A past checkpoint of the student as a teacher.

It turns full next-token distributions into proposals and passes on what they cost. It loads no weights and
runs no model: the callable that does is bound in selfplay/, so this file needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, checked_k, top_k

NextTokenProbs = Callable[[Sequence[Sequence[int]]], tuple[NDArray[np.float32], int]]


@dataclass(frozen=True)
class CheckpointTeacher:
    """next_token_probs(L sequences) -> (probs f32 [L, V], forwarded tokens). `version` is its round."""

    label: str
    version: int
    next_token_probs: NextTokenProbs

    @property
    def name(self) -> str:
        """`label@version`, so that two rounds of one run are two teachers."""
        return f"{self.label}@{self.version}"

    def propose(self, sequences: Sequence[Sequence[int]], k: int) -> Proposal:
        """Top k of the checkpoint's distribution. Raises InputError when it returns something other than one
        distribution per sequence. No sequences cost nothing: the checkpoint is not called.
        """
        if len(sequences) == 0:
            shape = (0, checked_k(k))
            return Proposal(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32), 0)
        probs, tokens = self.next_token_probs(sequences)
        dense = np.asarray(probs)
        if dense.ndim != 2 or dense.shape[0] != len(sequences):
            raise InputError(
                f"teacher {self.name}: probabilities {dense.shape} for {len(sequences)} sequences"
            )
        if not np.allclose(dense.sum(axis=1, dtype=np.float64), 1.0, atol=1e-3) or (dense < 0).any():
            raise InputError(
                f"teacher {self.name}: rows are not probabilities: give softmax outputs, not logits"
            )
        actions, best = top_k(dense, k)
        return Proposal(actions, best, int(tokens))
