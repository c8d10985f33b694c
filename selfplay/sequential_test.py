"""Is the candidate better than the incumbent? A paired sequential test on problems that both answered.

Null hypothesis: both solve the same share of problems. Alternative: the candidate solves ``margin`` more
(0.03 is three points). A pair is a win (only the candidate solved the problem), a loss (only the incumbent)
or a tie. How often the two disagree is not known beforehand, so the statistic is a generalised likelihood
ratio: the likelihood of the counts, maximised over that rate under each hypothesis (generalised sequential
probability ratio test: Li, Liu and Ying, Sequential Analysis 33, 2014; chess engines are tested like this in
fishtest). The candidate is promoted when the ratio reaches 1 / alpha, dropped for futility when it falls to
beta. Were the rate of disagreement known, Ville's inequality would bound both errors by alpha and beta at
every batch size; that they hold when it is estimated is measured in ``benchmarks/arena_error_rates.py``. The
test ends at ``max_problems`` in any case, and then the incumbent stays.

What to expect. The number that matters is d, the share of pairs that are no ties. A test of fixed size needs
(z_alpha + z_beta)^2 (d - margin^2) / margin^2 problems. With alpha 0.05 and beta 0.2 this test uses on
average 42 to 44 % of what a test of fixed size with the same measured rates would when nothing changed, 58 to
62 % when the candidate is better by exactly the margin, and 26 to 28 % at twice the margin. No test can do
much better: at 5 % and 20 % the least possible is 43 and 62 % (Wald and Wolfowitz, Annals of Mathematical
Statistics 19, 1948). Under half in both cases is possible only at stricter rates; with 0.02 and 0.02 it is
46 to 49 %. For a power of 0.8, ``max_problems`` must be about 14 d / margin^2: 1600 at d = 0.1, 3100 at 0.2,
4700 at 0.3.

It knows neither models nor tasks, and draws nothing at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError

F64 = npt.NDArray[np.float64]
Outcome = Literal["promote", "keep"]
Reason = Literal["evidence", "futility", "no problems left"]


@dataclass(frozen=True)
class SequentialTestConfig:
    """What is tested and how surely: ``margin`` in accuracy (0.03 is three points), ``alpha`` the largest
    share of false promotions, ``beta`` the largest share of candidates better by the margin that are dropped
    for futility.

    ``batch`` is the number of problems between two looks; ``max_problems`` ends the test. Raises InputError,
    also when ``max_problems`` is below `least_problems`.
    """

    margin: float = 0.03
    alpha: float = 0.05
    beta: float = 0.2
    batch: int = 25
    max_problems: int = 5000

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise InputError(f"margin is {self.margin}; give a difference of accuracies between 0 and 1")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < 0.5:
                raise InputError(f"{name} is {getattr(self, name)}; give a rate above 0 and below 0.5")
        for name in ("batch", "max_problems"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1 problem")
        self.check_problems(self.max_problems)

    @property
    def least_problems(self) -> int:
        """The fewest problems on which anyone can be promoted: each win, with nothing but wins, brings
        log(1 + margin).
        """
        return math.ceil(-math.log(self.alpha) / math.log1p(self.margin))

    def check_problems(self, count: int) -> None:
        """Raise InputError when nobody can be promoted on ``count`` problems."""
        if count < self.least_problems:
            raise InputError(
                f"on {count} problems nobody can be promoted at margin {self.margin} and alpha {self.alpha}; "
                f"give at least {self.least_problems} problems or a larger margin"
            )


@dataclass(frozen=True)
class Pairs:
    """Counts of paired outcomes: ``wins`` (only the candidate solved it), ``losses``, ``ties`` (both or
    neither).
    """

    wins: int = 0
    losses: int = 0
    ties: int = 0

    @classmethod
    def of(cls, candidate: npt.NDArray[np.bool_], incumbent: npt.NDArray[np.bool_]) -> Pairs:
        """Count two bool arrays [n] of solved problems, same order. Raises InputError for anything else."""
        if candidate.ndim != 1 or candidate.shape != incumbent.shape:
            raise InputError(
                f"the outcomes have shapes {candidate.shape} and {incumbent.shape}; give one for each problem"
            )
        if candidate.dtype != np.bool_ or incumbent.dtype != np.bool_:
            raise InputError(
                f"the outcomes have types {candidate.dtype} and {incumbent.dtype}; give bool arrays"
            )
        wins, losses = int((candidate & ~incumbent).sum()), int((incumbent & ~candidate).sum())
        return cls(wins, losses, len(candidate) - wins - losses)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.wins + other.wins, self.losses + other.losses, self.ties + other.ties)

    @property
    def problems(self) -> int:
        """How many problems were answered by both."""
        return self.wins + self.losses + self.ties

    @property
    def difference(self) -> float:
        """Accuracy of the candidate minus that of the incumbent; 0 without problems."""
        return (self.wins - self.losses) / max(1, self.problems)

    @property
    def ci95(self) -> tuple[float, float]:
        """Interval of 95 % for the difference: the adjusted Wald interval for paired data of Bonett and Price
        (Journal of Educational and Behavioral Statistics 37, 2012). It takes the number of problems as given,
        so after a test that stopped early the true coverage is somewhat lower.
        """
        n = self.problems + 2
        won, lost = (self.wins + 1) / n, (self.losses + 1) / n
        centre = won - lost
        spread = 1.959964 * math.sqrt((won + lost - centre * centre) / n)
        return max(-1.0, centre - spread), min(1.0, centre + spread)

    def as_dict(self) -> dict[str, Any]:
        """Counts, difference and interval, ready for JSON."""
        return {
            "problems": self.problems,
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            "difference": self.difference,
            "ci95": list(self.ci95),
        }


@dataclass(frozen=True)
class Decision:
    """How a test ended, on which counts. ``llr`` is the log likelihood ratio in nats at that moment."""

    outcome: Outcome
    reason: Reason
    pairs: Pairs
    llr: float

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"outcome": self.outcome, "reason": self.reason, "llr": self.llr, **self.pairs.as_dict()}


class SequentialTest:
    """One test. It looks once per call of `add`, and is over when it has given a `Decision`."""

    def __init__(self, config: SequentialTestConfig | None = None) -> None:
        self.config = config or SequentialTestConfig()
        self.pairs = Pairs()
        self.decision: Decision | None = None

    @property
    def next_batch(self) -> int:
        """How many problems to play before the next look; 0 when the test is over."""
        if self.decision is not None:
            return 0
        return min(self.config.batch, self.config.max_problems - self.pairs.problems)

    @property
    def llr(self) -> float:
        """The log likelihood ratio of what was seen, in nats; positive speaks for the candidate."""
        pairs = self.pairs
        return float(log_likelihood_ratio(pairs.wins, pairs.losses, pairs.ties, self.config.margin))

    def add(self, candidate: npt.NDArray[np.bool_], incumbent: npt.NDArray[np.bool_]) -> Decision | None:
        """Count a batch, bool [n] each (who solved which problem, same order), and look. None: play on.

        Raises InputError when the arrays are not that, when they hold more problems than the test may use, or
        when the test is over.
        """
        if self.decision is not None:
            raise InputError("the test is over; begin another one")
        pairs = self.pairs + Pairs.of(candidate, incumbent)
        config = self.config
        if pairs.problems > config.max_problems:
            raise InputError(
                f"{pairs.problems} problems are more than max_problems {config.max_problems}; "
                "give no more than next_batch"
            )
        self.pairs = pairs
        if self.llr >= -math.log(config.alpha):
            return self._decide("promote", "evidence")
        if self.llr <= math.log(config.beta):
            return self._decide("keep", "futility")
        if pairs.problems == config.max_problems:
            return self.finish()
        return None

    def finish(self) -> Decision:
        """End the test for want of problems: the incumbent stays. A test that is over keeps its decision."""
        return self.decision or self._decide("keep", "no problems left")

    def _decide(self, outcome: Outcome, reason: Reason) -> Decision:
        self.decision = Decision(outcome, reason, self.pairs, self.llr)
        return self.decision


def log_likelihood_ratio(
    wins: npt.ArrayLike, losses: npt.ArrayLike, ties: npt.ArrayLike, margin: float
) -> F64:
    """Log of the largest likelihood with P(win) = P(loss) + ``margin`` over that with P(win) = P(loss), in
    nats.

    Counts broadcast; f64 of their shape, 0 where there are none. Setting the derivative of the first to zero
    gives 2 n x^2 - ((W + L)(1 - margin) - 2 margin (L + T)) x - margin (1 - margin) L = 0 for the rate x of
    losses, of which the root that is not negative is wanted; under the second, wins and losses have the rate
    (W + L) / 2n.
    """
    won, lost, tied = (np.asarray(count, np.float64) for count in (wins, losses, ties))
    n = np.maximum(won + lost + tied, 1.0)
    half = (won + lost) * (1 - margin) - 2 * margin * (lost + tied)
    root = np.sqrt(half * half + 8 * n * margin * (1 - margin) * lost)
    # Of two equal forms the one that does not subtract: root - |half| would lose the digits of a small rate.
    product = 2 * margin * (1 - margin) * lost
    below = product / np.where(half < 0, root - half, 1.0)
    rate = np.where(half < 0, below, (half + root) / (4 * n))
    rate = np.minimum(rate, (1 - margin) / 2)  # without ties it is the end of the range, up to rounding
    apart = (won + lost) / n
    better = _log_power(rate + margin, won) + _log_power(rate, lost) + _log_power(1 - margin - 2 * rate, tied)
    same = _log_power(apart / 2, won + lost) + _log_power(1 - apart, tied)
    return np.asarray(better - same)


def fixed_size(discordance: float, margin: float, alpha: float, beta: float) -> float:
    """Problems that a one-sided McNemar test of fixed size needs for the same question, the share
    ``discordance`` of pairs that are no ties known beforehand: (z_alpha + z_beta)^2 (d - margin^2) / margin^2
    (Connor, Biometrics 43, 1987, with the variance under the alternative in both terms).

    Raises InputError when pairs cannot disagree so seldom and differ by the margin.
    """
    if not margin <= discordance <= 1:
        raise InputError(f"discordance is {discordance}; give a share from the margin {margin} to 1")
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(1 - beta)
    return z * z * (discordance - margin * margin) / (margin * margin)


def _log_power(rate: F64, count: F64) -> F64:
    """count * log(rate), and 0 for no counts at whatever rate."""
    return np.where(count > 0, count * np.log(np.where(count > 0, rate, 1.0)), 0.0)
