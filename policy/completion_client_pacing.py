"""When a request may be sent: rate limits, waits between attempts, and a circuit breaker.

Time is handed in, so that nothing here sleeps in a test. Nothing here sends a request or knows what one is.
All classes may be used by several threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from threading import Lock

__all__ = ["CircuitBreaker", "RateLimiter", "asked_wait", "backoff"]

_LONGEST_COOLDOWN_S = 600.0


class RateLimiter:
    """Spaces requests and tokens evenly, so that no minute holds more of them than the limits say.

    A request is booked at the first free moment and the next one after it (the generic cell rate algorithm
    with no burst). ``None`` is no limit.
    """

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Callable[[], float]
    ) -> None:
        self._per_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = Lock()
        self._request_at = self._token_at = self._paused_until = clock()

    def book(self, tokens: int) -> float:
        """Seconds to wait before sending a request of about ``tokens`` tokens; it counts from now on."""
        with self._lock:
            now = self._clock()
            at = max(now, self._request_at, self._token_at, self._paused_until)
            self._request_at = at + self._per_request
            self._token_at = at + tokens * self._per_token
            return at - now

    def settle(self, booked: int, actual: int) -> None:
        """Correct a booking by the number of tokens the server counted."""
        with self._lock:
            self._token_at += (actual - booked) * self._per_token

    def pause(self, seconds: float) -> None:
        """Let nobody send for so long: the server asked one of us to wait, and means all."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)


class CircuitBreaker:
    """Stops the traffic to a server that keeps failing (Nygard 2007, "Release It!").

    Closed until ``failures`` requests in a row fail; then open for ``cooldown_s``; then half open: one
    request is let through as a trial. Its success closes the breaker, its failure opens it for twice as long
    as before, ten minutes at most.
    """

    def __init__(self, failures: int, cooldown_s: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._first_cooldown = cooldown_s
        self._cooldown = cooldown_s
        self._clock = clock
        self._lock = Lock()
        self._in_a_row = 0
        self._open_until: float | None = None
        self._on_trial = False
        self.openings = 0
        """How often it opened."""

    @property
    def is_open(self) -> bool:
        """Whether requests are refused at this moment."""
        with self._lock:
            return self._refuses()

    def allow(self) -> bool:
        """Whether a request may be sent. Who was allowed must report with one of the three methods below."""
        with self._lock:
            if self._open_until is None:
                return True
            if self._refuses():
                return False
            self._on_trial = True
            return True

    def succeeded(self) -> None:
        """The server answered as it should."""
        with self._lock:
            self._in_a_row = 0
            self._open_until = None
            self._on_trial = False
            self._cooldown = self._first_cooldown

    def failed(self) -> None:
        """The server did not, after all attempts."""
        with self._lock:
            self._in_a_row += 1
            if self._on_trial:
                self._on_trial = False
                self._cooldown = min(2 * self._cooldown, max(_LONGEST_COOLDOWN_S, self._first_cooldown))
            elif self._open_until is not None or self._in_a_row < self._limit:
                return  # already open: a request that was under way when it opened says nothing new
            self._open_until = self._clock() + self._cooldown
            self.openings += 1

    def neither(self) -> None:
        """The request itself was at fault, which says nothing about the server; a trial is to be repeated."""
        with self._lock:
            self._on_trial = False

    def _refuses(self) -> bool:
        return self._open_until is not None and (self._on_trial or self._clock() < self._open_until)


def backoff(base_s: float, attempt: int, seed: str) -> float:
    """Seconds before attempt ``attempt`` + 1: base * 2^attempt, less up to half of it by the chance of
    ``seed``.

    The chance keeps clients that failed together from coming back together.
    """
    return base_s * float(2**attempt) * (0.5 + 0.5 * random.Random(seed).random())


def asked_wait(headers: Mapping[str, str], now: Callable[[], datetime]) -> float | None:
    """Seconds the server asks for in ``retry-after-ms`` or ``retry-after`` (seconds or a date), None for
    none.

    A date is compared with the server's own ``date`` where it sends one, so that a wrong clock here does no
    harm.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        sent = parsedate_to_datetime(headers["date"]) if "date" in headers else now()
        return max(0.0, (until - sent).total_seconds())
    except (TypeError, ValueError):  # no date, or one with and one without a time zone
        return None
