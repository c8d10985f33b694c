"""A client of OpenAI-compatible servers that takes a batch and gives back a row for every request.

The life of a request: (1) its key is looked up in the cache; (2) prompts that differ in nothing else share
one HTTP request; (3) a closed circuit breaker lets it through; (4) the rate limiter says when; (5) it is
sent, with one time limit from the first byte to the last; (6) a fault that may pass is waited out and tried
again; (7) the answer is read and cached, or (8) the row is a ``Failure`` with its reason. The server's
faults are never raised and the key is never written anywhere. It does not stream, call tools, apply chat
templates or know tokenizers.
"""

from __future__ import annotations

import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client_answer import (
    AnswerError,
    Choice,
    CompletionRequest,
    CompletionResult,
    Failure,
    read_answer,
)
from tokenzero.policy.completion_client_config import ServerConfig, api_key, base_url, is_loopback
from tokenzero.policy.completion_client_pacing import CircuitBreaker, RateLimiter, asked_wait, backoff
from tokenzero.policy.response_cache import ResponseCache, request_key

if TYPE_CHECKING:
    import httpx

__all__ = ["Choice", "CompletionClient", "CompletionRequest", "CompletionResult", "Failure", "ServerConfig"]

_LONGEST_ANSWER = 64 * 2**20  # bytes; anything beyond is no answer to a completion
_DETAIL = 200  # characters of the server's own words in a message
_PASSING = {408, 409, 425, 429}  # and every 5xx


class _Job(NamedTuple):
    key: str
    request: CompletionRequest


