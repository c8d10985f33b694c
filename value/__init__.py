"""What a state is worth: value head, training targets, judges and rollouts.

It does not search, sample or train; selfplay/ binds these parts together.
"""

from tokenzero.value.head import ValueConfig, ValueHead
from tokenzero.value.hl_gauss import HLGauss
from tokenzero.value.judge import CachedJudge, Judge, Rule, RuleJudge, predicate, shift
from tokenzero.value.rollout import Rollout, blend
from tokenzero.value.targets import mix_targets

__all__ = [
    "CachedJudge",
    "HLGauss",
    "Judge",
    "Rollout",
    "Rule",
    "RuleJudge",
    "ValueConfig",
    "ValueHead",
    "blend",
    "mix_targets",
    "predicate",
    "shift",
]
