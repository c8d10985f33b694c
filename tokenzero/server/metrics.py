"""What a running server tells Prometheus, and the middleware that watches every request.

Names begin with ``tokenzero_``. It keeps no history and draws nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.server.errors import failed

ABORT = "tokenzero.abort"
"""Key of a scope: a function that ends the connection at once, whatever is still to be sent."""
GONE = 499
"""Status of a request whose client left before the answer."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """All that is measured, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("tokenzero_requests", "Requests answered", ["route", "code"], **own)
        self.seconds = Histogram(
            "tokenzero_request_seconds", "Seconds of a request", ["route"], buckets=SECONDS, **own
        )
        self.in_flight = Gauge("tokenzero_requests_in_flight", "Requests being served", **own)
        self.waiting = Gauge("tokenzero_answers_waiting", "Answers that wait for a place", **own)
        self.in_play = Gauge("tokenzero_answers_in_play", "Answers being worked on", **own)
        self.answers = Counter("tokenzero_answers", "Finished answers", ["method", "end"], **own)
        self.answer_seconds = Histogram(
            "tokenzero_answer_seconds", "From request to answer", ["method"], buckets=SECONDS, **own
        )
        self.spent = Counter("tokenzero_spent", "What answers cost, by field of the ledger", ["field"], **own)
        self.rows = Histogram("tokenzero_forward_rows", "Rows of a forward", buckets=ROWS, **own)

    def pay(self, ledger: Ledger) -> None:
        """Add the cost of an answer."""
        for entry in fields(ledger):
            self.spent.labels(entry.name).inc(max(0, getattr(ledger, entry.name)))

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class ObservedEngine:
    """An engine whose forwards are counted; everything else is the engine's own."""

    def __init__(self, engine: Engine, observe: Callable[[int], None]) -> None:
        self.ledger = engine.ledger
        self._engine = engine
        self._observe = observe

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        self._observe(len(prompts))
        return self._engine.prefill(prompts)

    def extend(self, states: Ids, tokens: Ids) -> Step:
        self._observe(len(states))
        return self._engine.extend(states, tokens)

    def release(self, states: Ids) -> None:
        self._engine.release(states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Watch:
    """Middleware, the outermost one: counts requests, and turns a failure that nobody foresaw into a 503."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # uvicorn's own object is behind its send; ASGI itself cannot end a connection that nobody reads.
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        scope[ABORT] = getattr(transport, "abort", lambda: None)
        started, code = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            if code:
                failed(error, f"an answer to {scope['path']!r}")
                scope[ABORT]()
            else:
                await failed(error, "the request").response()(scope, receive, watched)
        finally:
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(code or GONE)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
