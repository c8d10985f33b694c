"""An OpenAI-compatible HTTP server: requests from many clients share the engine's batches.

``create_app`` makes the application of an opened model, ``run`` serves it until the process is told to stop.
Importing this package imports neither torch nor FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenzero.server.config import ServeConfig

if TYPE_CHECKING:
    from tokenzero.server.app import create_app
    from tokenzero.server.process import run

__all__ = ["ServeConfig", "create_app", "run"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from tokenzero.server.app import create_app

        return create_app
    if name == "run":
        from tokenzero.server.process import run

        return run
    raise AttributeError(f"module 'tokenzero.server' has no attribute {name!r}")
