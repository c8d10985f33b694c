"""Attention of each token to its ancestors alone, with gradients: float32 on the CPU.

All tokens of a batch of trees stand in one row. Every token brings the list of its ancestors, so the work
grows with the depth of a tree and not with the square of its size. The arithmetic is in `kernels`; which
models are served rightly is for `training_forward` to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from tokenzero.mcts.errors import InputError
from tokenzero.policy.attention_switch import refuse_strange, rows_of, switched
from tokenzero.policy.kernels import I32
from tokenzero.policy.paged_attention import NO_WINDOW, Attend

NAME = "ancestors"

_current: ContextVar[Attend] = ContextVar("ancestors of the forward in progress")


@contextmanager
def attending(configs: Sequence[Any], read: I32, lengths: I32) -> Iterator[None]:
    """The model of ``configs`` reads one row of N tokens, each of which attends to the first ``lengths`` i32
    [N] places in its row of ``read`` i32 [N, P]: itself, its parent, and so on up to its first ancestor.
    """
    token = _current.set(Attend(read, lengths, torch.get_num_threads()))
    try:
        with switched(configs, NAME):
            yield
    finally:
        _current.reset(token)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attend: Attend,
        window: int,
        scale: np.float32,
    ) -> torch.Tensor:
        q, k, v = (rows_of(states.detach()) for states in (query, key, value))
        out = torch.empty((*q.shape[:2], v.shape[2]))
        attend(q.numpy(), k.numpy(), v.numpy(), window, scale, out.numpy())
        ctx.save_for_backward(q, k, v)
        ctx.attend, ctx.window, ctx.scale = attend, window, scale
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v = (rows.numpy() for rows in ctx.saved_tensors)
        found = ctx.attend.backward(q, k, v, ctx.window, ctx.scale, gradient[0].contiguous().numpy())
        return (*(torch.from_numpy(part).transpose(0, 1)[None] for part in found), None, None, None)


def _ancestor_attention(
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
    """transformers' attention interface: query [1, H, N, D], key and value [1, G, N, D]."""
    refuse_strange(module, kwargs)
    if dropout:
        raise InputError(f"{type(module).__name__} asks for dropout, which is not known here; set it to 0")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    window = NO_WINDOW if sliding_window is None else int(sliding_window)
    made: torch.Tensor = _Attention.apply(query, key, value, _current.get(), window, np.float32(scale))
    return made, None


AttentionInterface.register(NAME, _ancestor_attention)
