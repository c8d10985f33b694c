"""oneDNN's linear layers against torch's own: outputs, gradients, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokenzero.policy import onednn_linear

pytestmark = pytest.mark.skipif(not onednn_linear.available(), reason="torch was built without oneDNN")


def gradients(layer: object, shape: tuple[int, ...], bias: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(*shape, 6, generator=generator).requires_grad_()
    weight = torch.randn(5, 6, generator=generator).requires_grad_()
    more = torch.randn(5, generator=generator).requires_grad_() if bias else None
    assert callable(layer)
    outputs = layer(inputs, weight, more)
    leaves = [leaf for leaf in (inputs, weight, more) if leaf is not None]
    mask = torch.randn(outputs.shape, generator=generator)
    return [outputs.detach(), *torch.autograd.grad((outputs * mask).sum(), leaves)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1,), (9,), (3, 4), (1, 0), (2, 3, 2)])
def test_outputs_and_gradients_are_torchs_own(shape: tuple[int, ...], bias: bool) -> None:
    found = gradients(onednn_linear.linear, shape, bias)
    expected = gradients(nn.functional.linear, shape, bias)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    weight = torch.randn(5, 6)
    inputs = torch.randn(4, 6, requires_grad=True)
    onednn_linear.linear(inputs, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, weight.sum(0).expand(4, 6))
    trained = torch.randn(5, 6, requires_grad=True)
    onednn_linear.linear(inputs.detach(), trained).sum().backward()  # type: ignore[no-untyped-call]
    assert trained.grad is not None
    torch.testing.assert_close(trained.grad, inputs.detach().sum(0).expand(5, 6))


def test_other_types_keep_torchs_bits() -> None:
    weight, inputs = torch.randn(5, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(onednn_linear.linear(inputs, weight), nn.functional.linear(inputs, weight))


def test_layers_are_changed_and_changed_back() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(6, 4), Own(4, 3))
    inputs = torch.randn(2, 6)
    expected = model(inputs)
    names = list(model.state_dict())
    onednn_linear.install(model)
    assert "forward" in vars(model[0])
    assert "forward" not in vars(model[1])
    torch.testing.assert_close(model(inputs), expected)
    assert list(model.state_dict()) == names
    with torch.no_grad():
        model[0].weight = nn.Parameter(torch.zeros(4, 6))
        torch.testing.assert_close(model(inputs), model[1](model[0].bias.expand(2, 4)))
    onednn_linear.remove(model)
    assert "forward" not in vars(model[0])
