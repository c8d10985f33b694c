"""Linear layers by oneDNN instead of the BLAS that torch was built with: float32 on the CPU.

On processors for which MKL has no kernels of its own (AMD's, among others) oneDNN's are about twice as fast
at the sizes of small models. It replaces how a layer computes, never its weights, and leaves other types,
other devices and subclasses of `nn.Linear` alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


def available() -> bool:
    """Whether this torch has oneDNN and the operator used here."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``inputs @ weight.T + bias`` of [..., I], [O, I] and [O], without a gradient."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return made


class _Linear(torch.autograd.Function):
    """The operator has no gradient of its own; the two products of a linear layer's are of its kind again."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if of_inputs else None,
            product(flat.t(), inputs.flatten(0, -2).t()) if of_weight else None,
            flat.sum(0) if of_bias else None,
        )


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``nn.functional.linear`` of [..., I], [O, I] and [O]: the same number up to rounding.

    Gradients can be taken once, not of gradients. What oneDNN does not serve goes to torch's own.
    """
    served = inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32
    if not served or inputs.ndim < 2 or inputs.numel() == 0:
        return nn.functional.linear(inputs, weight, bias)
    made: torch.Tensor = _Linear.apply(inputs, weight, bias)
    return made


def install(model: nn.Module) -> None:
    """Let every plain ``nn.Linear`` of ``model`` compute by oneDNN; :func:`remove` undoes it."""
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.forward = _forward_of(layer)  # type: ignore[method-assign]


def remove(model: nn.Module) -> None:
    """Let every layer of ``model`` compute as its class does."""
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__dict__.pop("forward", None)


def _forward_of(layer: nn.Linear) -> Any:
    # The layer is asked for its weight at each call: loading and tying replace the parameter itself.
    return lambda inputs: linear(inputs, layer.weight, layer.bias)
