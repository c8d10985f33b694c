"""What a run asks about answers beside its nets: judges, rewards of answers and edges, detectors of an end.

They are opened once, from the config alone, and forget between rounds what a resumed run would not know. It
binds parts of ``value`` and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenzero.policy.student import Student
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.edge_rewards import EdgeRewards
from tokenzero.value import Judge
from tokenzero.value.answer_length import CountTokens
from tokenzero.value.judge import close, forget
from tokenzero.value.judge_config import build_judge
from tokenzero.value.reward_config import build_rewards
from tokenzero.value.reward_mix import CombinedReward
from tokenzero.value.terminal import CombinedDetector
from tokenzero.value.terminal_config import TerminalConfig, TerminalParts, build_terminal


@dataclass
class Assessment:
    """The parts that a config names; None for those it does not."""

    judge: Judge | None = None
    audit_judge: Judge | None = None
    rewards: CombinedReward | None = None
    terminal: CombinedDetector | None = None
    edge_rewards: EdgeRewards | None = None

    @classmethod
    def open(cls, config: SelfPlayConfig, student: Student) -> Assessment:
        """Raises InputError for files, models, functions and servers that cannot be opened."""
        edges = config.edge_rewards
        return cls(
            judge=build_judge(config.judge) if config.judge is not None else None,
            audit_judge=build_judge(config.audit_judge) if config.audit_judge is not None else None,
            rewards=build_rewards(config.rewards, count_tokens=counter(student)) if config.rewards else None,
            terminal=detectors(config.terminal, student),
            edge_rewards=EdgeRewards.open(edges, student) if edges is not None else None,
        )

    def failures(self) -> dict[str, int]:
        """What could not be judged, scored or detected so far, by whom."""
        told: dict[str, int] = {}
        for role, judge in (("judge", self.judge), ("audit_judge", self.audit_judge)):
            if judge is not None:
                told[role] = judge.failures
        if self.rewards is not None:
            told |= {f"reward {name}": n for name, n in self.rewards.failures_by_part.items() if n}
        if self.terminal is not None:
            told |= {f"detector {name}": n for name, n in self.terminal.failures_by_detector.items() if n}
        return told

    def rest(self) -> None:
        """The round is over: remembered verdicts would be free in the next one."""
        for judge in (self.judge, self.audit_judge):
            if judge is not None:
                forget(judge)
        if self.edge_rewards is not None:
            self.edge_rewards.close()

    def close(self) -> None:
        """Let go of what the judges hold open."""
        for judge in (self.judge, self.audit_judge):
            if judge is not None:
                close(judge)

    def record(self, before: dict[str, int]) -> dict[str, Any]:
        """What a round's record says: failures since ``before``."""
        return {name: count - before.get(name, 0) for name, count in self.failures().items()}


def detectors(configs: list[TerminalConfig], student: Student) -> CombinedDetector | None:
    """What ends an answer, any of ``configs``; None without any."""
    if not configs:
        return None
    end = student.tokenizer.eos_token
    return build_terminal(configs, TerminalParts(end_token=end or "", count_tokens=counter(student)))


def counter(student: Student) -> CountTokens:
    """Counts a text in the student's tokens."""
    return lambda text: len(student.tokenizer(text, add_special_tokens=False).input_ids)
