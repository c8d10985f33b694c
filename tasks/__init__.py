"""What is being solved: problems in splits, and verifiers that say when an answer is done and how good.

`get_task` is the way in. Nothing here tokenizes, runs a model or searches.
"""

from __future__ import annotations

from tokenzero.tasks.aqua import AquaConfig, AquaTask
from tokenzero.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from tokenzero.tasks.continuation import ContinuationConfig, ContinuationTask
from tokenzero.tasks.countdown import CountdownConfig, CountdownTask
from tokenzero.tasks.game24 import GAME24
from tokenzero.tasks.gsm8k import Gsm8kConfig, Gsm8kTask
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
from tokenzero.tasks.question_answer import QuestionAnswerConfig, QuestionAnswerTask
from tokenzero.tasks.registry import get_task

__all__ = [
    "FAILED",
    "GAME24",
    "ONGOING",
    "SOLVED",
    "SPLITS",
    "AquaConfig",
    "AquaTask",
    "ArithmeticConfig",
    "ArithmeticTask",
    "Automaton",
    "ContinuationConfig",
    "ContinuationTask",
    "CountdownConfig",
    "CountdownTask",
    "Gsm8kConfig",
    "Gsm8kTask",
    "MazeConfig",
    "MazeTask",
    "Problem",
    "PublicProblem",
    "QuestionAnswerConfig",
    "QuestionAnswerTask",
    "Task",
    "Verdict",
    "Verdicts",
    "get_task",
]
