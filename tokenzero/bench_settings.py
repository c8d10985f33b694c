"""What a benchmark plays: methods, each with several budgets.

It plays nothing: see ``bench_outcomes``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenzero.config import Values
from tokenzero.mcts.errors import InputError
from tokenzero.method_options import check_options, config_of
from tokenzero.selfplay.methods import SEARCHES, MethodConfig

SIMULATIONS = (0, 4, 16, 64)
SAMPLES = (1, 2, 4, 8, 16, 32, 64)
SINGLE = ("greedy", "sample")
"""Methods without a budget."""


@dataclass(frozen=True)
class Setting:
    """A method with its options and one budget."""

    config: MethodConfig

    @property
    def method(self) -> str:
        """Its name."""
        assert self.config.method is not None
        return self.config.method

    @property
    def simulations(self) -> int:
        """0 for methods without a tree."""
        return self.config.simulations or 0

    @property
    def n(self) -> int:
        """1 for methods that give one answer."""
        return self.config.n or 1

    @property
    def label(self) -> str:
        """As in "gumbel 16" or "best-of-n 8"."""
        budget = self.config.simulations or self.config.n
        return self.method if budget is None else f"{self.method} {budget}"

    @property
    def draws(self) -> bool:
        """Whether another seed may answer otherwise. Searches over tokens add no noise at test time, but for
        frontier search, which draws its play-outs.
        """
        fixed = self.method in ("greedy", "beam", "puct", "gumbel")
        return not fixed or self.config.granularity != "token"

    def rng(self, seed: int) -> np.random.Generator:
        """Its own random stream, so that an outcome does not depend on which others are asked for."""
        return np.random.default_rng([seed, zlib.crc32(self.method.encode()), self.simulations, self.n])


def settings_of(
    methods: Sequence[str],
    simulations: Sequence[int],
    samples: Sequence[int],
    options: Values | None = None,
) -> list[Setting]:
    """Each of ``methods`` with each budget: a tree search with each of ``simulations`` above 0, others with
    each of ``samples``. An option goes to the methods that know it.

    Raises InputError for a negative number of simulations, for a sample size below 1, for unknown methods and
    options, or when nothing is left.
    """
    given = options or {}
    if min(simulations, default=0) < 0:
        raise InputError(f"simulations {min(simulations)} is negative; give numbers of at least 0")
    if min(samples, default=1) < 1:
        raise InputError(f"samples {min(samples)} is below 1; give numbers of at least 1")
    check_options(methods, given)
    found = [
        Setting(config_of(method, given, **budget))
        for method in dict.fromkeys(methods)
        for budget in _budgets(method, simulations, samples)
    ]
    if not found:
        raise InputError("nothing to measure; give at least one number of simulations or samples")
    return found


def beside_greedy_and_samples(searches: Sequence[str], simulations: Sequence[int]) -> list[str]:
    """The methods of a bench for which nobody named all: greedy where 0 simulations are asked for,
    ``searches``, and best-of-N.
    """
    return [*(["greedy"] if 0 in simulations else []), *searches, "best-of-n"]


def _budgets(method: str, simulations: Sequence[int], samples: Sequence[int]) -> list[dict[str, int]]:
    if method in SINGLE:
        return [{}]
    if method in SEARCHES:
        return [{"simulations": count} for count in dict.fromkeys(simulations) if count > 0]
    return [{"n": count} for count in dict.fromkeys(samples)]
