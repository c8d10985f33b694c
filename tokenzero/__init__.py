"""AlphaZero for token sequences: one search for self-play, for better answers at test time, and for
benchmarks.

``load`` a model and ``generate`` with a ``Search``; ``selfplay`` runs a ``SelfPlayConfig`` or a
``TextGameConfig``; ``hf_generate`` is for ``generate`` of transformers. Importing this package imports
neither torch nor transformers: the names below load what they need when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenzero.answering import Candidate, Generation
    from tokenzero.api import Engine, Search, load, selfplay
    from tokenzero.config import load_config
    from tokenzero.hf_decoding import hf_generate
    from tokenzero.mcts.errors import InputError
    from tokenzero.selfplay.config import SelfPlayConfig
    from tokenzero.selfplay.methods import MethodConfig
    from tokenzero.selfplay.session import Budget
    from tokenzero.selfplay.text.config import TextGameConfig

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Candidate",
    "Engine",
    "Generation",
    "InputError",
    "MethodConfig",
    "Search",
    "SelfPlayConfig",
    "TextGameConfig",
    "__version__",
    "hf_generate",
    "load",
    "load_config",
    "selfplay",
]

_HOMES = {
    "Budget": "tokenzero.selfplay.session",
    "Candidate": "tokenzero.answering",
    "Engine": "tokenzero.api",
    "Generation": "tokenzero.answering",
    "InputError": "tokenzero.mcts.errors",
    "MethodConfig": "tokenzero.selfplay.methods",
    "Search": "tokenzero.api",
    "SelfPlayConfig": "tokenzero.selfplay.config",
    "TextGameConfig": "tokenzero.selfplay.text.config",
    "hf_generate": "tokenzero.hf_decoding",
    "load": "tokenzero.api",
    "load_config": "tokenzero.config",
}


class _Selfplay(ModuleType):
    """The folder ``selfplay``, which can also be called: ``tokenzero.selfplay(config)``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("tokenzero.api").selfplay(*args, **kwargs)


class _Front(ModuleType):
    """This module. ``selfplay`` names a folder and a function; whoever imports the folder first, it ends up
    callable.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "selfplay" and type(value) is ModuleType:
            value.__class__ = _Selfplay
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front


def __getattr__(name: str) -> Any:
    if name == "selfplay":
        return importlib.import_module("tokenzero.selfplay")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tokenzero' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
