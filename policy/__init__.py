"""The student and everything that runs or trains it: tokenizers, engines, sampling, checkpoints.

The names below are the public surface, and the warm start is `policy.pretrain.pretrain`. They are imported
when first asked for, because most of them need torch and `policy.atomic` must not. Nothing here knows tasks,
teachers, values or search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenzero.policy.atomic import OutputError, replace_directory, write_bytes, write_text
    from tokenzero.policy.completion_client import (
        CompletionClient,
        CompletionRequest,
        CompletionResult,
        Failure,
        ServerConfig,
    )
    from tokenzero.policy.engine import Engine, RecomputeEngine, Step
    from tokenzero.policy.ledger import Ledger
    from tokenzero.policy.pieces import Pieces
    from tokenzero.policy.pretrain import Example, PretrainConfig, clone
    from tokenzero.policy.sampling import Sampling
    from tokenzero.policy.student import Output, Student
    from tokenzero.policy.tiers import Choice, EngineConfig, choose, open_engine
    from tokenzero.policy.tokenizers import encode_prompt, from_spec, load_tokenizer
    from tokenzero.policy.train_state import OptimizerConfig, TrainState
    from tokenzero.policy.tree_engine import TreeEngine

_HOME = {
    "atomic": ("OutputError", "replace_directory", "write_bytes", "write_text"),
    "completion_client": (
        "CompletionClient",
        "CompletionRequest",
        "CompletionResult",
        "Failure",
        "ServerConfig",
    ),
    "engine": ("Engine", "RecomputeEngine", "Step"),
    "ledger": ("Ledger",),
    "pieces": ("Pieces",),
    # the function `pretrain` is not among them: the submodule of that name would hide it
    "pretrain": ("Example", "PretrainConfig", "clone"),
    "sampling": ("Sampling",),
    "student": ("Output", "Student"),
    "tiers": ("Choice", "EngineConfig", "choose", "open_engine"),
    "tokenizers": ("encode_prompt", "from_spec", "load_tokenizer"),
    "train_state": ("OptimizerConfig", "TrainState"),
    "tree_engine": ("TreeEngine",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Choice",
    "CompletionClient",
    "CompletionRequest",
    "CompletionResult",
    "Engine",
    "EngineConfig",
    "Example",
    "Failure",
    "Ledger",
    "OptimizerConfig",
    "Output",
    "OutputError",
    "Pieces",
    "PretrainConfig",
    "RecomputeEngine",
    "Sampling",
    "ServerConfig",
    "Step",
    "Student",
    "TrainState",
    "TreeEngine",
    "choose",
    "clone",
    "encode_prompt",
    "from_spec",
    "load_tokenizer",
    "open_engine",
    "replace_directory",
    "write_bytes",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
