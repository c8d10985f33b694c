"""Tasks by name, a user's own classes among them. Building a task does not generate its problems; that waits
until they are asked for.
"""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.policy.named_function import named_function
from tokenzero.tasks.aqua import AquaConfig, AquaTask
from tokenzero.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from tokenzero.tasks.continuation import ContinuationConfig, ContinuationTask
from tokenzero.tasks.countdown import CountdownConfig, CountdownTask
from tokenzero.tasks.game24 import GAME24
from tokenzero.tasks.gsm8k import Gsm8kConfig, Gsm8kTask
from tokenzero.tasks.maze import MazeConfig, MazeTask
from tokenzero.tasks.problem import Task
from tokenzero.tasks.question_answer import QuestionAnswerConfig, QuestionAnswerTask

COUNTDOWN_PRESETS = {"countdown": CountdownConfig(), "game24": GAME24}
MAZE = "maze"
ARITHMETIC = "arithmetic"
GSM8K = "gsm8k"
AQUA = "aqua"
QUESTION_ANSWER = "question-answer"
CONTINUATION = "continuation"
REASONING_GYM = "reasoning-gym:"


def get_task(name: str, **options: Any) -> Task:
    """The task called `name`: "countdown", "game24", "maze", "arithmetic", "gsm8k", "aqua",
    "question-answer", "continuation", "reasoning-gym:DATASET", or a class of your own that Python can
    import, "package.module:Class".

    options: the arguments of a class of your own; of the others, fields that replace those of the task's
    configuration: `CountdownConfig` for the first two, then `MazeConfig`, `ArithmeticConfig`, `Gsm8kConfig`,
    `AquaConfig`, `QuestionAnswerConfig`, `ContinuationConfig` and `ReasoningGymConfig`. Raises InputError for
    an unknown name or option, naming the nearest known one, and for a class that is not there or makes no
    `Task`.
    """
    if name in COUNTDOWN_PRESETS:
        preset = COUNTDOWN_PRESETS[name]
        _check_options(name, options, preset)
        return CountdownTask(replace(preset, **options), name)
    if name == MAZE:
        _check_options(name, options, MazeConfig)
        return MazeTask(MazeConfig(**options), name)
    if name == ARITHMETIC:
        _check_options(name, options, ArithmeticConfig)
        return ArithmeticTask(ArithmeticConfig(**options), name)
    if name == GSM8K:
        _check_options(name, options, Gsm8kConfig)
        return Gsm8kTask(Gsm8kConfig(**options), name)
    if name == AQUA:
        _check_options(name, options, AquaConfig)
        return AquaTask(AquaConfig(**options), name)
    if name == QUESTION_ANSWER:
        _check_options(name, options, QuestionAnswerConfig)
        return QuestionAnswerTask(QuestionAnswerConfig(**options), name)
    if name == CONTINUATION:
        _check_options(name, options, ContinuationConfig)
        return ContinuationTask(ContinuationConfig(**options), name)
    if name.startswith(REASONING_GYM):
        from tokenzero.tasks.reasoning_gym import ReasoningGymConfig, ReasoningGymTask

        dataset = name.removeprefix(REASONING_GYM)
        _check_options(name, options, ReasoningGymConfig)
        return ReasoningGymTask(dataset, ReasoningGymConfig(**options))
    if ":" in name:
        return _own(name, options)
    tasks = [MAZE, ARITHMETIC, GSM8K, AQUA, QUESTION_ANSWER, CONTINUATION]
    known = [*COUNTDOWN_PRESETS, *tasks, REASONING_GYM + "DATASET"]
    raise InputError(f"task {name!r} does not exist; {_nearest(name, known)}")


def _own(name: str, options: dict[str, Any]) -> Task:
    task = named_function(name, "task")(**options)
    if not isinstance(task, Task):
        raise InputError(
            f"task {name!r} makes a {type(task).__name__}; name a subclass of tokenzero.tasks.Task"
        )
    return task


def _check_options(name: str, options: dict[str, Any], config: Any) -> None:
    known = [field.name for field in fields(config)]
    for option in options:
        if option not in known:
            raise InputError(f"task {name} has no option {option!r}; {_nearest(option, known)}")


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
