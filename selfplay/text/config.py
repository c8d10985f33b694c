"""Everything a text game is told, as one frozen record of records.

Reading YAML and refusing unknown keys is the front door's work (``tokenzero/config.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig
from tokenzero.policy.tiers import EngineConfig
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.config import ModelConfig
from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.value.text_rewards import TextRewardConfig

OBJECTIVES = (
    "cross-entropy",
    "expected-reward",
    "clipped",
    "group-relative",
    "product-of-experts",
    "visits",
)
FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class RefereeConfig:
    """Who says how likely text is while the student learns: an n-gram table of ``order`` counted on the
    training split, or the model ``load``, of the same tokenizer. With ``held_out`` the table forgets, of
    the training text, the very occurrence it is asked about.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    order: int = 5
    held_out: bool = True
    load: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 6:
            raise InputError(f"referee.order is {self.order}; give 1 to 6")


@dataclass(frozen=True)
class ContextSearchConfig:
    """A tree over each of ``contexts`` contexts, drawn from all that are played together
    (``learner.refresh`` batches; None: every one): paths of up to ``depth`` tokens among ``candidates`` of
    the student and of the referee, whose opinion has share ``beta``.

    An edge is worth its reward (see ``value.text_rewards``), faded by ``discount`` a token; below a leaf
    stands ``value_share`` of the learned value. The target at the root is softmax(log prior + ``strength`` *
    completed Q), Q in nats, or with ``target`` "visits" the normalised visits of PUCT.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    simulations: int = 8
    depth: int = 2
    candidates: int = 8
    contexts: int | None = None
    beta: float = 0.5
    discount: float = 0.5
    value_share: float = 0.5
    strength: float = 1.0
    target: Literal["completed-q", "visits"] = "completed-q"

    def __post_init__(self) -> None:
        for name in ("simulations", "depth", "candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"search.{name} is {getattr(self, name)}; give at least 1")
        if self.contexts is not None and self.contexts < 1:
            raise InputError(f"search.contexts is {self.contexts}; give at least 1, or null for all")
        for name in ("beta", "discount", "value_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"search.{name} is {getattr(self, name)}; give a number from 0 to 1")
        if self.strength < 0:
            raise InputError(f"search.strength is {self.strength}; give a number of at least 0")


@dataclass(frozen=True)
class TextLearnerConfig:
    """What is minimised: one of OBJECTIVES, on ``optimizer.batch_size`` windows of ``context`` tokens a step,
    ``steps`` of them a round.

    Policy gradients draw ``samples`` actions at each context from the policy of ``refresh`` steps ago at
    most, and keep the ratio of probabilities within 1 +- ``clip``. ``entropy_weight`` is the bonus of
    entropy, ``kl_weight`` the weight of KL(policy, referee); ``value_weight`` that of the learned value's
    loss.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    objective: str = "visits"
    steps: int = 100
    context: int = 64
    samples: int = 8
    refresh: int = 10
    clip: float = 0.2
    entropy_weight: float = 0.0
    kl_weight: float = 0.0
    value_weight: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"learner.objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}"
            )
        for name in ("steps", "context", "samples", "refresh"):
            if getattr(self, name) < 1:
                raise InputError(f"learner.{name} is {getattr(self, name)}; give at least 1")
        if not 0 < self.clip < 1:
            raise InputError(f"learner.clip is {self.clip}; give a number between 0 and 1")
        for name in ("entropy_weight", "kl_weight", "value_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"learner.{name} is {getattr(self, name)}; give a number of at least 0")


@dataclass(frozen=True)
class MatchConfig:
    """Self-play against past checkpoints: after every ``every`` rounds (0: never) the student and up to
    ``opponents`` earlier checkpoints continue the same ``prompts`` of ``prompt_tokens`` held-out tokens by
    ``tokens`` more; an n-gram table of ``order``, counted on half of the held-out text and on none of the
    training text, says whose is likelier.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    every: int = 5
    opponents: int = 3
    prompts: int = 64
    prompt_tokens: int = 16
    tokens: int = 48
    order: int = 4

    def __post_init__(self) -> None:
        if self.every < 0:
            raise InputError(f"matches.every is {self.every}; give at least 0, where 0 plays none")
        for name in ("opponents", "prompts", "prompt_tokens", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"matches.{name} is {getattr(self, name)}; give at least 1")
        if not 1 <= self.order <= 6:
            raise InputError(f"matches.order is {self.order}; give 1 to 6")


@dataclass(frozen=True)
class MonitorConfig:
    """Within a round, every ``every`` steps (0: never), the student reads ``windows`` windows of held-out
    text for signs of collapse; what they are is in ``monitors``, thresholds and consequences in ``health``.
    What is measured during the warm-up of the learning rate is not judged, unless it is no number.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    every: int = 20
    windows: int = 16

    def __post_init__(self) -> None:
        if self.every < 0 or self.windows < 1:
            raise InputError(
                f"monitors.every is {self.every} and windows {self.windows}; give every >= 0, windows >= 1"
            )


@dataclass(frozen=True)
class TextGameConfig:
    """A run of the text game. ``game`` tells its presets and files from those of answers to problems.

    After each round the first ``evaluated`` tokens of the validation split are scored (None: all).
    ``threads`` fixes torch's threads, because the last bits depend on it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    model: ModelConfig
    game: Literal["text"] = "text"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    referee: RefereeConfig = field(default_factory=RefereeConfig)
    rewards: TextRewardConfig = field(default_factory=TextRewardConfig)
    search: ContextSearchConfig = field(default_factory=ContextSearchConfig)
    learner: TextLearnerConfig = field(default_factory=TextLearnerConfig)
    matches: MatchConfig = field(default_factory=MatchConfig)
    monitors: MonitorConfig = field(default_factory=MonitorConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    keep: RetentionConfig = field(default_factory=RetentionConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluated: int | None = None
    rounds: int = 20
    seed: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.threads < 1 or self.seed < 0:
            raise InputError(
                f"rounds is {self.rounds}, threads {self.threads}, seed {self.seed}; "
                "give rounds and seed >= 0, threads >= 1"
            )
        if self.evaluated is not None and self.evaluated < 1:
            raise InputError(
                f"evaluated is {self.evaluated} held-out tokens; give at least 1, or null for all"
            )
        if self.model.tokenizer is not None:
            raise InputError(
                "model.tokenizer is given, and text is read with the corpus's own; say corpus.tokenizer"
            )
