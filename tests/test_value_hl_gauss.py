"""HL-Gauss against closed forms: sums, expectations, edges, and the masses of a normal by math.erf."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.hl_gauss import HLGauss, checked_target


def naive_masses(support: HLGauss, target: float) -> list[float]:
    """The definition, one bin at a time."""
    width = 2.0 / (support.bins - 2 * support.pad_bins)
    low = -1.0 - support.pad_bins * width
    edges = [low + i * width for i in range(support.bins + 1)]
    cdf = [
        0.5 * (1.0 + math.erf((edge - target) / (support.sigma_ratio * width * math.sqrt(2.0))))
        for edge in edges
    ]
    return [(cdf[i + 1] - cdf[i]) / (cdf[-1] - cdf[0]) for i in range(support.bins)]


@pytest.mark.parametrize("support", [HLGauss(), HLGauss(101, 0.75), HLGauss(21, 0.5), HLGauss(64, 2.0)])
def test_projection_sums_to_one_and_its_expectation_is_the_target(support: HLGauss) -> None:
    target = torch.linspace(-1, 1, 201, dtype=torch.float64)
    masses = support.project(target)
    assert masses.shape == (201, support.bins)
    assert torch.allclose(masses.sum(-1), torch.ones(201, dtype=torch.float64), atol=1e-12)
    tolerance = 2e-3 * support.width if support.sigma_ratio >= 0.75 else 1e-2 * support.width
    assert (support.expectation(masses) - target).abs().max() < tolerance


@given(st.floats(-1, 1), st.integers(20, 120), st.floats(0.3, 2.0))
def test_projection_agrees_with_the_definition(target: float, bins: int, ratio: float) -> None:
    support = HLGauss(bins, ratio)
    masses = support.project(torch.tensor(target, dtype=torch.float64))
    assert masses.tolist() == pytest.approx(naive_masses(support, target), abs=1e-12)


def test_variance_is_that_of_the_normal_plus_sheppards_correction() -> None:
    support = HLGauss()
    target = torch.tensor([0.0, 0.3, -0.7], dtype=torch.float64)
    masses = support.project(target)
    spread = (masses * (support.centers(masses) - target[:, None]) ** 2).sum(-1)
    expected = support.sigma**2 + support.width**2 / 12
    assert torch.allclose(spread, torch.full_like(spread, expected), rtol=1e-3)


def test_support_keeps_four_sigmas_outside_the_edges() -> None:
    support = HLGauss()
    like = torch.zeros((), dtype=torch.float64)
    edges, centers = support.edges(like), support.centers(like)
    assert float(edges[-1]) - 1.0 >= 4 * support.sigma - 1e-12
    assert torch.allclose((edges[1:] + edges[:-1]) / 2, centers)
    assert torch.allclose(centers, -centers.flip(0), rtol=0, atol=1e-15)
    assert torch.isclose(edges[support.pad_bins], torch.tensor(-1.0, dtype=torch.float64))


def test_float32_is_close_to_float64_and_sums_to_one() -> None:
    target = torch.linspace(-1, 1, 101, dtype=torch.float64)
    masses = HLGauss().project(target.float())
    assert masses.dtype == torch.float32
    assert torch.allclose(masses.double(), HLGauss().project(target), atol=2e-6)
    assert torch.allclose(masses.sum(-1), torch.ones(101), atol=1e-5)


def test_half_precision_targets_are_widened() -> None:
    assert HLGauss().project(torch.tensor([1.0], dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("bad", [1.1, -2.0, math.nan, math.inf])
def test_targets_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="outside"):
        HLGauss().project(torch.tensor([0.0, bad]))


def test_rounding_just_outside_is_clipped() -> None:
    assert float(checked_target(torch.tensor(1.0 + 2e-6))) == 1.0


@pytest.mark.parametrize(("bins", "ratio"), [(7, 0.75), (51, 0.1), (51, math.nan), (51, 11.0), (0, 0.75)])
def test_unusable_supports_are_refused(bins: int, ratio: float) -> None:
    with pytest.raises(InputError, match=r"value\.(bins|sigma_ratio)"):
        HLGauss(bins, ratio)


def test_the_smallest_legal_support_works() -> None:
    support = HLGauss(8, 0.75)
    assert float(support.expectation(support.project(torch.tensor(1.0)))) == pytest.approx(1.0, abs=1e-2)
