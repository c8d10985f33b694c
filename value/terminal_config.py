"""Which detectors end an answer: one frozen record for each kind, and the combination they describe.

A model is loaded only when a record asks for one. What a detector needs of the run (the end token, the public
reference, a count of tokens) is handed in, not written down twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError
from tokenzero.value.answer_length import CountTokens, Unit, length_in
from tokenzero.value.terminal import CombinedDetector, Detector, Mode, ModelDetector, Probability
from tokenzero.value.terminal_text import (
    ABBREVIATIONS,
    PublicReference,
    end_token,
    length_reached,
    resembles,
    sentence_end,
    stop_strings,
)
from tokenzero.value.text_overlap import bleu_measure, rouge_measure

FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class EndTokenConfig:
    """The text of the end token; empty for the one handed to `build_terminal`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["end_token"] = "end_token"
    name: str = ""
    token: str = ""


@dataclass(frozen=True, kw_only=True)
class StopStringsConfig:
    """Any of the strings `stops`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["stop_strings"] = "stop_strings"
    name: str = ""
    stops: list[str]

    def __post_init__(self) -> None:
        stop_strings(self.stops)


@dataclass(frozen=True, kw_only=True)
class LengthLimitConfig:
    """At least `limit` characters, words or tokens."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["length"] = "length"
    name: str = ""
    limit: int
    unit: Unit = "tokens"

    def __post_init__(self) -> None:
        length_reached(self.limit, len)


@dataclass(frozen=True, kw_only=True)
class SentenceEndConfig:
    """The end of a sentence; a full stop after one of `abbreviations` is none."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["sentence_end"] = "sentence_end"
    name: str = ""
    abbreviations: list[str] = field(default_factory=lambda: list(ABBREVIATIONS))


@dataclass(frozen=True, kw_only=True)
class PublicOverlapConfig:
    """BLEU or ROUGE of at least `threshold` against the text the problem itself shows; never against gold."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["bleu", "rouge1", "rouge2", "rougeL"] = "rougeL"
    name: str = ""
    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(f"{self.kind} threshold is {self.threshold}; give a number above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class CompletenessConfig:
    """The small model `model` (a directory or hub name) finds "complete" likelier than `threshold`; with
    `template` and `labels` empty it is asked in English.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["model"] = "model"
    name: str = ""
    model: str = ""
    threshold: float = 0.5
    template: str = ""
    labels: list[str] = field(default_factory=list)
    batch_size: int = 16
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(f"model threshold is {self.threshold}; give a number above 0, at most 1")
        if self.batch_size < 1 or len(self.labels) not in (0, 2):
            raise InputError(
                f"model batch_size is {self.batch_size} and labels {self.labels}; give at least 1, and two "
                "labels (complete, not complete) or none"
            )


@dataclass(frozen=True, kw_only=True)
class CombinationConfig:
    """Any or all of `detectors`, which may be combinations themselves."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    kind: Literal["any", "all"] = "all"
    name: str = ""
    detectors: list[TerminalConfig]


TerminalConfig = (
    EndTokenConfig
    | StopStringsConfig
    | LengthLimitConfig
    | SentenceEndConfig
    | PublicOverlapConfig
    | CompletenessConfig
    | CombinationConfig
)


@dataclass(frozen=True, kw_only=True)
class TerminalParts:
    """What detectors need of the run. end_token: the student's, as text. count_tokens: text -> tokens.
    public_reference: see `terminal_text.PublicReference`. probability: that answers are complete, for a
    `CompletenessConfig` without a model.
    """

    end_token: str = ""
    count_tokens: CountTokens | None = None
    public_reference: PublicReference | None = None
    probability: Probability | None = None


def build_terminal(
    configs: Sequence[TerminalConfig], parts: TerminalParts | None = None, *, mode: Mode = "any"
) -> CombinedDetector:
    """The combination of the detectors described; `detect` tells which of them spoke.

    Raises InputError for no or doubly named detectors, for what `parts` lacks and for models that cannot be
    opened.
    """
    given = parts or TerminalParts()
    return CombinedDetector([build_detector(config, given) for config in configs], mode)


def build_detector(config: TerminalConfig, parts: TerminalParts) -> Detector:
    """The detector of one record."""
    name = config.name or config.kind
    match config:
        case EndTokenConfig():
            return end_token(config.token or parts.end_token, name)
        case StopStringsConfig():
            return stop_strings(config.stops, name)
        case LengthLimitConfig():
            return length_reached(config.limit, length_in(config.unit, parts.count_tokens), name)
        case SentenceEndConfig():
            return sentence_end(config.abbreviations, name)
        case PublicOverlapConfig():
            return _overlap(config, name, parts.public_reference)
        case CompletenessConfig():
            return ModelDetector(name, _probability(config, parts.probability), config.threshold)
        case CombinationConfig():
            return CombinedDetector(
                [build_detector(inner, parts) for inner in config.detectors], config.kind, name
            )


def _overlap(config: PublicOverlapConfig, name: str, public_reference: PublicReference | None) -> Detector:
    if public_reference is None:
        raise InputError(
            f"detector {name!r} compares with a text the problem shows, and this task has none; leave it out"
        )
    measure = bleu_measure() if config.kind == "bleu" else rouge_measure(config.kind)
    return resembles(measure, public_reference, config.threshold, name)


def _probability(config: CompletenessConfig, given: Probability | None) -> Probability:
    if not config.model:
        if given is None:
            raise InputError("detector 'model' names no model; give a directory or hub name")
        return given
    from tokenzero.policy.student import Student
    from tokenzero.value.terminal_model import LABELS, TEMPLATE, LabelProbability

    yes, no = config.labels or LABELS
    return LabelProbability(
        Student.load(config.model, device=config.device),
        template=config.template or TEMPLATE,
        labels=(yes, no),
        batch_size=config.batch_size,
    )
