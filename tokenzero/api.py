"""The Python interface: open a model, answer with it, run self-play. The command line does the same through
the same parts.

It prints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.answering import Generation, answer, build_method
from tokenzero.checkpoint import Opened, open_model
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig
from tokenzero.problem_choice import first_problems
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.evaluation import Score, evaluate
from tokenzero.selfplay.listener import Listener
from tokenzero.selfplay.methods import Method
from tokenzero.selfplay.run import Run
from tokenzero.tasks import Task


@dataclass(frozen=True)
class Search:
    """How hard to search, with the model's own defaults where a field is None: ``method`` "gumbel", "puct" or
    "frontier", ``simulations`` per token (of frontier search, play-outs per problem), ``config`` for
    everything else (it replaces the model's)."""

    simulations: int | None = None
    method: str | None = None
    config: SearchConfig | None = None


class Engine:
    """A model that answers prompts. Made by :func:`load`; owns the model and its key-value pool.

    One thread at a time. ``task`` is what it solves (free text when the model names none), ``student`` the
    model.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @property
    def student(self) -> Student:
        """The causal language model and its tokenizer."""
        return self._opened.parts.student

    @property
    def task(self) -> Task:
        """What is being solved."""
        return self._opened.parts.task

    @property
    def source(self) -> str:
        """The checkpoint directory or hub name that was opened."""
        return self._opened.source

    def generate(
        self,
        prompt: str,
        search: Search | None = None,
        *,
        method: str | None = None,
        n: int | None = None,
        seed: int = 1,
    ) -> Generation:
        """Answer ``prompt`` by tree search (``search``), or by ``method``: greedy, sample, beam, best-of-n or
        self-consistency with ``n`` samples or beams. Neither: the model's default search. Same seed, same
        answer.

        Raises InputError for a prompt the model or task cannot take and for an unknown method.
        """
        return answer(self._opened, self._method(search, method, n), prompt, seed)

    def evaluate(
        self,
        split: str = "test",
        problems: int | None = None,
        search: Search | None = None,
        *,
        method: str | None = None,
        n: int | None = None,
        seed: int = 1,
    ) -> Score:
        """Accuracy on the first ``problems`` of a split (all by default), with its interval and what it
        cost.
        """
        chosen = first_problems(self.task, split, problems)
        return evaluate(self._method(search, method, n), self.task, chosen, np.random.default_rng(seed))

    def _method(self, search: Search | None, method: str | None, n: int | None) -> Method:
        if search is None:
            return build_method(self._opened, method, None, n)
        if method is not None:
            raise InputError(f"search and method {method!r} are both given; give one")
        opened = self._opened
        if search.config is not None:
            opened = Opened(opened.parts, search.config, opened.source)
        return build_method(opened, search.method or opened.search.method, search.simulations)


def load(
    model: str | Path,
    *,
    task: str | None = None,
    max_new_tokens: int | None = None,
    engine: EngineConfig | None = None,
) -> Engine:
    """Open a run directory (its latest checkpoint), a checkpoint directory or a hub name.

    ``task`` defaults to what the checkpoint was trained on; ``max_new_tokens`` to the task's limit.
    ``engine`` says how the model is forwarded: the lean forward, a memory cap.
    Raises InputError: nothing loadable there, a damaged file, or an unknown task.
    """
    return Engine(open_model(model, task, max_new_tokens, engine))


def selfplay(
    config: SelfPlayConfig,
    out: str | Path = "runs/selfplay",
    *,
    resume: bool = False,
    listener: Listener | None = None,
) -> list[dict[str, Any]]:
    """Run self-play into the directory ``out``; returns one record a round, the warm start's first.

    Raises InputError (bad settings, ``out`` holds another run) and OutputError (something could not be
    written).
    """
    return Run(config, Path(out), listener).execute(resume=resume)
