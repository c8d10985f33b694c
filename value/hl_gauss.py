"""HL-Gauss: a scalar target in [-1, 1] as a histogram over bins, and back.

A target y becomes the bin masses of a normal with mean y, truncated to the support; a histogram becomes the
expectation of the bin centres. Sources: Imani & White, "Improving Regression Performance with Distributional
Losses" (2018); Farebrother et al., "Stop Regressing: Training Value Functions via Classification"
(2024), whose sigma is a fixed ratio (0.75) of the bin width.

The support is wider than [-1, 1]: each side is padded by `ceil(4 * sigma_ratio)` whole bins, so at least four
sigmas lie between the target and the edge and the truncation cuts less than 1e-4 of the mass even at y = +-1.
Without that padding the expectation at y = 1 would fall about 0.8 sigma short. Outcomes are mostly +-1 here,
so the edges are the common case. It is the padding Imani & White use; the price is a few bins that no plain
value falls into.

This file has no parameters and holds no network: value/head.py owns those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tokenzero.mcts.errors import InputError

_PAD_SIGMAS = 4.0
_TARGET_TOLERANCE = 1e-5


@dataclass(frozen=True)
class HLGauss:
    """The support and the two maps. `bins` counts the padding bins too; `sigma_ratio` is sigma / bin width.

    Raises InputError when the ratio is out of [0.3, 10] (below, the expectation drifts from the target) or
    when fewer than two bins would be left inside [-1, 1].
    """

    bins: int = 51
    sigma_ratio: float = 0.75

    def __post_init__(self) -> None:
        if not 0.3 <= self.sigma_ratio <= 10.0:
            raise InputError(f"value.sigma_ratio is {self.sigma_ratio}: choose 0.3 to 10 (0.75 is usual)")
        if self.bins - 2 * self.pad_bins < 2:
            raise InputError(
                f"value.bins is {self.bins}: sigma_ratio {self.sigma_ratio} needs {2 * self.pad_bins + 2}"
            )

    @property
    def pad_bins(self) -> int:
        """Bins outside [-1, 1] on each side."""
        return math.ceil(_PAD_SIGMAS * self.sigma_ratio)

    @property
    def width(self) -> float:
        """Width of one bin, in units of value."""
        return 2.0 / (self.bins - 2 * self.pad_bins)

    @property
    def sigma(self) -> float:
        """Standard deviation of the smoothing normal, in units of value."""
        return self.sigma_ratio * self.width

    def edges(self, like: Tensor) -> Tensor:
        """[bins + 1] bin edges, on the device and in the float type of `like`."""
        limit = 1.0 + self.pad_bins * self.width
        return _evenly(limit, self.bins + 1, like.device, like.dtype)

    def centers(self, like: Tensor) -> Tensor:
        """[bins] bin centres, symmetric around 0."""
        limit = 1.0 + (self.pad_bins - 0.5) * self.width
        return _evenly(limit, self.bins, like.device, like.dtype)

    def project(self, target: Tensor) -> Tensor:
        """Masses [..., bins] (float32 or float64, sum 1) of targets [...] in [-1, 1].

        mass_i = (F(edge_{i+1}) - F(edge_i)) / (F(edge_last) - F(edge_0)), F the normal cdf around the target
        (Imani & White 2018). Raises InputError for a target outside [-1, 1] or not finite.
        """
        target = checked_target(target).unsqueeze(-1)
        cdf = torch.erf((self.edges(target) - target) / (self.sigma * math.sqrt(2.0)))
        return (cdf[..., 1:] - cdf[..., :-1]) / (cdf[..., -1:] - cdf[..., :1])

    def expectation(self, masses: Tensor) -> Tensor:
        """[...] expected bin centre of masses [..., bins], clipped to [-1, 1]: the inverse of `project`."""
        return (masses @ self.centers(masses)).clamp(-1.0, 1.0)


@lru_cache(maxsize=64)
def _evenly(limit: float, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``count`` numbers from -limit to limit. A tensor first made in inference mode could not be trained
    with.
    """
    with torch.inference_mode(False):
        return torch.linspace(-limit, limit, count, device=device, dtype=dtype)


def checked_target(target: Tensor) -> Tensor:
    """The targets as float32 (float64 stays) and clipped to [-1, 1].

    Raises InputError when one is not finite or outside by more than 1e-5; less than that is rounding.
    """
    target = target if target.dtype == torch.float64 else target.float()
    limit = 1.0 + _TARGET_TOLERANCE
    bad = ~((target >= -limit) & (target <= limit))
    if bool(bad.any()):
        first = float(target[bad].flatten()[0])
        raise InputError(f"value target {first} is outside [-1, 1]: outcomes are 2 * score - 1")
    return target.clamp(-1.0, 1.0)
