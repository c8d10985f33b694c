"""How kernels are compiled and called. It holds no kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit, typeof

F = TypeVar("F", bound=Callable[..., Any])

_entries: dict[Any, Callable[..., Any]] = {}


def kernel(function: F) -> F:
    """Compile a kernel.

    No kernel allocates, so none needs reference counts; counting the references to a tree's arrays at every
    call would cost more than the search does. With `_nrt=False` a kernel that allocates does not compile.
    Kernels are inlined into their callers, since a tree is passed as some hundred numbers.
    """
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False, "forceinline": True}
    return cast("F", njit(**options)(function))


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a kernel by its compiled entry, which skips looking up the types of the arguments.

    For one tree that look-up costs more than the search. Nothing checks the types here: every call of one
    kernel must pass the same ones, C-contiguous arrays included, or memory is read wrongly.
    """
    entry = _entries.get(function)
    if entry is None:
        entry = _entries[function] = _compiled(function, arguments)
    return entry(*arguments)


def _compiled(function: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    if not hasattr(function, "overloads"):  # compilation is switched off
        return cast("Callable[..., Any]", function)
    signature = tuple(typeof(argument) for argument in arguments)
    function.compile(signature)
    return cast("Callable[..., Any]", function.overloads[signature].entry_point)
