"""The kinds of judges as settings, and how settings become a judge.

A judge of judges holds the settings of its members, so the records nest. They check what can be known without
opening anything; files, models and functions are opened by `build_judge`. Judges that cost something are
wrapped in a memory (value/cached_judge.py). Reading YAML and refusing unknown keys is the front door's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tokenzero.mcts.errors import InputError
from tokenzero.policy.named_function import named_function
from tokenzero.value.cached_judge import CachedJudge
from tokenzero.value.constitution import load_constitution
from tokenzero.value.function_judge import FunctionJudge, NoisyJudge, check_right
from tokenzero.value.judge import Judge
from tokenzero.value.judge_combination import JudgeCombination, check_way
from tokenzero.value.judge_template import template_or_default
from tokenzero.value.label_judge import LABELS, LabelJudge, check_labels, check_margin
from tokenzero.value.remote_judge import RemoteJudgeConfig, build_remote_judge
from tokenzero.value.reward_judge import RewardJudge, check_thresholds
from tokenzero.value.rule_judge import RuleJudge

if TYPE_CHECKING:
    from tokenzero.policy.student import Student

FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class RulesJudgeConfig:
    """``rules``: named predicates and what they say, {"too_long:400": -1}; see value/predicates.py."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    rules: dict[str, int]
    kind: Literal["rules"] = "rules"
    name: str = "rules"

    def __post_init__(self) -> None:
        RuleJudge.from_names(self.rules)


@dataclass(frozen=True)
class ConstitutionJudgeConfig:
    """``path``: a YAML file of articles; those with a rule judge. See value/constitution.py."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    path: str
    kind: Literal["constitution"] = "constitution"
    name: str = "constitution"


@dataclass(frozen=True)
class ModelJudgeConfig:
    """A causal language model by the probability of ``labels``; see value/label_judge.py.

    ``load``: a directory or hub name, None for the student itself. ``template``: None for a default.
    ``constitution``: a YAML file of articles for the template. ``margin``: nats.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["model"] = "model"
    name: str = "model"
    load: str | None = None
    template: str | None = None
    constitution: str | None = None
    labels: dict[str, int] = field(default_factory=lambda: dict(LABELS))
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_margin(self.margin)
        template_or_default(self.template, "some" if self.constitution is not None else "")


@dataclass(frozen=True)
class RewardModelJudgeConfig:
    """A reward model's directory ``load`` with two thresholds; see value/reward_judge.py."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    load: str
    low: float
    high: float
    kind: Literal["reward_model"] = "reward_model"
    name: str = "reward_model"

    def __post_init__(self) -> None:
        check_thresholds(self.low, self.high)


@dataclass(frozen=True)
class FunctionJudgeConfig:
    """``function``: "package.module:name" of a Python function (prompt, partial) -> verdict, which is
    imported and run; ``version``: another one when its answers change. See value/function_judge.py.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    function: str
    version: str = "1"
    kind: Literal["function"] = "function"
    name: str = "function"

    def __post_init__(self) -> None:
        module, _, name = self.function.partition(":")
        if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"judge function is {self.function!r}; write it as package.module:name")
        if not self.version:
            raise InputError("judge function has an empty version; give one")


@dataclass(frozen=True)
class NoisyJudgeConfig:
    """``inner`` with the opposite verdict in a share 1 - ``right`` of cases, drawn from ``seed`` and the
    texts; for experiments. See value/function_judge.py.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    inner: JudgeConfig
    right: float
    seed: int = 0
    kind: Literal["noisy"] = "noisy"
    name: str = "noisy"

    def __post_init__(self) -> None:
        check_right(self.right)


@dataclass(frozen=True)
class CombinationJudgeConfig:
    """``members`` combined by ``how``: "veto", "majority" or "first_that_speaks"; see
    value/judge_combination.py. Each member has a ``name`` of its own.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    how: str
    members: list[JudgeConfig]
    kind: Literal["combination"] = "combination"
    name: str = "combination"

    def __post_init__(self) -> None:
        check_way(self.how)
        if not self.members:
            raise InputError("a combination of judges has no members; list at least one")
        names = [getattr(member, "name", member.kind) for member in self.members]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two members are named {name!r}; give each a name of its own")


AnyJudgeConfig = (
    RulesJudgeConfig
    | ConstitutionJudgeConfig
    | ModelJudgeConfig
    | RemoteJudgeConfig
    | RewardModelJudgeConfig
    | FunctionJudgeConfig
    | NoisyJudgeConfig
    | CombinationJudgeConfig
)
JudgeConfig = Annotated[AnyJudgeConfig, Field(discriminator="kind")]
"""Settings of one judge; ``kind`` tells which."""


def build_judge(config: AnyJudgeConfig, *, student: Student | None = None) -> Judge:
    """The judge that `config` describes. `student` is who judges where a model judge has no `load`.

    Raises InputError for files, models and functions that cannot be opened.
    """
    if isinstance(config, CombinationJudgeConfig):
        members = [build_judge(member, student=student) for member in config.members]
        return JudgeCombination(config.how, members, name=config.name)
    if isinstance(config, NoisyJudgeConfig):
        inner = build_judge(config.inner, student=student)
        return NoisyJudge(inner, config.right, seed=config.seed, name=config.name)
    if isinstance(config, RulesJudgeConfig):
        return RuleJudge.from_names(config.rules, name=config.name)
    if isinstance(config, ConstitutionJudgeConfig):
        return RuleJudge.from_constitution(config.path, name=config.name)
    return CachedJudge(_costly(config, student))


def _costly(
    config: ModelJudgeConfig | RemoteJudgeConfig | RewardModelJudgeConfig | FunctionJudgeConfig,
    student: Student | None,
) -> Judge:
    if isinstance(config, ModelJudgeConfig):
        return _model_judge(config, student)
    if isinstance(config, RewardModelJudgeConfig):
        from tokenzero.value.reward_model import RewardModel

        return RewardJudge(RewardModel.load(config.load), config.low, config.high, name=config.name)
    if isinstance(config, FunctionJudgeConfig):
        return FunctionJudge(config.name, named_function(config.function, "judge function"), config.version)
    return build_remote_judge(config)


def _model_judge(config: ModelJudgeConfig, student: Student | None) -> Judge:
    if config.load is not None:
        from tokenzero.policy.student import Student

        student = Student.load(config.load)
    if student is None:
        raise InputError(f"model judge {config.name!r} has no load, and there is no student; name a model")
    articles = "" if config.constitution is None else load_constitution(config.constitution).text
    return LabelJudge(
        student,
        template=config.template,
        labels=config.labels,
        constitution=articles,
        margin=config.margin,
        name=config.name,
    )
