"""The server as a process: its socket, its signals, and how it ends.

SIGTERM and SIGINT alike: new requests are refused with 503, what is in play is finished for so many seconds,
and the process ends with exit code 0. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.server.app import create_app
from tokenzero.server.conductor import Conductor
from tokenzero.server.config import ServeConfig

LAST_WORDS_S = 2
"""Seconds that finished answers have to get out before connections are closed."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """uvicorn's server, which drains the conductor before it closes its door."""

    def __init__(self, config: uvicorn.Config, conductor: Conductor, drain_s: float) -> None:
        super().__init__(config)
        self._conductor = conductor
        self._drain_s = drain_s
        self._told: float | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own would end the process by the signal; here it was told to stop, and has done so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time, stop."""
        if self._told is not None:
            self.should_exit = self.force_exit = True
        self._told = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop now."""
        if self._told is not None:
            self._conductor.drain()
            if self._conductor.idle or time.monotonic() - self._told >= self._drain_s:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What is still unfinished is answered with 503."""
        self._conductor.close()
        await super().shutdown(sockets)


def run(
    opened: Opened,
    config: ServeConfig,
    host: str = "127.0.0.1",
    port: int = 8000,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until the process is told to stop; ``started(url)`` is called when requests are taken.

    Raises InputError when the address cannot be had.
    """
    app = create_app(opened, config)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    try:
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be had ({error.strerror}); give another --port, or 0 for any free one"
        ) from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        server = Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=LAST_WORDS_S,
            ),
            app.state.service.conductor,
            config.drain_s,
        )
        app.state.service.warm()
        started(f"http://{shown}:{listener.getsockname()[1]}")
        sys.stderr.flush()
        server.run(sockets=[listener])
