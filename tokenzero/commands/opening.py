"""The model that a command line names, opened as its flags say."""

from __future__ import annotations

import argparse

from tokenzero.checkpoint import Opened, open_model
from tokenzero.policy.tiers import EngineConfig


def opened_model(arguments: argparse.Namespace) -> Opened:
    """MODEL with --task, --max-new-tokens where the verb has it, --no-lean and --memory-mb."""
    limit = getattr(arguments, "max_new_tokens", None)
    return open_model(arguments.model, arguments.task, limit, engine_config(arguments))


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    """How models are forwarded: --no-lean and --memory-mb."""
    return EngineConfig(lean=not arguments.no_lean, memory_mb=arguments.memory_mb)
