"""A model behind an OpenAI-compatible server as a judge: a chat is asked for one word.

The word is read strictly: it is one of the labels or it is nothing. Where the server tells log-probabilities
they may decide instead, with a margin. A verdict that could not be had or read is 0 and is counted. It
remembers nothing (value/cached_judge.py; the client's cache on disk keeps answers) and never raises for what
the server does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import (
    Choice,
    CompletionClient,
    CompletionRequest,
    CompletionResult,
    ServerConfig,
)
from tokenzero.policy.completion_client_config import base_url
from tokenzero.value.constitution import load_constitution
from tokenzero.value.judge import Verdicts, fingerprint, paired
from tokenzero.value.judge_template import JudgeTemplate

__all__ = ["RemoteJudge", "RemoteJudgeConfig", "build_remote_judge"]

TEMPLATE = "Problem:\n{prompt}\n\nAnswer so far:\n{answer}\n\nIs the answer right so far?"
"""The default."""

TEMPLATE_WITH_CONSTITUTION = (
    "Judge by these articles:\n{constitution}\n\nProblem:\n{prompt}\n\nAnswer so far:\n{answer}\n\n"
    "Is the answer right so far?"
)
"""The default where there is a constitution."""

_AROUND = " \t\r\n\"'`*.!"  # what chat models put around a single word


@dataclass(frozen=True)
class RemoteJudgeConfig:
    """A judge of kind "remote".

    ``template``: with the places {prompt} and {answer}; null for the default. ``constitution``: a YAML file
    of articles for the template's {constitution}; null for none. ``labels``: word -> -1, 0 or 1; case does
    not matter. ``top`` above 0 asks for so many log-probabilities of the first token: if the server gives
    them and a label begins there, the likeliest verdict wins when it leads the next by ``margin`` nats,
    else 0. ``max_tokens``: for the word, and for whatever a model writes before it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    server: ServerConfig
    kind: Literal["remote"] = "remote"
    name: str = "remote"
    template: str | None = None
    constitution: str | None = None
    labels: dict[str, int] = field(default_factory=lambda: {"good": 1, "bad": -1, "unsure": 0})
    top: int = 0
    margin: float = 0.0
    max_tokens: int = 8

    def __post_init__(self) -> None:
        words = [_word(label) for label in self.labels]
        _template(self.template, "some" if self.constitution is not None else "")
        for label, word in zip(self.labels, words, strict=True):
            if not word or words.count(word) > 1:
                raise InputError(f"judge label {label!r} is empty or given twice; give each word once")
            if self.labels[label] not in (-1, 0, 1):
                raise InputError(f"judge label {label!r} means {self.labels[label]}; use -1, 0 or 1")
        if len(set(self.labels.values())) < 2:
            raise InputError(
                f"judge labels {self.labels} leave no choice; give two that mean different things"
            )
        if self.top < 0 or self.max_tokens < 1 or not 0 <= self.margin < math.inf:
            raise InputError(
                f"judge top is {self.top}, margin {self.margin} and max_tokens {self.max_tokens}; "
                "give top >= 0, margin >= 0 and max_tokens >= 1"
            )


class RemoteJudge:
    """Asks the server of ``config`` for a word about each pair; ``constitution`` is the text itself, "" for
    none (``build_remote_judge`` reads the config's file).

    Attributes, totals since it was made: ``failures_by_reason`` (those of ``CompletionClient.complete`` and
    "unreadable word"); ``tokens`` paid for, ``estimated_tokens`` of them guessed. Close it. ``client`` may be
    handed in, else one is made. Raises InputError for a bad template and what ``CompletionClient`` raises.
    """

    def __init__(
        self, config: RemoteJudgeConfig, *, constitution: str = "", client: CompletionClient | None = None
    ) -> None:
        self.template = _template(config.template, constitution)
        self.config = config
        self.name = config.name
        self.client = CompletionClient(config.server) if client is None else client
        self.failures_by_reason: Counter[str] = Counter()
        self.tokens = 0
        self.estimated_tokens = 0
        self._verdicts = {_word(label): verdict for label, verdict in config.labels.items()}
        self._instruction = (
            "You judge an answer that may be unfinished. Reply with exactly one of these words and nothing "
            f"else: {', '.join(config.labels)}."
        )

    @property
    def version(self) -> str:
        """Hash of address, model, texts, labels and how they are read."""
        config = self.config
        texts = (self.template.text, self.template.constitution, self._instruction)
        asked = (base_url(config.server.url), config.server.model, config.server.extra, config.max_tokens)
        return fingerprint("remote", *texts, *asked, list(config.labels.items()), config.top, config.margin)

    @property
    def failures(self) -> int:
        """Verdicts that could not be had or read, over all reasons."""
        return self.failures_by_reason.total()

    @property
    def requests(self) -> int:
        """HTTP requests sent, retries included."""
        return self.client.requests

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        asked = [self._request(prompt, partial) for prompt, partial in paired(prompts, partials)]
        verdicts = np.zeros(len(asked), dtype=np.int8)
        for row, outcome in enumerate(self.client.complete(asked)):
            if not isinstance(outcome, CompletionResult):
                self.failures_by_reason[outcome.reason] += 1
                continue
            self.tokens += outcome.spent
            self.estimated_tokens += outcome.spent if outcome.estimated else 0
            verdict = self._verdict(outcome.choices[0])
            if verdict is None:
                self.failures_by_reason["unreadable word"] += 1
            else:
                verdicts[row] = verdict
        return verdicts

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def _request(self, prompt: str, partial: str) -> CompletionRequest:
        return CompletionRequest(
            messages=(("system", self._instruction), ("user", self.template.fill(prompt, partial))),
            max_tokens=self.config.max_tokens,
            top=self.config.top,
        )

    def _verdict(self, choice: Choice) -> int | None:
        """-1, 0 or 1; None when the answer cannot be read."""
        if self.config.top and choice.alternatives:
            mass = self._mass(choice)
            if mass:
                return self._likeliest(mass)
        return self._verdicts.get(_word(choice.text))

    def _mass(self, choice: Choice) -> dict[int, float]:
        """Probability of each verdict by the first token; a token that begins labels of several counts for
        none.
        """
        mass: dict[int, float] = {}
        for text, logprob in choice.alternatives or ():
            start = _word(text)
            meant = {verdict for word, verdict in self._verdicts.items() if start and word.startswith(start)}
            if len(meant) == 1:
                verdict = meant.pop()
                mass[verdict] = mass.get(verdict, 0.0) + math.exp(min(0.0, logprob))
        return mass

    def _likeliest(self, mass: Mapping[int, float]) -> int:
        ranked = sorted(mass.items(), key=lambda one: -one[1])
        if len(ranked) == 1:
            return ranked[0][0]
        (best, first), (_, second) = ranked[:2]
        lead = math.log(first) - math.log(second) if second > 0 else math.inf
        return best if first > second and lead >= self.config.margin else 0


def build_remote_judge(config: RemoteJudgeConfig) -> RemoteJudge:
    """The judge that ``config`` describes. Raises InputError for a bad constitution file too."""
    articles = "" if config.constitution is None else load_constitution(config.constitution).text
    return RemoteJudge(config, constitution=articles)


def _template(text: str | None, constitution: str) -> JudgeTemplate:
    default = TEMPLATE_WITH_CONSTITUTION if constitution else TEMPLATE
    return JudgeTemplate(default if text is None else text, constitution)


def _word(text: str) -> str:
    return text.strip(_AROUND).casefold()
