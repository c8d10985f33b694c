"""What a server may spend and how it is protected. It reads no files and opens no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenzero.mcts.errors import InputError


@dataclass(frozen=True)
class ServeConfig:
    """Limits of a server; the defaults suit one machine and one model.

    name: the model's name in requests; None takes the last part of its directory or hub name.
    api_keys: keys of which a request must bear one; none lets everybody in.
    places: answers in play at a time, over all methods. waiting: further answers that may wait; beyond them
        a request is refused with 429. sessions: methods with different options that are open at a time.
    choices: answers one request may ask for, its prompts times ``n``. samples: most samples or beams of one
        answer. simulations: most simulations of one move.
    body_mb: largest request body in MiB. timeout_s: seconds after which every answer is given as far as it
        has come. stall_s: seconds that a reader of a stream may take for one piece of it.
    idle_s: seconds after which a method that nobody uses is closed. drain_s: seconds that answers in play may
        still take when the server is told to stop.
    trees: search trees kept for ``/trees/{id}``, the newest ones; 0 keeps none.

    Raises InputError for a number out of its range.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    name: str | None = None
    api_keys: tuple[str, ...] = ()
    places: int = 64
    waiting: int = 1024
    sessions: int = 8
    choices: int = 512
    samples: int = 256
    simulations: int = 4096
    body_mb: float = 4.0
    timeout_s: float = 600.0
    stall_s: float = 30.0
    idle_s: float = 60.0
    drain_s: float = 30.0
    trees: int = 0

    def __post_init__(self) -> None:
        for name in ("places", "sessions", "choices", "samples", "simulations"):
            if getattr(self, name) < 1:
                raise InputError(f"serve.{name} is {getattr(self, name)}; give at least 1")
        for name in ("waiting", "trees"):
            if getattr(self, name) < 0:
                raise InputError(f"serve.{name} is {getattr(self, name)}; give at least 0")
        for name in ("body_mb", "timeout_s", "stall_s", "idle_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"serve.{name} is {getattr(self, name)}; give a number above 0")
        if not 0 <= self.drain_s < float("inf"):
            raise InputError(f"serve.drain_s is {self.drain_s}; give at least 0 seconds")

    @property
    def body_bytes(self) -> int:
        """Largest request body in bytes."""
        return int(self.body_mb * 2**20)
