"""Tree attention inside an unmodified Hugging Face model: the fast way to forward a batch of scattered
states.

All tokens of a batch go through the model as one row without padding, [1, N]. `TreeCache` writes their
keys and values into the pools, and an attention function registered with transformers as "tree" lets each
attend to its own path: with compiled kernels (`PagedAttention`: float32 on the CPU), or with torch's
scaled dot product over the slots that the leaves of one tree have between them (`DenseAttention`: any
device, any type). Arguments of a model's attention that are not understood here are refused, not ignored;
whether a model is served rightly is found out by `tiers`, not here.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from tokenzero.mcts.errors import InputError
from tokenzero.policy import kernels, paged_attention
from tokenzero.policy.attention_switch import attention_configs, refuse_strange, rows_of, switched
from tokenzero.policy.key_value_pool import Batch, KeyValuePool, chosen
from tokenzero.policy.student import Output, Student
from tokenzero.policy.tree_union import Union, unite

NAME = "tree"


class Attention(Protocol):
    """How queries meet a pool during one forward."""

    def begin(self, batch: Batch, device: torch.device) -> None:
        """Prepare for the layers of one forward."""
        ...

    def write(self, pool: KeyValuePool, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store the batch's rows [N, G, D]."""
        ...

    def attend(self, query: torch.Tensor, pool: KeyValuePool, scale: float, window: int) -> torch.Tensor:
        """Attention [N, H, Dv] of queries [N, H, D]."""
        ...


class PagedAttention:
    """The compiled kernels, on as many threads as torch has."""

    name = "paged kernel"

    def begin(self, batch: Batch, device: torch.device) -> None:
        self._slots = batch.slots
        self._attend = paged_attention.Attend(batch.read, batch.lengths, torch.get_num_threads())

    def write(self, pool: KeyValuePool, keys: torch.Tensor, values: torch.Tensor) -> None:
        assert pool.arrays is not None
        kernels.write(keys.numpy(), values.numpy(), self._slots, *pool.arrays)

    def attend(self, query: torch.Tensor, pool: KeyValuePool, scale: float, window: int) -> torch.Tensor:
        assert pool.arrays is not None
        keys, values = pool.arrays
        out = torch.empty((*query.shape[:2], values.shape[2]))
        self._attend(query.numpy(), keys, values, window, np.float32(scale), out.numpy())
        return out


class DenseAttention:
    """Scaled dot product of each tree's queries with all slots that any of them reads, under an ancestor
    mask.
    """

    name = "dense attention"

    def begin(self, batch: Batch, device: torch.device) -> None:
        union = unite(batch)
        self._union = Union(*(torch.from_numpy(part).to(device) for part in union))
        self._slots = torch.from_numpy(batch.slots).to(device)
        self._masks: dict[int, torch.Tensor] = {}

    def write(self, pool: KeyValuePool, keys: torch.Tensor, values: torch.Tensor) -> None:
        pool.write(self._slots, keys, values)

    def attend(self, query: torch.Tensor, pool: KeyValuePool, scale: float, window: int) -> torch.Tensor:
        union = self._union
        groups, rows, _ = union.distance.shape
        if window not in self._masks:
            # A row without a token has nothing to attend to and must not become NaN: it looks at column 0.
            self._masks[window] = ((union.distance < window) | (union.distance < 0))[:, None]
        padded = query.new_zeros((groups * rows, *query.shape[1:]))
        padded.index_copy_(0, union.place, query)
        out = nn.functional.scaled_dot_product_attention(
            padded.view(groups, rows, *query.shape[1:]).transpose(1, 2),
            self._gathered(pool.keys),
            self._gathered(pool.values),
            attn_mask=self._masks[window],
            scale=scale,
            enable_gqa=query.shape[1] != pool.keys.shape[1],
        )
        return out.transpose(1, 2).reshape(groups * rows, query.shape[1], -1).index_select(0, union.place)

    def _gathered(self, store: torch.Tensor) -> torch.Tensor:
        slots = self._union.slots
        return store.index_select(0, slots.reshape(-1)).view(*slots.shape, *store.shape[1:]).transpose(1, 2)


class Forward:
    """The forward in progress: its attention, and the pool that the layer at work has written last."""

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.pool: KeyValuePool | None = None


_current: ContextVar[Forward] = ContextVar("forward in progress")


class _PoolLayer(CacheLayerMixin):
    """A transformers cache layer over one `KeyValuePool`; its ``update`` hands the whole pool on."""

    is_sliding = False

    def __init__(self, pool: KeyValuePool) -> None:
        super().__init__()
        self.pool = pool

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [1, G, N, D]; returns the pool as [1, G, S, D]."""
        keys, values = rows_of(key_states), rows_of(value_states)
        pool = self.pool
        if not pool.shaped:
            pool.shape(keys, values)
        forward = _current.get()
        forward.attention.write(pool, keys, values)
        forward.pool = pool
        return pool.views

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class TreeCache(Cache):
    """All layers' pools, as a transformers cache."""

    def __init__(self, layers: int, slots: int) -> None:
        self.pools = [KeyValuePool(slots) for _ in range(layers)]
        super().__init__(layers=[_PoolLayer(pool) for pool in self.pools])


def _tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, H, N, D], key and value as `TreeCache` returned them."""
    refuse_strange(module, kwargs)
    forward = _current.get()
    pool = forward.pool
    if pool is None or key.data_ptr() != pool.keys.data_ptr() or value.data_ptr() != pool.values.data_ptr():
        raise InputError(f"{type(module).__name__} does not attend to what its cache returned")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    window = paged_attention.NO_WINDOW if sliding_window is None else int(sliding_window)
    return forward.attention.attend(rows_of(query), pool, scale, window)[None], None


AttentionInterface.register(NAME, _tree_attention)


class TreeAttentionWay:
    """Forwards batches through the Hugging Face model itself, with tree attention in its layers."""

    def __init__(self, student: Student, attention: PagedAttention | DenseAttention, slots: int) -> None:
        self.name = attention.name
        self._student = student
        self._attention = attention
        self._configs = attention_configs(student.model)
        layers = int(student.model.config.get_text_config(decoder=True).num_hidden_layers)
        self._cache = TreeCache(layers, slots)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Output:
        """See `key_value_pool.Way`. Raises InputError when the model's attention asks for what is not
        known here.
        """
        device = self._student.device
        self._attention.begin(batch, device)
        keep: dict[str, Any] = {}
        if len(batch.targets) < len(batch.tokens):
            keep["logits_to_keep"] = torch.from_numpy(batch.targets).to(device)
        token = _current.set(Forward(self._attention))
        try:
            with switched(self._configs, NAME):
                output = self._student.forward(
                    torch.from_numpy(batch.tokens)[None].to(device),
                    attention_mask=torch.ones((1, len(batch.tokens)), dtype=torch.int64, device=device),
                    position_ids=torch.from_numpy(batch.positions)[None].to(device),
                    past_key_values=self._cache,
                    use_cache=True,
                    **keep,
                )
        finally:
            _current.reset(token)
        return chosen(output, batch)

    def resize(self, slots: int) -> None:
        """Have ``slots`` slots, keeping what is in those that stay."""
        for pool in self._cache.pools:
            pool.resize(slots)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one token's keys and values over all layers."""
        return sum(pool.bytes_per_slot for pool in self._cache.pools)
