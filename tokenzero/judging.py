"""A judge as users give one: an object with the protocol's methods, or a plain function.

It judges nothing; see ``value.judge``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenzero.value import FunctionJudge, Judge

JudgeFunction = Callable[[str, str], int | bool]
"""(prompt, partial answer) -> -1 reject, 0 neutral, 1 accept."""


def judge_of(given: Judge | JudgeFunction) -> Judge:
    """``given`` itself if it is a judge, else the judge that asks the function ``given``."""
    unknown: Any = given
    return unknown if hasattr(given, "judge") else FunctionJudge("judge", unknown, "1")
