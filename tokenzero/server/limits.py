"""How much one request may bring along and ask for.

Sizes of bodies are counted as they arrive, whatever the client says they are. What a client may spend in
tokens is checked where the prompt is known (see ``asking``).
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenzero.selfplay.methods import MethodConfig
from tokenzero.server.config import ServeConfig
from tokenzero.server.errors import ApiError, refused

LONGEST_STEP = 4096
LONGEST_DELIMITER = 100
LINGER_BYTES = 1 << 26
LINGER_S = 5.0
"""How much of a refused body is still taken and thrown away, and for how long."""


class BodyLimit:
    """Middleware: a body of more than ``most`` bytes is refused with 413, before it is read to its end."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > self._most:
            await self._refuse(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if size > self._most:
                raise TooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except TooLarge:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not any(name == b"expect" for name, _ in scope["headers"]):  # whoever expects an answer has it now
            await _discard(receive)
        await self._error().response()(scope, receive, send)

    def _error(self) -> ApiError:
        megabytes = self._most / 2**20
        return ApiError(
            413,
            f"the body is larger than {megabytes:g} MiB; send less at a time",
            code="body_too_large",
            headers={"Connection": "close"},
        )


class TooLarge(BaseException):
    """The body of a request went over its limit. No ``Exception``, so that nobody on the way takes it for a
    body that cannot be parsed.
    """


async def _discard(receive: Receive) -> None:
    """Let a client come to the end of what it sends, within bounds. One that is cut off before sees a broken
    connection, and not why it was refused.
    """
    size = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES:
                message = await receive()
                if not message.get("more_body", False):
                    return
                size += len(message.get("body", b""))
    except TimeoutError:
        return


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def check_search(search: MethodConfig, limits: ServeConfig) -> None:
    """Refuse a search that asks for more than the server gives."""
    most = {
        "simulations": limits.simulations,
        "n": limits.samples,
        "groups": limits.samples,
        "proposals": limits.samples,
        "step_tokens": LONGEST_STEP,
    }
    for name, limit in most.items():
        value = getattr(search, name)
        if value is not None and value > limit:
            raise refused(f"search.{name} is {value}; this server gives at most {limit}", f"search.{name}")
    if search.delimiter is not None and len(search.delimiter) > LONGEST_DELIMITER:
        raise refused(f"search.delimiter is longer than {LONGEST_DELIMITER} characters", "search.delimiter")
