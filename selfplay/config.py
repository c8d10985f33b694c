"""Everything a self-play run is told, as one frozen record of records.

Each folder defines the options of its own part; this file puts them together and checks what only the whole
can know. Reading YAML and refusing unknown keys is the front door's work (``tokenzero/config.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import PretrainConfig
from tokenzero.policy.tiers import EngineConfig
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.edge_rewards import EdgeRewardConfig
from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.selfplay.play_config import PlayConfig
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.teachers import EnsembleConfig
from tokenzero.teachers.kinds import TeacherConfig
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.value import ValueConfig
from tokenzero.value.judge_config import JudgeConfig
from tokenzero.value.reward_config import RewardConfig
from tokenzero.value.terminal_config import TerminalConfig

TRACKERS = ("tensorboard", "wandb", "trackio")
"""What ``tracking`` may name: see ``tracking``."""

RewardKind = Annotated[RewardConfig, Field(discriminator="kind")]
TerminalKind = Annotated[TerminalConfig, Field(discriminator="kind")]

FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class TaskConfig:
    """A task of the registry by ``name`` and its ``options``."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    name: str = "countdown"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """The student. ``load`` names a directory or hub model; otherwise ``architecture`` (a transformers config
    with ``model_type``) is built with random weights. ``tokenizer`` is a spec, or None for the task's own
    fixed vocabulary.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    load: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] | None = None
    value: ValueConfig = field(default_factory=ValueConfig)

    def __post_init__(self) -> None:
        if (self.load is None) == (not self.architecture):
            raise InputError(
                "model needs exactly one of 'load' (a directory or hub name) and 'architecture' "
                "(a config with model_type)"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation after each round: ``problems`` of ``split``, greedy and with ``simulations``; 0
    problems turns it off.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    split: str = "validation"
    problems: int = 1000
    search_problems: int = 200
    simulations: int = 16

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise InputError(f"evaluation.split is {self.split!r}; use validation or test")
        if min(self.problems, self.search_problems, self.simulations) < 0:
            raise InputError("evaluation.problems, search_problems and simulations must not be negative")


@dataclass(frozen=True)
class SelfPlayConfig:
    """A run. ``threads`` fixes torch's threads, because the last bits depend on it. ``teachers`` are heard as
    ``ensemble`` says. ``judge`` shifts the values of leaves by ``play.leaf.judge_eta``; ``audit_judge`` gives
    its verdicts on finished answers for ``tokenzero audit`` alone. ``rewards`` are what answers to training
    problems are worth, where that is not the task's verifier alone; ``edge_rewards`` add the fluency
    of partial answers to the Q of PUCT and Gumbel search; ``terminal`` what ends an answer beside
    the task's own rules. ``keep`` says what stays on disk, ``tracking`` who else is told the records:
    "tensorboard", "wandb", "trackio".
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    model: ModelConfig
    task: TaskConfig = field(default_factory=TaskConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    play: PlayConfig = field(default_factory=PlayConfig)
    teachers: list[TeacherConfig] = field(default_factory=list)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    judge: JudgeConfig | None = None
    audit_judge: JudgeConfig | None = None
    rewards: list[RewardKind] = field(default_factory=list)
    edge_rewards: EdgeRewardConfig | None = None
    terminal: list[TerminalKind] = field(default_factory=list)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    arena: ArenaConfig = field(default_factory=ArenaConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    keep: RetentionConfig = field(default_factory=RetentionConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    tracking: list[str] = field(default_factory=list)
    rounds: int = 12
    seed: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.threads < 1 or self.seed < 0:
            raise InputError(
                f"rounds is {self.rounds}, threads {self.threads}, seed {self.seed}; "
                "give rounds and seed >= 0, threads >= 1"
            )
        if self.pretrain.steps and not self.pretrain.demonstrations:
            raise InputError(
                f"pretrain.steps is {self.pretrain.steps} and pretrain.demonstrations is 0, so there is "
                "nothing to train on; give some demonstrations, or 0 steps"
            )
        for name in self.tracking:
            if name not in TRACKERS or self.tracking.count(name) > 1:
                raise InputError(f"tracking lists {name!r}; list each of {', '.join(TRACKERS)} at most once")
        self._check_teachers()
        if self.judge is not None and self.play.leaf.judge_eta > 0:
            self._check_targets("a judge shifts the leaves", "play.leaf.judge_eta")
        if self.edge_rewards is not None:
            self._check_targets("edges have rewards", "edge_rewards")
            if self.play.search.method == "frontier":
                raise InputError(
                    "edge_rewards are added to Q, and frontier search has no Q; use method puct or gumbel"
                )

    def _check_targets(self, shift: str, option: str) -> None:
        """Value targets hold outcomes, never what search was shown beside them."""
        play = self.play
        if self.learner.root_value_mix > 0:
            raise InputError(
                f"learner.root_value_mix is above 0 while {shift}, which would enter the value target; "
                f"set root_value_mix to 0, or leave {option} out"
            )
        if play.targets == "tree" and play.search.method != "frontier":
            raise InputError(
                f'play.targets is "tree" with method {play.search.method} while {shift}, which would enter '
                f'the value target; use targets "path", or leave {option} out'
            )

    def _check_teachers(self) -> None:
        counted = any(isinstance(teacher, NgramConfig) and teacher.counted for teacher in self.teachers)
        if counted and not self.pretrain.demonstrations:
            raise InputError(
                "an ngram teacher is counted on the demonstrations, and pretrain.demonstrations is 0; "
                "give some, or leave the teacher out"
            )
        names = [teacher.name for teacher in self.teachers]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two teachers are called {name}; list each once, or give one a label")