class _Fault(Exception):
    """One failed attempt. ``passing``: another may succeed; ``wait``: seconds the server asked for."""

    def __init__(self, reason: str, detail: str, passing: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.passing, self.wait = reason, detail, passing, wait


class CompletionClient:
    """Sends requests to the server of ``config``. Close it, or use it in a ``with`` block.

    Attributes, totals since it was made: ``requests`` HTTP requests sent, retries included; ``tokens`` paid
    for (``estimated_tokens`` of them guessed); ``faults`` failed attempts by reason, mended ones included;
    ``hits`` answers from the cache. ``breaker`` and ``cache`` (or None) keep counts of their own.

    ``clock`` gives seconds, ``sleep`` waits for some. Raises InputError when httpx is missing, the key
    cannot be had, or the cache cannot be opened.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self.url = base_url(config.url)
        self.requests = 0
        self.tokens = 0
        self.estimated_tokens = 0
        self.hits = 0
        self.faults: Counter[str] = Counter()
        self.breaker = CircuitBreaker(config.breaker_failures, config.breaker_cooldown_s, clock)
        self._clock = clock
        self._sleep = sleep
        self._key = api_key(config)
        self._limiter = RateLimiter(config.requests_per_minute, config.tokens_per_minute, clock)
        self._lock = Lock()
        self._arrays_refused = False
        self._http = _open(config, self._key)
        self.cache: ResponseCache | None = None
        if config.cache_dir is not None:
            self.cache = ResponseCache(config.cache_dir, int(config.cache_mb * 2**20))

    def complete(self, requests: Sequence[CompletionRequest]) -> list[CompletionResult | Failure]:
        """One row for each request, in order. Equal requests are sent once and get the same answer.

        Never raises for anything the server or the network does. Reasons of failure: "timeout", "connection",
        "rate limit", "server error", "unauthorised", "refused", "malformed JSON", "wrong schema",
        "circuit open".
        """
        keys = [self.key(request) for request in requests]
        jobs = {key: _Job(key, request) for key, request in zip(keys, requests, strict=True)}
        outcomes = self._remembered(jobs)
        outcomes.update(self._ask([job for key, job in jobs.items() if key not in outcomes]))
        rows: list[CompletionResult | Failure] = []
        for key in keys:
            outcome = outcomes[key]
            rows.append(outcome)
            if isinstance(outcome, CompletionResult):
                outcomes[key] = replace(outcome, cached=True)  # a repeat of it costs nothing
        return rows

    def key(self, request: CompletionRequest) -> str:
        """Under which the answer is cached: sha256 of address, endpoint and body. The API key is not in
        it.
        """
        body = request.body(self.config.model, self.config.extra)
        return request_key(self.url, request.endpoint, body)

    def close(self) -> None:
        """Close connections and cache."""
        self._http.close()
        if self.cache is not None:
            self.cache.close()

    def __enter__(self) -> CompletionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- from rows to HTTP requests

    def _remembered(self, keys: Iterable[str]) -> dict[str, CompletionResult | Failure]:
        known: dict[str, CompletionResult | Failure] = {}
        if self.cache is None:
            return known
        for key, record in self.cache.get(keys).items():
            try:
                known[key] = CompletionResult.from_json(record)
            except AnswerError:  # asked again and overwritten
                self.cache.corrupt += 1
        self.hits += len(known)
        return known

    def _ask(self, jobs: Sequence[_Job]) -> dict[str, CompletionResult | Failure]:
        groups = self._groups(jobs)
        answers: list[list[CompletionResult | Failure]]
        if len(groups) <= 1:
            answers = [self._answers(group) for group in groups]
        else:
            pool = ThreadPoolExecutor(min(self.config.concurrency, len(groups)), "completion")
            try:
                answers = list(pool.map(self._answers, groups))
            finally:
                pool.shutdown(cancel_futures=True)
        return {
            job.key: outcome
            for group, part in zip(groups, answers, strict=True)
            for job, outcome in zip(group, part, strict=True)
        }

    def _groups(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """Jobs that differ in their prompt only, at most ``prompts_per_request`` together; chats stay
        alone.
        """
        size = 1 if self._arrays_refused else self.config.prompts_per_request
        alike: dict[CompletionRequest, list[_Job]] = {}
        for job in jobs:
            shape = job.request if job.request.messages else replace(job.request, prompt="")
            alike.setdefault(shape, []).append(job)
        return [part[at : at + size] for part in alike.values() for at in range(0, len(part), size)]

    def _answers(self, group: list[_Job]) -> list[CompletionResult | Failure]:
        outcome = self._send(group)
        if isinstance(outcome, list):
            for job, result in zip(group, outcome, strict=True):
                if self.cache is not None:
                    self.cache.put(job.key, result.as_json())
            return [*outcome]
        if len(group) == 1 or outcome.reason not in ("refused", "wrong schema"):
            return [outcome] * len(group)
        # The server does not take several prompts, or one of them spoils the rest: one request each tells.
        singles = [self._answers([job])[0] for job in group]
        if all(isinstance(one, CompletionResult) for one in singles):
            self._arrays_refused = True
        return singles

    # ---- one HTTP request, with its retries

    def _send(self, group: Sequence[_Job]) -> list[CompletionResult] | Failure:
        if not self.breaker.allow():
            return Failure("circuit open", "the server kept failing; it is left alone for a while")
        outcome: list[CompletionResult] | Failure | None = None
        try:
            outcome = self._tried(group)
        finally:
            if isinstance(outcome, list):
                self.breaker.succeeded()
            elif outcome is None or outcome.reason == "refused":
                self.breaker.neither()
            else:
                self.breaker.failed()
        return outcome

    def _tried(self, group: Sequence[_Job]) -> list[CompletionResult] | Failure:
        attempt = 0
        while True:
            try:
                return self._attempt(group)
            except _Fault as fault:
                with self._lock:
                    self.faults[fault.reason] += 1
                wait = self._wait(group[0].key, attempt, fault)
                attempt += 1
                if wait is None or attempt > self.config.retries:
                    return Failure(fault.reason, fault.detail, attempt)
                self._sleep(wait)

    def _wait(self, key: str, attempt: int, fault: _Fault) -> float | None:
        """Seconds until the next attempt; None when there should be none."""
        if not fault.passing:
            return None
        drawn = backoff(self.config.backoff_s, attempt, f"{self.config.seed} {key} {attempt}")
        if fault.wait is None:
            return min(drawn, self.config.longest_wait_s)
        if fault.wait > self.config.longest_wait_s:
            fault.detail = f"asks to wait {fault.wait:g} s; {fault.detail}"
            return None
        self._limiter.pause(fault.wait)
        return max(fault.wait, min(drawn, self.config.longest_wait_s))

    def _attempt(self, group: Sequence[_Job]) -> list[CompletionResult]:
        requests = [job.request for job in group]
        body = requests[0].body(self.config.model, self.config.extra)
        if len(group) > 1:
            body["prompt"] = [request.prompt for request in requests]
        booked = sum(r.estimated_prompt_tokens + r.n * r.max_tokens for r in requests)
        wait = self._limiter.book(booked)
        if wait > 0:
            self._sleep(wait)
        with self._lock:
            self.requests += 1
        payload = self._post(requests[0].endpoint, body)
        try:
            results = read_answer(payload, requests)
        except AnswerError as error:
            raise _Fault("wrong schema", self._line(str(error)), passing=False) from error
        spent = sum(result.spent for result in results)
        self._limiter.settle(booked, spent)
        with self._lock:
            self.tokens += spent
            self.estimated_tokens += sum(result.spent for result in results if result.estimated)
        return results

    def _post(self, endpoint: str, body: dict[str, Any]) -> Any:
        """The JSON of a good answer; raises _Fault for every other."""
        import httpx

        try:
            status, headers, content = self._exchange(self.url + endpoint, body)
        except httpx.TimeoutException as error:
            detail = f"no whole answer within {self.config.timeout_s:g} s ({type(error).__name__})"
            raise _Fault("timeout", detail, passing=True) from error
        except httpx.HTTPError as error:
            raise _Fault(
                "connection", self._line(str(error) or type(error).__name__), passing=True
            ) from error
        try:
            payload = json.loads(content)
        except (ValueError, RecursionError) as error:
            if 200 <= status < 300:
                raise _Fault("malformed JSON", self._line(_shown(content)), passing=True) from error
            payload = None
        if isinstance(payload, dict) and payload.get("error") and "choices" not in payload:
            status = status if status >= 300 else _code(payload["error"])
        if 200 <= status < 300:
            return payload
        raise self._status_fault(status, headers, self._line(_words(payload) or _shown(content)))

    def _exchange(self, url: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and whole body. httpx limits each step; the sum of the steps is limited here."""
        import httpx

        until = self._clock() + self.config.timeout_s
        content = json.dumps(body, ensure_ascii=True).encode("ascii")
        parts: list[bytes] = []
        size = 0
        with self._http.stream("POST", url, content=content) as response:
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if self._clock() > until:
                    raise httpx.ReadTimeout("the answer trickles in")
                if size > _LONGEST_ANSWER:
                    raise httpx.ReadError(f"the answer has more than {_LONGEST_ANSWER} bytes")
            return response.status_code, response.headers, b"".join(parts)

    def _status_fault(self, status: int, headers: httpx.Headers, words: str) -> _Fault:
        detail = f"HTTP {status}: {words}" if words else f"HTTP {status}"
        if status in (401, 403):
            return _Fault("unauthorised", detail, passing=False)
        if status in _PASSING or status >= 500:
            wait = asked_wait(headers, lambda: datetime.now(UTC))
            return _Fault("rate limit" if status == 429 else "server error", detail, passing=True, wait=wait)
        return _Fault("refused", detail, passing=False)

    def _line(self, text: str) -> str:
        """One short line without the key, whatever the server repeats of what it was sent."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:_DETAIL]


def _open(config: ServerConfig, key: str | None) -> httpx.Client:
    try:
        import httpx
    except ImportError as error:
        raise InputError(
            "a remote server needs a package that is not installed; run pip install 'tokenzero[remote]'"
        ) from error
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "tokenzero"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.Client(
        headers=headers,
        timeout=config.timeout_s,
        limits=httpx.Limits(max_connections=config.concurrency),
        # an empty context trusts nobody; plain http never asks it, and loading certificates takes a while
        verify=True if base_url(config.url).startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=not is_loopback(config.url),  # proxies of the environment do not lead to this machine
    )


def _code(error: Any) -> int:
    """The HTTP status some servers put into the body of a 200 answer; 500 when there is none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 300 <= code < 600 else 500


def _words(payload: Any) -> str:
    """What the server says went wrong, wherever it says so."""
    for name in ("error", "message", "detail"):
        if not isinstance(payload, dict):
            break
        if payload.get(name):
            payload = payload[name]
    return payload if isinstance(payload, str) else json.dumps(payload) if payload else ""


def _shown(content: bytes) -> str:
    return content[: 4 * _DETAIL].decode("utf-8", "replace")
