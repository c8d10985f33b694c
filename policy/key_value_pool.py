"""Keys and values of a model, one slot per token, and what one forward over them needs to know.

`Batch` addresses a forward, `KeyValuePool` holds one layer's memory and shapes it by what the model first
hands over. Which slot belongs to which token is `state_store`'s business, how they are attended to is that
of the three ways to forward: `tree_attention`, `gather_attention` and `lean_forward`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.policy.student import Output

Ids = NDArray[np.int64]
I32 = NDArray[np.int32]


class Batch(NamedTuple):
    """N tokens to forward, ancestors before descendants.

    ``tokens``, ``positions`` (0-based) and ``slots`` i64 [N]; ``read`` i32 [N, P] the slots each attends
    to, its own first and its first ancestor last, ``lengths`` i32 [N] of them; ``trees`` i64 [N] equal for
    tokens that share a prompt; ``targets`` i64 [R] the tokens whose logits are wanted.
    """

    tokens: Ids
    positions: Ids
    slots: Ids
    read: I32
    lengths: I32
    trees: Ids
    targets: Ids


class Way(Protocol):
    """A way to forward a batch. ``name`` says which. Raises whatever the model raises; the slots written
    are then void.
    """

    name: str

    def forward(self, batch: Batch) -> Output:
        """Store the keys and values of all tokens; logits f32 [R, V] and hidden [R, D] of the targets."""
        ...

    def resize(self, slots: int) -> None:
        """Have ``slots`` slots, keeping what is in those that stay."""
        ...

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one token's keys and values over all layers; 0 before the first forward."""
        ...


class KeyValuePool:
    """One layer's ``keys`` [S, G, D] and ``values`` [S, G, Dv], in the model's own type and place.

    ``arrays`` are the same memory as numpy arrays, None where numpy cannot see it; ``views`` are it as a
    model expects keys and values, [1, G, S, D].
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.keys = torch.empty(0)
        self.values = torch.empty(0)
        self.shaped = False
        self.views = self.keys, self.values
        self.arrays: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def shape(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Allocate, for rows like ``keys`` [N, G, D] and ``values`` [N, G, Dv]."""
        self._hold(
            keys.new_zeros((self.slots, *keys.shape[1:])), values.new_zeros((self.slots, *values.shape[1:]))
        )

    def _hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values, self.shaped = keys, values, True
        self.views = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
        if keys.device.type == "cpu" and keys.dtype == torch.float32:
            self.arrays = keys.numpy(), values.numpy()

    def write(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store rows ``keys`` [N, G, D] and ``values`` [N, G, Dv] at ``slots`` i64 [N]."""
        self.keys.index_copy_(0, slots, keys)
        self.values.index_copy_(0, slots, values)

    def resize(self, slots: int) -> None:
        """Have ``slots`` slots, keeping what is in those that stay."""
        if self.shaped:
            self._hold(*(_resized(store, slots) for store in (self.keys, self.values)))
        self.slots = slots

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one token's keys and values in this layer; 0 before they are shaped."""
        return sum(x[:1].numel() * x.element_size() for x in (self.keys, self.values)) if self.shaped else 0


def _resized(store: torch.Tensor, slots: int) -> torch.Tensor:
    resized = store.new_zeros((slots, *store.shape[1:]))
    kept = min(slots, len(store))
    resized[:kept] = store[:kept]
    return resized


def chosen(output: Output, batch: Batch) -> Output:
    """The targets' rows of an output over [1, N] or already cut to [1, R] by the model."""
    logits, hidden = output.logits[0], output.hidden[0]
    if len(logits) == len(batch.tokens) and not in_order(batch):
        pick = torch.from_numpy(batch.targets).to(logits.device)
        logits, hidden = logits[pick], hidden[pick]
    return Output(logits, hidden)


def in_order(batch: Batch) -> bool:
    """Whether every token is a target, in the order of the batch."""
    targets = batch.targets
    return len(targets) == len(batch.tokens) and bool((targets == np.arange(len(targets))).all())
