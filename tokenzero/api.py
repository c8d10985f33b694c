"""The Python interface: open a model, answer with it, run self-play. The command line does the same through
the same parts.

It prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.answering import Generation, answer, build_method
from tokenzero.checkpoint import Opened, open_model
from tokenzero.judging import JudgeFunction, judge_of
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig
from tokenzero.problem_choice import first_problems
from tokenzero.run_kinds import open_run
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.evaluation import Score, evaluate
from tokenzero.selfplay.evaluator import LeafConfig
from tokenzero.selfplay.listener import Listener
from tokenzero.selfplay.methods import Budget, Method, MethodConfig
from tokenzero.selfplay.text.config import TextGameConfig
from tokenzero.tasks import Task
from tokenzero.teachers import Teacher
from tokenzero.value import Judge


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
        method: str | MethodConfig | None = None,
        n: int | None = None,
        seed: int = 1,
        budget: Budget | None = None,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Answer ``prompt`` by tree search (``search``), or by ``method``: a name, with ``n`` samples or
        beams, or a ``MethodConfig`` with everything. Neither: the model's default search. When ``budget`` is
        spent the best answer so far is given; it ends before the first of ``stop`` too. Same seed, same
        answer, unless the budget is one of seconds.

        Raises InputError for a prompt the model or task cannot take and for an unknown method.
        """
        return answer(self._opened, self._method(search, method, n), prompt, seed, budget, stop)

    def evaluate(
        self,
        split: str = "test",
        problems: int | None = None,
        search: Search | None = None,
        *,
        method: str | MethodConfig | None = None,
        n: int | None = None,
        seed: int = 1,
        budget: Budget | None = None,
    ) -> Score:
        """Accuracy on the first ``problems`` of a split (all by default), with its interval and what it
        cost. ``budget`` is for each problem, its seconds for all of them together.
        """
        chosen = first_problems(self.task, split, problems)
        rng = np.random.default_rng(seed)
        return evaluate(self._method(search, method, n), self.task, chosen, rng, budget=budget)

    def _method(self, search: Search | None, method: str | MethodConfig | None, n: int | None) -> Method:
        if search is None:
            if isinstance(method, MethodConfig):
                if n is not None:
                    raise InputError(f"n={n} and a MethodConfig are both given; say n in the MethodConfig")
                return build_method(self._opened, method)
            return build_method(self._opened, MethodConfig(method, n=n))
        if method is not None:
            raise InputError(f"search and method {method!r} are both given; give one")
        opened = self._opened
        if search.config is not None:
            opened = replace(opened, search=search.config, useful={})
        return build_method(opened, MethodConfig(search.method, search.simulations))


def load(
    model: str | Path,
    *,
    task: str | None = None,
    max_new_tokens: int | None = None,
    engine: EngineConfig | None = None,
    judge: Judge | JudgeFunction | None = None,
    judge_eta: float = 0.5,
    teachers: Sequence[str | Path | Teacher] = (),
    teacher_share: float | None = None,
) -> Engine:
    """Open a run directory (its latest checkpoint), a checkpoint directory or a hub name.

    ``task`` defaults to what the checkpoint was trained on; ``max_new_tokens`` to the task's limit.
    ``engine`` says how the model is forwarded: the lean forward, a memory cap. ``judge``, or a function of
    (prompt, partial answer) to -1, 0 or 1, shifts the values that searches see by ``judge_eta`` in [0, 1].
    ``teachers``, paths of n-gram tables and models or teachers that are open already, have ``teacher_share``
    of the searches' priors (None: 0.5).
    Raises InputError: nothing loadable there, a damaged file, or an unknown task.
    """
    opened = open_model(model, task, max_new_tokens, engine, teachers, teacher_share)
    if judge is not None:
        opened.parts.judge = judge_of(judge)
        opened = replace(opened, leaf=LeafConfig(judge_eta=judge_eta))
    return Engine(opened)


def selfplay(
    config: SelfPlayConfig | TextGameConfig,
    out: str | Path = "runs/selfplay",
    *,
    resume: bool = False,
    listener: Listener | None = None,
) -> list[dict[str, Any]]:
    """Run self-play, on a task's problems or as a text game, into the directory ``out``; returns one record
    a round, that of the warm start (of a text game, of the student as it begins) first.

    Raises InputError (bad settings, ``out`` holds another run) and OutputError (something could not be
    written).
    """
    return open_run(config, Path(out), listener).execute(resume=resume)
