"""What a state is worth: value head, targets, judges, rollouts, rewards and the end of answers.

It does not search, sample or train; selfplay/ binds these parts together.
"""

from tokenzero.value.agreement import Agreement, agreement_of_verdicts
from tokenzero.value.cached_judge import CachedJudge
from tokenzero.value.constitution import Constitution, load_constitution
from tokenzero.value.function_judge import FunctionJudge, NoisyJudge
from tokenzero.value.head import ValueConfig, ValueHead
from tokenzero.value.hl_gauss import HLGauss
from tokenzero.value.judge import Judge, shift
from tokenzero.value.judge_combination import JudgeCombination
from tokenzero.value.label_judge import LabelJudge
from tokenzero.value.predicates import predicate
from tokenzero.value.preferences import Preference, read_preferences, split_by_prompt, write_preferences
from tokenzero.value.remote_judge import RemoteJudge, RemoteJudgeConfig
from tokenzero.value.reward_config import RewardConfig, build_rewards
from tokenzero.value.reward_judge import RewardJudge, calibrated_thresholds
from tokenzero.value.reward_mix import CombinedReward, Scores
from tokenzero.value.rewards import Given, Reward
from tokenzero.value.rollout import Rollout, blend
from tokenzero.value.rule_judge import Rule, RuleJudge
from tokenzero.value.targets import mix_targets
from tokenzero.value.terminal import CombinedDetector, Detections, Detector
from tokenzero.value.terminal_config import TerminalConfig, TerminalParts, build_terminal

__all__ = [
    "Agreement",
    "CachedJudge",
    "CombinedDetector",
    "CombinedReward",
    "Constitution",
    "Detections",
    "Detector",
    "FunctionJudge",
    "Given",
    "HLGauss",
    "Judge",
    "JudgeCombination",
    "LabelJudge",
    "NoisyJudge",
    "Preference",
    "RemoteJudge",
    "RemoteJudgeConfig",
    "Reward",
    "RewardConfig",
    "RewardJudge",
    "Rollout",
    "Rule",
    "RuleJudge",
    "Scores",
    "TerminalConfig",
    "TerminalParts",
    "ValueConfig",
    "ValueHead",
    "agreement_of_verdicts",
    "blend",
    "build_rewards",
    "build_terminal",
    "calibrated_thresholds",
    "load_constitution",
    "mix_targets",
    "predicate",
    "read_preferences",
    "shift",
    "split_by_prompt",
    "write_preferences",
]
