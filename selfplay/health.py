"""Alarms: what of a round's health is beyond its threshold, and what is to be done about it.

``check`` compares the measures of ``health_measures`` with the thresholds of a ``HealthConfig``, some of them
relative to the run's own earlier rounds. It names the consequence; carrying it out is the run's work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, ClassVar, NamedTuple

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.health_measures import Probe, measure, probe

__all__ = ["ACTIONS", "ALARMS", "Alarm", "HealthConfig", "Probe", "check", "measure", "probe"]

ACTIONS = ("ignore", "warn", "raise_entropy", "lower_lr", "roll_back", "stop")
"""Consequences, from the mildest to the gravest."""

NOT_FINITE = "not_finite"
EARLIER = "earlier"


class _Rule(NamedTuple):
    """An alarm: the measure of that ``name`` is too high (``above``) or too low. ``times`` says what the
    threshold is a multiple of: one, the median of earlier rounds (EARLIER), or another measure. The first
    ``grace`` such measures of a run are not judged.
    """

    name: str
    above: bool
    advice: str
    times: str = ""
    grace: int = 0


_RULES = (
    _Rule(
        "policy_calibration_error",
        True,
        "the policy is surer of its answers than they are right; raise learner.entropy_weight",
    ),
    _Rule(
        "value_calibration_error",
        True,
        "values are not what games come to; raise learner.value_weight or play more games a round",
        grace=1,
    ),
    _Rule(
        "value_explained_variance",
        False,
        "the value head cannot tell won from lost; check the value targets, raise learner.value_weight",
        grace=1,
    ),
    _Rule(
        "value_loss_unseen",
        True,
        "the value head knows by heart what it has seen; play more games a round, or fewer learner.steps",
        times="value_loss_seen",
    ),
    _Rule(
        "overconfidence",
        True,
        "the policy is far surer of its next tokens than it is right; lower the rate, raise "
        "learner.entropy_weight or learn from a less greedy objective",
    ),
    _Rule("confidence", True, "the policy is all but certain of every token; raise learner.entropy_weight"),
    _Rule("entropy", False, "the policy has collapsed; raise learner.entropy_weight or go back a round"),
    _Rule(
        "entropy_min",
        False,
        "to some problems the policy has one answer left; raise learner.entropy_weight",
    ),
    _Rule(
        "distinct_predictions",
        False,
        "the policy expects the same few tokens everywhere; go back a round, lower the rate or raise "
        "learner.entropy_weight",
    ),
    _Rule(
        "gradient_norm",
        True,
        "gradients are beyond what this run is used to; lower optimizer.lr or go back a round",
        times=EARLIER,
    ),
    _Rule(
        "gradient_variance",
        True,
        "gradients change wildly from step to step; lower optimizer.lr or raise optimizer.batch_size",
    ),
    _Rule(
        "kl_from_reference",
        True,
        "the policy has left the warm start far behind; raise learner.kl_weight or lower optimizer.lr",
    ),
    _Rule(
        "duplicate_answers",
        True,
        "most games repeat one another; add training problems or raise exploration",
    ),
    _Rule(
        "target_entropy",
        False,
        "search has become certain of nearly every move; check that problems differ and raise exploration",
        times=EARLIER,
    ),
    _Rule("all_won", True, "nearly every problem is won, little is left to learn; take harder problems"),
    _Rule(
        "all_lost",
        True,
        "nearly every problem is lost, nothing is left to imitate; take easier problems or search longer",
    ),
)

ALARMS = (NOT_FINITE, *(rule.name for rule in _RULES))
"""Names of the alarms. All but ``not_finite`` (some measure is NaN or infinite) are a measure's."""


@dataclass(frozen=True)
class Alarm:
    """A measure beyond its threshold. ``name`` is one of ``ALARMS``, ``action`` one of ``ACTIONS`` but
    "ignore"; ``message`` is one line that says what to do.
    """

    name: str
    value: float
    threshold: float
    action: str
    message: str


