"""From a MODEL word (run directory, checkpoint directory or hub name) to parts that can play.

A checkpoint is a Hugging Face directory; the value head (``value_head.json``) and the defaults
(``tokenzero.json``: its task, search and ends of answers; ``useful_budget.json``: how much search it can
use) beside it are optional. It does not play and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tokenzero.answer_limits import FreeText, with_limit
from tokenzero.answer_teachers import ensemble_of
from tokenzero.config import Layer, bind
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.selfplay.assessment import detectors
from tokenzero.selfplay.config import TaskConfig, TerminalKind
from tokenzero.selfplay.evaluator import LeafConfig, Parts
from tokenzero.selfplay.methods import searching
from tokenzero.selfplay.net import HEAD_FILE
from tokenzero.selfplay.run_directory import playing_checkpoint
from tokenzero.tasks import Task, get_task
from tokenzero.teachers import Teacher
from tokenzero.useful_budget import read_useful_budgets
from tokenzero.value import ValueHead

DEFAULTS_FILE = "tokenzero.json"
FREE_TEXT_TOKENS = 64
"""Longest free-text answer where nobody says otherwise and the model has room for it."""


@dataclass(frozen=True)
class Defaults:
    """What ``tokenzero.json`` holds: the task a checkpoint was trained on, the search it was trained with,
    and what ended its answers beside the task's rules.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    task: TaskConfig | None = None
    search: SearchConfig = field(default_factory=SearchConfig)
    terminal: list[TerminalKind] = field(default_factory=list)


@dataclass(frozen=True)
class Opened:
    """A model ready to play: its ``parts``, its default ``search``, and where it came ``source`` from.

    ``useful`` holds the useful budget of each method for which it was measured (see ``useful_budget``);
    ``search`` has its own method's already. ``leaf`` is how searches price states.
    """

    parts: Parts
    search: SearchConfig
    source: str
    useful: Mapping[str, int] = field(default_factory=dict)
    leaf: LeafConfig = field(default_factory=LeafConfig)


def open_model(
    model: str | Path,
    task: str | None = None,
    max_new_tokens: int | None = None,
    engine: EngineConfig | None = None,
    teachers: Sequence[str | Path | Teacher] = (),
    teacher_share: float | None = None,
) -> Opened:
    """Open ``model`` for the task named ``task``, or for the one it was trained on, or for free text; with
    ``teachers`` beside it (see ``answer_teachers``), runs standing for their playing checkpoints.

    Raises:
        InputError: nothing loadable there, a damaged file, an unknown task, or too few positions for its
        answers.
    """
    source = resolve(model)
    defaults = _defaults(Path(source))
    student = Student.load(source)
    chosen = _task(task, defaults, student, max_new_tokens)
    needed = chosen.max_answer_tokens
    if student.max_length - needed < 1:
        raise InputError(
            f"{source} takes {student.max_length} tokens, an answer to {chosen.name} may need {needed}; "
            "lower --max-new-tokens or use a model with more positions"
        )
    head = _value_head(source, student)
    parts = Parts(
        student=student,
        engine=open_engine(student, engine),
        task=chosen,
        value_head=head,
        ensemble=ensemble_of(
            [resolve(one) if isinstance(one, str | Path) else one for one in teachers],
            student,
            teacher_share,
        ),
        terminal=detectors(defaults.terminal, student),
    )
    useful = read_useful_budgets(source)
    search = searching(defaults.search, None, useful.get(defaults.search.method))
    return Opened(parts, search, source, useful)


def _value_head(source: str, student: Student) -> ValueHead | None:
    if not (Path(source) / HEAD_FILE).is_file():
        return None
    head = ValueHead.load(source)
    if head.hidden_size != student.hidden_size:
        raise InputError(
            f"{source}: the value head reads width {head.hidden_size}, the model has width "
            f"{student.hidden_size}; they are not a pair"
        )
    return head


def resolve(model: str | Path) -> str:
    """The directory or hub name to load: a run directory stands for the checkpoint whose weights play now."""
    path = Path(model)
    if not path.exists() and (path.is_absolute() or (path.parent.is_dir() and path.parent != Path("."))):
        beside = sorted(one.name for one in path.parent.glob("*/"))
        holds = f"; {path.parent} holds {', '.join(beside[:8])}" if beside else ""
        raise InputError(f"{path} does not exist{holds}")
    if not (path / "checkpoints").is_dir():
        return str(model)
    playing = playing_checkpoint(path)
    if playing is None:
        raise InputError(f"run {path} has no finished checkpoint yet; let its warm start end first")
    return str(playing)


def _defaults(directory: Path) -> Defaults:
    path = directory / DEFAULTS_FILE
    if not path.is_file():
        return Defaults()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore or remove it") from error
    return bind(Defaults, values, [Layer(str(path), {})])


def _task(name: str | None, defaults: Defaults, student: Student, max_new_tokens: int | None) -> Task:
    config = defaults.task
    if name is not None and (config is None or config.name != name):
        config = TaskConfig(name)
    if config is None:
        room = max(1, min(FREE_TEXT_TOKENS, student.max_length // 2))
        return FreeText(room if max_new_tokens is None else max_new_tokens)
    task = get_task(config.name, **config.options)
    return task if max_new_tokens is None else with_limit(task, max_new_tokens)
