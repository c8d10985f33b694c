"""The second way to forward scattered states: give each row its own copy of the keys and values above it.

The model's attention is left as it is: the cache hands it gathered, right-aligned paths and it builds its
masks from an ordinary padding mask. So whatever a family does in its attention (soft caps, sinks, its own
rotary code) stays right, on any device and in any type, at the price of copying every path in every layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, CacheLayerMixin

from tokenzero.policy.key_value_pool import Batch, KeyValuePool
from tokenzero.policy.student import Output, Student

Ids = NDArray[np.int64]


class Chains(NamedTuple):
    """A batch as rows: each a chain of tokens, every one the child of the one before it.

    ``last`` i64 [C] is the batch index of each chain's last token, ``length`` i64 [C] how many tokens it has;
    ``row`` i64 [R] is the chain that ends with each target.
    """

    last: Ids
    length: Ids
    row: Ids


def chains(batch: Batch) -> Chains:
    """Cut a batch into chains as long as can be; a target ends its chain, so that its logits are a row's
    last.
    """
    count = len(batch.tokens)
    joined = np.zeros(count, np.bool_)  # token n continues the chain of token n - 1
    if count > 1:
        above = batch.read[1:, 1] if batch.read.shape[1] > 1 else np.full(count - 1, -1)
        joined[1:] = (above == batch.slots[:-1]) & (batch.lengths[1:] > 1)
        after_target = batch.targets + 1
        joined[after_target[after_target < count]] = False
    starts = np.flatnonzero(~joined)
    last = np.append(starts[1:], count) - 1
    return Chains(last, last - starts + 1, np.searchsorted(last, batch.targets))


class _GatherLayer(CacheLayerMixin):
    """A transformers cache layer whose ``update`` returns each row's path, [C, G, P, D]."""

    is_sliding = False

    def __init__(self, cache: GatherCache, pool: KeyValuePool) -> None:
        super().__init__()
        self._cache = cache
        self.pool = pool

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the tokens of [C, G, T, D] that are no padding, then gather."""
        cache, pool = self._cache, self.pool
        keys, values = (x.transpose(1, 2)[cache.written] for x in (key_states, value_states))
        if not pool.shaped:
            pool.shape(keys, values)
        pool.write(cache.slots, keys, values)
        return self._gathered(pool.keys), self._gathered(pool.values)

    def _gathered(self, store: torch.Tensor) -> torch.Tensor:
        read = self._cache.read
        return store.index_select(0, read.reshape(-1)).view(*read.shape, *store.shape[1:]).transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return int(self._cache.read.shape[1]), 0

    def get_seq_length(self) -> int:
        return int(self._cache.read.shape[1] - self._cache.written.shape[1])

    def get_max_length(self) -> int:
        return -1


class GatherCache(Cache):
    """All layers' pools and the addresses of the forward in hand.

    ``slots`` i64 [N] where the new tokens go, ``written`` bool [C, T] which queries they are, ``read`` i64
    [C, P] the path of each row.
    """

    def __init__(self, layers: int, slots: int) -> None:
        self.slots = torch.empty(0, dtype=torch.int64)
        self.written = torch.empty((0, 0), dtype=torch.bool)
        self.read = torch.empty((0, 0), dtype=torch.int64)
        self.pools = [KeyValuePool(slots) for _ in range(layers)]
        super().__init__(layers=[_GatherLayer(self, pool) for pool in self.pools])


class GatherWay:
    """Forwards batches through the Hugging Face model with its own attention over gathered paths."""

    name = "gathered keys and values"

    def __init__(self, student: Student, slots: int) -> None:
        self._student = student
        layers = int(student.model.config.get_text_config(decoder=True).num_hidden_layers)
        self._cache = GatherCache(layers, slots)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Output:
        """See `key_value_pool.Way`."""
        rows, student, cache = chains(batch), self._student, self._cache
        wide, tall = int(batch.lengths[rows.last].max()), int(rows.length.max())
        # Right-align every path: column c of a row is its token c - (wide - length).
        column = np.arange(wide)[None, :] - (wide - batch.lengths[rows.last])[:, None]
        query = np.arange(tall)[None, :] - (tall - rows.length)[:, None]
        index = np.maximum(rows.last[:, None] - (tall - 1 - np.arange(tall)), 0)
        device = student.device

        def there(array: Any) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        cache.slots = there(batch.slots)
        cache.written = there(query >= 0)
        cache.read = there(np.where(column >= 0, batch.read[rows.last, :wide][:, ::-1], 0).astype(np.int64))
        output = student.forward(
            there(np.where(query >= 0, batch.tokens[index], student.pad_id)),
            attention_mask=there((column >= 0).astype(np.int64)),
            position_ids=there(np.where(query >= 0, batch.positions[index], 0)),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        pick = there(rows.row)
        return Output(output.logits[:, -1][pick], output.hidden[:, -1][pick])

    def resize(self, slots: int) -> None:
        """Have ``slots`` slots, keeping what is in those that stay."""
        for pool in self._cache.pools:
            pool.resize(slots)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one token's keys and values over all layers."""
        return sum(pool.bytes_per_slot for pool in self._cache.pools)
