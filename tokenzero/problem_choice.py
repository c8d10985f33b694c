"""Which problems of a task are played: the first N of a split. It does not play them."""

from __future__ import annotations

from collections.abc import Sequence

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import Problem, Task


def first_problems(task: Task, split: str, count: int | None) -> Sequence[Problem]:
    """The first ``count`` problems of a split, or all. Raises InputError for an unknown or empty split or a
    count below 1.
    """
    problems = task.problems(split)
    if count is not None and count < 1:
        raise InputError(f"--problems is {count}; give at least 1")
    if not problems:
        raise InputError(f"task {task.name} has no problems in its {split} split; choose another --split")
    return problems[:count]
