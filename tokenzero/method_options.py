"""The method that a command line asks for, and what it may cost, from its flags.

It builds no method: see ``selfplay.methods.build``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from tokenzero.arguments.shared import OPTIONS, SAMPLING
from tokenzero.config import Layer, Values, bind_layers, merge_layers, override_layer
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.methods import Budget, MethodConfig
from tokenzero.selfplay.methods.config import METHODS, USERS, unknown_method
from tokenzero.tasks import Problem

SOURCE = "options"


def method_config(arguments: argparse.Namespace) -> MethodConfig:
    """The method of ``generate`` and ``eval``, with all its options.

    Raises InputError for an unknown method, an option that it does not know, and a value out of its range.
    """
    own = {name: getattr(arguments, name) for name in ("method", "simulations", "n")}
    return bind_layers(MethodConfig, [Layer(SOURCE, _given(own)), *_option_layers(arguments)])


def option_values(arguments: argparse.Namespace) -> Values:
    """The options of methods that were given, as nested values for :func:`config_of`."""
    return merge_layers(_option_layers(arguments))


def config_of(method: str, options: Values, **own: int) -> MethodConfig:
    """``method`` with those of ``options`` that it knows, and its ``own`` budget.

    Raises InputError for an unknown method and a value out of its range.
    """
    known = {name: value for name, value in options.items() if method in USERS.get(name, (method,))}
    return bind_layers(MethodConfig, [Layer(SOURCE, {**known, "method": method, **own})])


def check_options(methods: Sequence[str], options: Values) -> None:
    """Raises InputError for an unknown method, and for an option that none of ``methods`` knows."""
    for method in methods:
        if method not in METHODS:
            raise InputError(unknown_method(method))
    for name in options:
        users = USERS.get(name)
        if users is not None and not set(users) & set(methods):
            raise InputError(f"{name} means nothing to {', '.join(methods)}; it is for {', '.join(users)}")


def budget_of(arguments: argparse.Namespace) -> Budget | None:
    """--tokens and --seconds; None where neither is given. Raises InputError for one out of its range."""
    if arguments.tokens is None and arguments.seconds is None:
        return None
    return Budget(arguments.tokens, arguments.seconds)


def with_stop(problems: Sequence[Problem], stop: Sequence[str]) -> Sequence[Problem]:
    """The same problems, whose answers end at the strings ``stop`` too."""
    if not stop:
        return problems
    return [replace(problem, public=replace(problem.public, stop=tuple(stop))) for problem in problems]


def _option_layers(arguments: argparse.Namespace) -> list[Layer]:
    values = _given({name: getattr(arguments, name) for name in OPTIONS})
    drawing = _given({name: getattr(arguments, f"sampling_{name}") for name in SAMPLING})
    if drawing:
        values["sampling"] = drawing
    return [Layer(SOURCE, values), *map(override_layer, arguments.set)]


def _given(values: Values) -> Values:
    return {name: value for name, value in values.items() if value is not None}
