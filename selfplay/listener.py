"""Who hears how a run goes. It draws nothing: see ``tokenzero/progress.py``."""

from __future__ import annotations

from typing import Any, Protocol

Record = dict[str, Any]
"""What a round came to: one line of ``metrics.jsonl``."""


class Listener(Protocol):
    """Hears how a run goes: for progress bars and tables. Must not change anything."""

    def stage(self, name: str, total: int) -> None:
        """A stage of ``total`` steps or games begins."""
        ...

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        ...

    def record(self, record: Record) -> None:
        """A round is finished and on disk."""
        ...


class Silence:
    """A listener that does nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def record(self, record: Record) -> None: ...
