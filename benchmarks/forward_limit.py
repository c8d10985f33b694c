"""Models of the sizes that the benchmarks use, and the fastest plain forward there is for a batch of
leaves.

The limit: the unmodified Hugging Face model forwards one token for each leaf on keys and values that
already lie contiguous, one preallocated block per leaf, with nothing masked and nothing gathered. No
search can be cheaper with this model's own forward unless it shares what leaves have in common. Nothing is
measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import report  # noqa: F401  before transformers: it hides a benchmark's name
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec

SIZES = {
    "tiny": (4, 128, 4, 4, 336),
    "small": (8, 256, 8, 8, 672),
    "mid": (12, 768, 12, 12, 2048),
    "half-billion": (24, 1152, 16, 4, 5120),
}
"""Layers, width, heads, heads of keys and values, inner width."""
WORDS = 1000


def random_llama(size: str, positions: int = 1024, seed: int = 0) -> Student:
    """A Llama of one of `SIZES` with random weights and a vocabulary of 1,000 words and a few marks."""
    layers, width, heads, groups, inner = SIZES[size]
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": positions,
    }
    spec = {"kind": "words", "words": [f"w{i}" for i in range(WORDS)]}
    return Student.from_config(config, from_spec(spec), seed=seed)


class _Contiguous(CacheLayerMixin):
    """One layer's block [L, G, T, D]; the newest token is written at its end."""

    is_sliding = False

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (*key_states.shape[:2], self._length, key_states.shape[3])
        self.keys, self.values = key_states.new_zeros(shape), value_states.new_zeros(shape)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, -1:] = key_states
        self.values[:, :, -1:] = value_states
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length, 0

    def get_seq_length(self) -> int:
        return self._length - 1

    def get_max_length(self) -> int:
        return -1


def limit_forward(student: Student, leaves: int, length: int) -> Callable[[], object]:
    """A call that forwards one token for each of ``leaves`` leaves, each the last of ``length`` tokens."""
    layers = student.model.config.num_hidden_layers
    cache = Cache(layers=[_Contiguous(length) for _ in range(layers)])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, WORDS, (leaves, 1), generator=generator).to(student.device)
    positions = torch.full((leaves, 1), length - 1, device=student.device)

    @torch.inference_mode()
    def forward() -> object:
        return student.forward(ids, position_ids=positions, past_key_values=cache, use_cache=True)

    return forward
