"""Checks that the settings of every generated task share: kinds of values, ranges, sizes of splits.

Each task's own ranges stay with it. Nothing here knows a particular task.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tokenzero.mcts.errors import InputError


def check_kinds(task: str, config: Any) -> None:
    """Raise InputError unless every field of a settings record has exactly the type of its default."""
    for field in fields(config):
        value = getattr(config, field.name)
        if type(value) is not type(field.default):
            kind = type(field.default).__name__
            raise InputError(f"{task} {field.name} is {value!r}; give a value of type {kind}")


def require(task: str, config: Any, ok: bool, name: str, way_out: str) -> None:
    """Raise InputError that names the field, its value and the way out, unless ``ok``."""
    if not ok:
        raise InputError(f"{task} {name} is {getattr(config, name)}; {way_out}")


def check_sizes(task: str, config: Any) -> None:
    """Raise InputError for a split or a seed below 0."""
    for name in ("train", "validation", "test", "seed"):
        require(task, config, getattr(config, name) >= 0, name, "use 0 or more")
