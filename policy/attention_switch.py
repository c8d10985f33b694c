"""Another attention function inside an unmodified Hugging Face model, for the length of one forward.

It finds and changes the one entry that the layers read; the attention functions themselves are elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tokenzero.mcts.errors import InputError

_ENTRY = "_attn_implementation_internal"
# What families hand to attention that says nothing about what is attended to.
_HARMLESS = {
    "position_ids",
    "cache_position",
    "use_cache",
    "output_attentions",
    "is_causal",
    "logits_to_keep",
}


def attention_configs(model: PreTrainedModel) -> list[Any]:
    """Every config object that a layer of the model reads its attention from, each once."""
    found = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    return list(found.values())


@contextmanager
def switched(configs: Sequence[Any], name: str) -> Iterator[None]:
    """The model of ``configs`` with the attention registered as ``name``; afterwards it is as it was."""
    # Setting the property costs more than a layer's attention; it writes just this entry.
    before = [vars(config)[_ENTRY] for config in configs]
    try:
        for config in configs:
            vars(config)[_ENTRY] = name
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            vars(config)[_ENTRY] = own


def refuse_strange(module: nn.Module, given: Mapping[str, Any]) -> None:
    """Arguments of a layer's attention that may change what is attended to are refused, not ignored.

    Raises:
        InputError: one of ``given`` is neither None nor known to be harmless.
    """
    strange = [name for name, value in given.items() if value is not None and name not in _HARMLESS]
    if strange:
        raise InputError(f"{type(module).__name__} hands {', '.join(sorted(strange))} to its attention")


def rows_of(states: torch.Tensor) -> torch.Tensor:
    """Heads' states [1, G, N, D] of one row as contiguous [N, G, D]."""
    return states[0].transpose(0, 1).contiguous()
