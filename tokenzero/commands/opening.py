"""The model that a command line names, opened as its flags say."""

from __future__ import annotations

import argparse

from tokenzero.checkpoint import Opened, open_model
from tokenzero.policy.tiers import EngineConfig


def opened_model(arguments: argparse.Namespace) -> Opened:
    """MODEL with --task, --no-lean and --memory-mb, and --max-new-tokens and --teacher where the verb has
    them.
    """
    limit = getattr(arguments, "max_new_tokens", None)
    teachers = getattr(arguments, "teacher", [])
    share = getattr(arguments, "teacher_share", None)
    return open_model(arguments.model, arguments.task, limit, engine_config(arguments), teachers, share)


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    """How models are forwarded: --no-lean and --memory-mb."""
    return EngineConfig(lean=not arguments.no_lean, memory_mb=arguments.memory_mb)
