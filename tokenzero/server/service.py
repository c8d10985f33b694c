"""What all routes share: the opened model, its limits, the conductor, and the way from a prompt to tokens.

One object for each application; nothing here knows HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from tokenzero.answer_limits import FreeText
from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import Method, MethodConfig, build
from tokenzero.server.conductor import Conductor
from tokenzero.server.config import ServeConfig
from tokenzero.server.errors import ApiError, nearest, refused
from tokenzero.server.metrics import Metrics, ObservedEngine
from tokenzero.server.spelling import Spelling
from tokenzero.server.tickets import Ticket
from tokenzero.server.trees import Trees
from tokenzero.tasks import PublicProblem


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as the token ids that the model reads; ``cut`` where the server cut the text."""

    text: str
    ids: tuple[int, ...]
    cut: bool = True


@dataclass(frozen=True)
class Group:
    """Requests of equal groups share a session: a method, for the model's task or for ``free`` text."""

    method: MethodConfig
    free: bool


class Service:
    """An opened model that answers requests within the limits of ``config``."""

    def __init__(self, opened: Opened, config: ServeConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        engine: Any = ObservedEngine(opened.parts.engine, self.metrics.rows.observe)
        student = opened.parts.student
        self.opened = replace(opened, parts=replace(opened.parts, engine=engine))
        self.free = replace(self.opened.parts, task=FreeText(max(1, student.max_length - 1)), terminal=None)
        self.student = student
        self.tokenizer = student.tokenizer
        self.room = student.max_length
        self.spelling = Spelling(student.tokenizer)
        self.trees = Trees(config.trees)
        self.name = config.name or _name(PurePath(opened.source))
        self.created = int(time.time())
        self.conductor = Conductor(
            self.method_of,
            places=config.places,
            waiting=config.waiting,
            sessions=config.sessions,
            idle_s=config.idle_s,
            on_game=self._finished,
        )
        self.metrics.in_play.set_function(lambda: self.conductor.in_play)
        self.metrics.waiting.set_function(lambda: max(0, self.conductor.taken - self.conductor.in_play))

    def warm(self) -> None:
        """Answer a little by every kind of method, so that what is compiled or allocated once keeps no client
        waiting. To be called before the conductor starts."""
        problem = PublicProblem("warm-up", "", limit=2, ids=(self.student.pad_id,))
        for config in (
            MethodConfig("sample"),
            MethodConfig("gumbel", simulations=2),
            MethodConfig("puct", simulations=2),
            MethodConfig("frontier", simulations=2, stand_in=1.0),
        ):
            build(self.free, self.opened.search, config, self.opened.leaf).play(
                [problem, problem], np.random.default_rng(0)
            )

    def method_of(self, group: Group) -> Method:
        """The method that answers a group."""
        parts = self.free if group.free else self.opened.parts
        return build(parts, self.opened.search, group.method, self.opened.leaf)

    def check_model(self, name: str | None) -> None:
        """Raises ApiError 404 for a model that is not this one."""
        if name is not None and name not in (self.name, self.opened.source):
            raise ApiError(
                404,
                f"model {name!r} is not served here; {nearest(name, [self.name])}",
                param="model",
                code="model_not_found",
            )

    def prompts(self, given: str | Sequence[Any]) -> list[Prompt]:
        """Every prompt of a request: one text, several, the token ids of one, or of several.

        Raises InputError for a text, ApiError for ids, that the model cannot take.
        """
        if isinstance(given, str):
            return [self.prompt(given)]
        if isinstance(given[0], int):
            given = [given]
        return [self.prompt(one) if isinstance(one, str) else self.prompt_of_ids(one) for one in given]

    def prompt(self, text: str) -> Prompt:
        """A prompt of text. Raises InputError when it is empty, too long or outside the vocabulary."""
        return Prompt(text, tuple(encode_prompt(self.tokenizer, text, self.room)))

    def prompt_of_ids(self, ids: Sequence[int]) -> Prompt:
        """A prompt of token ids, taken as they are."""
        known = self.student.vocab_size
        if max(ids) >= known:
            raise refused(f"prompt: token id {max(ids)} is none; this model has 0 to {known - 1}", "prompt")
        if len(ids) > self.room:
            raise refused(f"prompt: {len(ids)} tokens, the model takes {self.room}; shorten it", "prompt")
        return Prompt(self.spelling.text(ids), tuple(ids), cut=False)

    def reads(self, prompt: Prompt) -> bool:
        """Whether the prompt is a problem of the model's task."""
        task = self.opened.parts.task
        try:
            task.verdict(PublicProblem("prompt", prompt.text, task.name), "")
        except InputError:
            return False
        return not isinstance(task, FreeText)

    def _finished(self, ticket: Ticket, game: Game) -> None:
        group = ticket.group
        name = group.method.method if isinstance(group, Group) else None
        self.metrics.answers.labels(name or "default", game.end).inc()
        self.metrics.answer_seconds.labels(name or "default").observe(time.monotonic() - ticket.born)


def _name(source: PurePath) -> str:
    """What clients call the model: a run's checkpoint goes by the name of the run."""
    return source.parent.parent.name if source.parent.name == "checkpoints" else source.name
