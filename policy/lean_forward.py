"""The forward of Llama-like models as a few plain functions on the Hugging Face weights.

For a tiny model most of a forward's time is Python between matrix products. This way does the same
arithmetic with one product for queries, keys and values, one for gate and up, and compiled kernels for
rotation and attention. It serves float32 on the CPU, and only models whose every weight it knows: anything
else is refused by `read_weights`, and what it gives is checked against the model itself by `tiers`. It
holds copies of the weights, made anew when they change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import embedding, linear, rms_norm, silu

from tokenzero.mcts.errors import InputError
from tokenzero.policy import kernels, onednn_linear, paged_attention
from tokenzero.policy.key_value_pool import Batch, KeyValuePool, in_order
from tokenzero.policy.student import Output, Student

_ROTARY_TYPES = ("default", "linear", "llama3", "yarn")  # the others' frequencies depend on the length
_TABLE_START = 256
# oneDNN compiles a kernel for each new shape: larger batches are rounded up to a multiple of this many rows.
_ROWS = 32
_LARGE = 1 << 20  # products of fewer numbers than this cost less in the BLAS that torch was built with
# Where bits must not depend on what shares a forward: libraries take other routines for a few rows than for
# many, so rows come in whole blocks, and the weight alone says who multiplies.
_BLOCK = 16
_LARGE_WEIGHT = 1 << 15


class Layer(NamedTuple):
    """One block's weights: norms [D], products [out, in]."""

    before: torch.Tensor
    project: torch.Tensor
    project_bias: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    after: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Weights(NamedTuple):
    """A Llama-like model, and the shape of its attention."""

    embed: torch.Tensor
    layers: list[Layer]
    norm: torch.Tensor
    head: torch.Tensor
    eps: float
    heads: int
    groups: int
    depth: int
    scale: np.float32
    window: int


def read_weights(student: Student) -> Weights:
    """The weights of a Llama-like model. Raises InputError that names the first thing this forward does
    not know.
    """
    model: Any = student.model
    config = model.config
    if student.device.type != "cpu" or next(model.parameters()).dtype != torch.float32:
        raise InputError("the lean forward needs float32 weights on the CPU")
    try:
        inner = model.model
        if getattr(config, "hidden_act", None) != "silu":
            raise InputError(f"activation {getattr(config, 'hidden_act', None)!r}, not silu")
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        if rope not in _ROTARY_TYPES:
            raise InputError(f"rotary embedding of type {rope!r}")
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        window = getattr(inner.layers[0].self_attn, "sliding_window", getattr(config, "sliding_window", None))
        if len(kinds) > 1:
            raise InputError("layers of several kinds of attention")
        used: list[nn.Parameter] = [inner.embed_tokens.weight, inner.norm.weight, model.lm_head.weight]
        layers = [_layer(block, used) for block in inner.layers]
        attention = inner.layers[0].self_attn
        depth = int(attention.head_dim)
        known = {id(parameter) for parameter in used}
        for name, parameter in model.named_parameters():
            if id(parameter) not in known:
                raise InputError(f"a weight it has no use for, {name}")
        return Weights(
            embed=inner.embed_tokens.weight.detach(),
            layers=layers,
            norm=inner.norm.weight.detach(),
            head=model.lm_head.weight.detach(),
            eps=float(inner.norm.variance_epsilon),
            heads=attention.q_proj.weight.shape[0] // depth,
            groups=attention.k_proj.weight.shape[0] // depth,
            depth=depth,
            scale=np.float32(attention.scaling),
            window=paged_attention.NO_WINDOW if not window else int(window),
        )
    except AttributeError as error:
        raise InputError(f"no {error.name!r} where Llama has one") from error


def _layer(block: Any, used: list[nn.Parameter]) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    three = [attention.q_proj, attention.k_proj, attention.v_proj]
    two = [mlp.gate_proj, mlp.up_proj]
    norms = [block.input_layernorm.weight, block.post_attention_layernorm.weight]
    for linear_layer in (*three, *two, attention.o_proj, mlp.down_proj):
        used.append(linear_layer.weight)
        if linear_layer.bias is not None:
            used.append(linear_layer.bias)
    if mlp.down_proj.bias is not None or any(one.bias is not None for one in two):
        raise InputError("biases in the feed-forward layers")
    used += norms
    biased = three[0].bias is not None
    return Layer(
        before=norms[0].detach(),
        project=torch.cat([one.weight.detach() for one in three]),
        project_bias=torch.cat([one.bias.detach() for one in three]) if biased else None,
        out=attention.o_proj.weight.detach(),
        out_bias=None if attention.o_proj.bias is None else attention.o_proj.bias.detach(),
        after=norms[1].detach(),
        gate_up=torch.cat([one.weight.detach() for one in two]),
        down=mlp.down_proj.weight.detach(),
    )


