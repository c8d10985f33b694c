"""What is being solved: problems in splits, and verifiers that say when an answer is done and how good.

`get_task` is the way in. Nothing here tokenizes, runs a model or searches.
"""

from __future__ import annotations

from tokenzero.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from tokenzero.tasks.countdown import CountdownConfig, CountdownTask
from tokenzero.tasks.game24 import GAME24
from tokenzero.tasks.maze import MazeConfig, MazeTask
from tokenzero.tasks.problem import (
    FAILED,
    ONGOING,
    SOLVED,
    SPLITS,
    Automaton,
    Problem,
    PublicProblem,
    Task,
    Verdict,
    Verdicts,
)
from tokenzero.tasks.registry import get_task

__all__ = [
    "FAILED",
    "GAME24",
    "ONGOING",
    "SOLVED",
    "SPLITS",
    "ArithmeticConfig",
    "ArithmeticTask",
    "Automaton",
    "CountdownConfig",
    "CountdownTask",
    "MazeConfig",
    "MazeTask",
    "Problem",
    "PublicProblem",
    "Task",
    "Verdict",
    "Verdicts",
    "get_task",
]
