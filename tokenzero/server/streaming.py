"""Answers sent piece by piece as server-sent events.

Tokens wait in the list of their answer until the reader takes what has come together, so a slow reader costs
no more than the answer itself; one that takes nothing for too long is dropped. Which JSON a piece is written
as is the business of ``completions`` and ``chat``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.game import Game
from tokenzero.server.answers import Answer, answer, usage, with_scores
from tokenzero.server.asking import Order, left, submit, told
from tokenzero.server.metrics import ABORT
from tokenzero.server.service import Service
from tokenzero.server.spelling import Growing
from tokenzero.server.tickets import Ticket

Events = AsyncGenerator[dict[str, Any], None]
DONE = b"data: [DONE]\n\n"


async def pieces(
    service: Service,
    found: Order,
    write: Callable[[int, str, Answer | None], dict[str, Any]],
    *,
    top: int | None,
    first: Callable[[int], str] = lambda index: "",
) -> Events:
    """Chunks of the answers to an order: ``write(index, text, answer)`` makes one of a piece of text, with
    the whole ``answer`` where it is the last of its index. At last a chunk with the usage, if it is wanted.

    ``first(index)`` is text sent before the answer. With ``top`` (likeliest tokens at each place) an answer
    comes in one piece, when it is finished and scored.
    """
    news, loop = asyncio.Event(), asyncio.get_running_loop()
    growing = [Growing(service.spelling, found.body.stops) for _ in found.tickets]
    for index, ticket in enumerate(found.tickets):
        ticket.asked = replace(ticket.asked, on_tokens=_listener(loop, news, growing[index]))
        ticket.game.add_done_callback(lambda _: _call(loop, news.set))
    submit(service, found)
    begun = [False] * len(growing)
    made: dict[int, Game] = {}
    ledger = Ledger()
    try:
        while len(made) < len(growing):
            await news.wait()
            news.clear()
            for index, ticket in enumerate(found.tickets):
                if index in made:
                    continue
                last = None
                if ticket.game.done():
                    made[index] = game = _game(ticket)
                    ledger.add(game.ledger)
                    whole = answer(service, found, index, game)
                    [last] = await with_scores(service, [whole], top, ledger)
                elif top is not None:
                    continue
                text = growing[index].take() if last is None else growing[index].rest(last.text)
                if (text or last is not None) and not begun[index]:
                    text, begun[index] = first(index) + text, True
                if text or last is not None:
                    yield write(index, text, last)
        spent = usage(service, found, list(made.values()), ledger)
        if found.body.wants_usage:
            yield {"usage": spent}
    finally:
        service.conductor.drop([ticket for ticket in found.tickets if not ticket.game.done()])
        for ticket in found.tickets:
            ticket.game.cancel()


def _game(ticket: Ticket) -> Game:
    """What a ticket came to. Raises ApiError where it failed."""
    error = ticket.game.exception()
    if error is not None:
        raise told(error) from error
    return ticket.game.result()


def _listener(
    loop: asyncio.AbstractEventLoop, news: asyncio.Event, growing: Growing
) -> Callable[[list[int]], None]:
    def hear(tokens: list[int]) -> None:
        growing.add(tokens)
        news.set()

    return lambda tokens: _call(loop, hear, list(tokens))


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on the event loop, from the conductor's thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who listened
        loop.call_soon_threadsafe(function, *arguments)


class EventStream(Response):
    """Server-sent events: those of ``opening``, which are known already, so that an early failure could still
    be an HTTP status, and then each of ``events`` as ``write`` writes it. A reader that takes longer than
    ``stall_s`` for one piece is cut off.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        opening: Sequence[dict[str, Any]],
        events: Events,
        write: Callable[[dict[str, Any]], Sequence[dict[str, Any]]],
        stall_s: float,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._opening = list(opening)
        self._events = events
        self._write = write
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            scope[ABORT]()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await asyncio.wait_for(send(start), self._stall_s)
        for event in self._opening:
            await self._piece(send, encoded(event))
        async for event in self._told():
            await self._piece(send, encoded(event))
        await self._piece(send, DONE)
        await asyncio.wait_for(
            send({"type": "http.response.body", "body": b"", "more_body": False}), self._stall_s
        )

    async def _told(self) -> Events:
        """The events as they are written; a failure is the last of them, for the status was sent long ago."""
        try:
            async for event in self._events:
                for written in self._write(event):
                    yield written
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            yield told(error).body()

    async def _piece(self, send: Send, body: bytes) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": True}
        await asyncio.wait_for(send(message), self._stall_s)


def encoded(event: dict[str, Any]) -> bytes:
    """One event on the wire."""
    return b"data: " + json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
