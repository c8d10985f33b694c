"""A user's function by its name in a config. Importing its module runs that module's code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError


def named_function(name: str, who: str) -> Callable[..., Any]:
    """The function "package.module:name", looked for in the current directory too, as `python -m` does.

    ``who`` names it in messages. Raises InputError when the module or the function is not there.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # a module may fail in any way while it is imported
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{who} {name!r} cannot be imported ({reason}); start where {module.partition('.')[0]} lies, or "
            "put its directory on PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InputError(f"{who} {name!r}: {module!r} has no function {attribute!r}; mend the name")
    function: Callable[..., Any] = found
    return function