class LeanWay:
    """Forwards batches with the functions of this file. With ``batch_invariant`` a token's logits have the
    same bits whatever is forwarded beside it, at the price of at least 16 rows a forward.
    """

    name = "lean forward"

    def __init__(self, student: Student, slots: int, *, batch_invariant: bool = False) -> None:
        self._student = student
        self._invariant = batch_invariant
        self._version = -1
        self._refresh()
        self._pools = [KeyValuePool(slots) for _ in self._weights.layers]
        like = torch.empty((0, self._weights.groups, self._weights.depth))
        for pool in self._pools:
            pool.shape(like, like)
        self._cos, self._sin = self._rotary(min(_TABLE_START, student.max_length))

    def _rounded(self, rows: int) -> int:
        if not self._invariant and rows < _ROWS:
            return rows
        block = _BLOCK if self._invariant else _ROWS
        return -(-rows // block) * block

    def _product(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [R, in] times weight [out, in] transposed, plus bias."""
        work, large = (
            (weight.numel(), _LARGE_WEIGHT) if self._invariant else (len(x) * weight.numel(), _LARGE)
        )
        if work < large or not onednn_linear.available():
            return linear(x, weight, bias)
        return onednn_linear.product(x, weight, bias)

    def _refresh(self) -> None:
        self._weights = read_weights(self._student)
        self._version = self._student.version

    @torch.inference_mode()
    def _rotary(self, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The model's own table of cosines and sines, f32 [length, D] each."""
        model: Any = self._student.model
        cos, sin = model.model.rotary_emb(self._weights.embed[:1], torch.arange(length)[None])
        return cos[0].contiguous().numpy(), sin[0].contiguous().numpy()

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Output:
        """See `key_value_pool.Way`."""
        if self._version != self._student.version:
            self._refresh()
        furthest = int(batch.positions.max())
        if furthest >= len(self._cos):
            self._cos, self._sin = self._rotary(min(2 * furthest, self._student.max_length))
        weights, count = self._weights, len(batch.tokens)
        tokens = np.zeros(self._rounded(count), np.int64)
        tokens[:count] = batch.tokens
        x = embedding(torch.from_numpy(tokens), weights.embed)
        attend = paged_attention.Attend(batch.read, batch.lengths, torch.get_num_threads())
        query = np.empty((count, weights.heads, weights.depth), np.float32)
        out = torch.zeros((len(x), weights.heads, weights.depth))
        for layer, pool in zip(weights.layers, self._pools, strict=True):
            x = self._block(layer, pool, batch, x, attend, query, out)
        wanted = count if in_order(batch) else len(batch.targets)
        if not in_order(batch):
            targets = np.zeros(self._rounded(wanted), np.int64)
            targets[:wanted] = batch.targets
            x = x[torch.from_numpy(targets)]
        hidden = rms_norm(x, x.shape[1:], weights.norm, weights.eps)
        return Output(self._product(hidden, weights.head)[:wanted], hidden[:wanted])

    def _block(
        self,
        layer: Layer,
        pool: KeyValuePool,
        batch: Batch,
        x: torch.Tensor,
        attend: paged_attention.Attend,
        query: NDArray[np.float32],
        out: torch.Tensor,
    ) -> torch.Tensor:
        """One transformer block on [R, hidden], in place; ``query`` f32 [N, H, D] and ``out`` f32 [R, H,
        D] are scratch. Rows beyond the N tokens of the batch hold nothing.
        """
        weights, eps = self._weights, self._weights.eps
        projected = self._product(
            rms_norm(x, x.shape[1:], layer.before, eps), layer.project, layer.project_bias
        )
        assert pool.arrays is not None
        keys, values = pool.arrays
        kernels.rotate_and_write(
            projected.numpy(), self._cos, self._sin, batch.positions, batch.slots, query, keys, values
        )
        attend(query, keys, values, weights.window, weights.scale, out.numpy())
        x.add_(self._product(out.view(len(x), -1), layer.out, layer.out_bias))
        gate, up = self._product(rms_norm(x, x.shape[1:], layer.after, eps), layer.gate_up).chunk(2, dim=1)
        return x.add_(self._product(silu(gate).mul_(up), layer.down))

    def resize(self, slots: int) -> None:
        """Have ``slots`` slots, keeping what is in those that stay."""
        for pool in self._pools:
            pool.resize(slots)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one token's keys and values over all layers."""
        return sum(pool.bytes_per_slot for pool in self._pools)
