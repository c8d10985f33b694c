"""Which rewards, with which weights: one frozen record for each kind, and the mix they describe.

Models are loaded only when a record asks for one. The arithmetic of the mix is `reward_mix`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError
from tokenzero.value.answer_length import CountTokens, Unit, length_in
from tokenzero.value.length_penalty import BudgetSchedule, LengthReward, Shape
from tokenzero.value.repetition import RepetitionUnit, repetition_reward
from tokenzero.value.reward_mix import CombinedReward, Part
from tokenzero.value.rewards import Reward, VerifierReward, against_reference, exact_match
from tokenzero.value.text_overlap import BleuTokenizer, bleu_measure, rouge_measure


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    """`weight`: its share among the rewards, or what a penalty can take off at most; 0 reports it only.
    `name`: under which it is reported; empty for its kind.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < math.inf:
            raise InputError(f"reward weight is {self.weight}; give 0 (report only) or a finite number above")


@dataclass(frozen=True, kw_only=True)
class ExactRewardConfig(_Weighted):
    """The reference itself: the same text after normalisation or, with `numbers`, the same number."""

    kind: Literal["exact"] = "exact"
    numbers: bool = True


@dataclass(frozen=True, kw_only=True)
class VerifierRewardConfig(_Weighted):
    """The score of the task's verifier."""

    kind: Literal["verifier"] = "verifier"


@dataclass(frozen=True, kw_only=True)
class BleuRewardConfig(_Weighted):
    """Sentence BLEU against the reference; `tokenize` "char" suits languages without spaces."""

    kind: Literal["bleu"] = "bleu"
    lowercase: bool = False
    tokenize: BleuTokenizer = "13a"


@dataclass(frozen=True, kw_only=True)
class RougeRewardConfig(_Weighted):
    """ROUGE F-measure against the reference, on Porter stems with `stem`."""

    kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    stem: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbeddingRewardConfig(_Weighted):
    """Similarity of meaning by the encoder `model`, a directory or hub name, read `window` tokens at a time
    (None: as many as it allows).
    """

    kind: Literal["embedding"] = "embedding"
    model: str
    window: int | None = None
    batch_size: int = 16
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class PerplexityRewardConfig(_Weighted):
    """1 / perplexity under the causal model `model`; edge rewards of one answer sum to at most `bound`."""

    kind: Literal["perplexity"] = "perplexity"
    model: str
    bound: float = 0.1
    batch_size: int = 16
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class LengthRewardConfig(_Weighted):
    """Penalty for answers above a budget that goes from `budget_start` to `budget_end` in `rounds` rounds."""

    kind: Literal["length"] = "length"
    budget_start: float
    budget_end: float
    rounds: int = 1
    schedule: Shape = "linear"
    unit: Unit = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget()

    def budget(self) -> BudgetSchedule:
        """The schedule. Raises InputError when it makes no sense."""
        return BudgetSchedule(self.budget_start, self.budget_end, self.rounds, self.schedule)


@dataclass(frozen=True, kw_only=True)
class RepetitionRewardConfig(_Weighted):
    """Penalty for the share of n-grams that have occurred before."""

    kind: Literal["repetition"] = "repetition"
    n: int = 4
    unit: RepetitionUnit = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        repetition_reward(self.n, self.unit)


RewardConfig = (
    ExactRewardConfig
    | VerifierRewardConfig
    | BleuRewardConfig
    | RougeRewardConfig
    | EmbeddingRewardConfig
    | PerplexityRewardConfig
    | LengthRewardConfig
    | RepetitionRewardConfig
)
PENALTIES = (LengthRewardConfig, RepetitionRewardConfig)


def build_rewards(
    configs: Sequence[RewardConfig], *, count_tokens: CountTokens | None = None
) -> CombinedReward:
    """The mix that the records describe; length and repetition are its penalties.

    count_tokens: text -> number of tokens, needed by a length penalty counted in tokens. Raises InputError
    for weights or names that do not fit together and for models that cannot be opened.
    """
    return CombinedReward(
        [
            Part(
                build_reward(config, count_tokens=count_tokens), config.weight, isinstance(config, PENALTIES)
            )
            for config in configs
        ]
    )


def build_reward(config: RewardConfig, *, count_tokens: CountTokens | None = None) -> Reward:
    """The reward of one record, without its weight."""
    name = config.name or config.kind
    match config:
        case ExactRewardConfig():
            return against_reference(name, partial(exact_match, numbers=config.numbers))
        case VerifierRewardConfig():
            return VerifierReward(name)
        case BleuRewardConfig():
            return against_reference(name, bleu_measure(lowercase=config.lowercase, tokenize=config.tokenize))
        case RougeRewardConfig():
            return against_reference(name, rouge_measure(config.kind, stem=config.stem))
        case LengthRewardConfig():
            return LengthReward(config.budget(), length_in(config.unit, count_tokens), name)
        case RepetitionRewardConfig():
            return repetition_reward(config.n, config.unit, name)
        case EmbeddingRewardConfig():
            return _embedding(config, name)
        case PerplexityRewardConfig():
            return _perplexity(config, name)


def _embedding(config: EmbeddingRewardConfig, name: str) -> Reward:
    from tokenzero.value.embedding_similarity import EmbeddingReward

    return EmbeddingReward.load(
        config.model, device=config.device, window=config.window, batch_size=config.batch_size, name=name
    )


def _perplexity(config: PerplexityRewardConfig, name: str) -> Reward:
    from tokenzero.policy.student import Student
    from tokenzero.value.perplexity import PerplexityReward

    student = Student.load(config.model, device=config.device)
    return PerplexityReward(student, bound=config.bound, batch_size=config.batch_size, name=name)