@dataclass(frozen=True)
class HealthConfig:
    """When an alarm is raised, and what follows.

    Each threshold has the name of its alarm. An alarm is raised above it; for ``value_explained_variance``,
    ``entropy``, ``entropy_min``, ``distinct_predictions`` and ``target_entropy``, below it. Three are
    factors: ``gradient_norm`` and ``target_entropy`` of the median of the run's earlier rounds,
    ``value_loss_unseen`` of the loss on games learnt from. The defaults lie between the extremes of healthy
    runs and what spoiled ones reach, both as ``benchmarks/health_alarms.py`` measures them (Gumbel and
    frontier search on small Countdown); those of ``overconfidence`` and ``distinct_predictions``, which only
    the text game has, as ``benchmarks/text_arms.py`` does.

    ``actions`` maps an alarm to its consequence; those not named are a "warn", and ``not_finite`` a "stop".
    "ignore" turns an alarm off. "raise_entropy" adds ``entropy_bonus`` (nats' weight in the loss) to
    learner.entropy_weight, "lower_lr" multiplies the learning rate by ``lr_factor``. ``games`` of each kind
    are probed each round; 0 turns the measures that need a forward off.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    games: int = 512
    policy_calibration_error: float = 0.2
    value_calibration_error: float = 0.25
    value_explained_variance: float = 0.015
    value_loss_unseen: float = 2.0
    overconfidence: float = 0.25
    confidence: float = 0.98
    entropy: float = 0.05
    entropy_min: float = 0.02
    distinct_predictions: float = 0.15
    gradient_norm: float = 4.0
    gradient_variance: float = 0.5
    kl_from_reference: float = 2.0
    duplicate_answers: float = 0.5
    target_entropy: float = 0.25
    all_won: float = 0.99
    all_lost: float = 0.99
    actions: dict[str, str] = field(default_factory=dict)
    entropy_bonus: float = 0.01
    lr_factor: float = 0.5

    def __post_init__(self) -> None:
        if self.games < 0:
            raise InputError(f"health.games is {self.games}; give a number of at least 0")
        for rule in _RULES:
            if not math.isfinite(getattr(self, rule.name)):
                raise InputError(
                    f"health.{rule.name} is {getattr(self, rule.name)}; give a finite threshold, or turn the "
                    f"alarm off with health.actions.{rule.name}=ignore"
                )
        for name, action in self.actions.items():
            if name not in ALARMS:
                raise InputError(f"health.actions has {name!r}; the alarms are {', '.join(ALARMS)}")
            if action not in ACTIONS:
                raise InputError(f"health.actions.{name} is {action!r}; use one of {', '.join(ACTIONS)}")
        if self.entropy_bonus < 0 or not 0 < self.lr_factor < 1:
            raise InputError(
                f"health.entropy_bonus is {self.entropy_bonus} and lr_factor {self.lr_factor}; give a bonus "
                "of at least 0 and a factor between 0 and 1"
            )

    def action(self, alarm: str) -> str:
        """The consequence of ``alarm``."""
        return self.actions.get(alarm, "stop" if alarm == NOT_FINITE else "warn")


def check(
    health: Mapping[str, float], history: Sequence[Mapping[str, float]], config: HealthConfig
) -> list[Alarm]:
    """The alarms of a round with measures ``health``, given the measures of the run's earlier rounds, in the
    order of ``ALARMS``. A measure that is not there raises none; nor does a relative one without anything to
    compare it with.
    """
    alarms = [_not_finite(health, config)]
    alarms += [_alarm(rule, health, history, config) for rule in _RULES]
    return [alarm for alarm in alarms if alarm is not None and alarm.action != "ignore"]


def _not_finite(health: Mapping[str, float], config: HealthConfig) -> Alarm | None:
    wrong = [name for name, value in health.items() if not math.isfinite(value)]
    if not wrong:
        return None
    value = health[wrong[0]]
    message = (
        f"{', '.join(wrong)} not finite: the training has diverged; lower optimizer.lr and go back a round"
    )
    return Alarm(NOT_FINITE, value, math.inf, config.action(NOT_FINITE), message)


def _alarm(
    rule: _Rule, health: Mapping[str, float], history: Sequence[Mapping[str, float]], config: HealthConfig
) -> Alarm | None:
    value, unit = health.get(rule.name), _unit(rule, health, history)
    if value is None or unit is None or not math.isfinite(value):
        return None
    if sum(rule.name in past for past in history) < rule.grace:
        return None
    threshold = getattr(config, rule.name) * unit
    if not (value > threshold if rule.above else value < threshold):
        return None
    side = "above" if rule.above else "below"
    message = f"{rule.name} is {value:.3g}, {side} {threshold:.3g}: {rule.advice}"
    return Alarm(rule.name, value, threshold, config.action(rule.name), message)


def _unit(rule: _Rule, health: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> float | None:
    """What the threshold is a multiple of; None when the run has no such thing yet."""
    if not rule.times:
        return 1.0
    if rule.times == EARLIER:
        before = [past[rule.name] for past in history if math.isfinite(past.get(rule.name, math.nan))]
        return median(before) if before else None
    unit = health.get(rule.times)
    return unit if unit is not None and math.isfinite(unit) else None
