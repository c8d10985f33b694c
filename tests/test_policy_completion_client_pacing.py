"""Rate limits, waits and the circuit breaker on a clock that only the test moves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.policy.completion_client_pacing import CircuitBreaker, RateLimiter, asked_wait, backoff


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), min_size=1, max_size=40),
    st.sampled_from([None, 10.0, 120.0]),
    st.sampled_from([None, 300.0, 6000.0]),
)
def test_no_minute_holds_more_than_the_limits_say(
    steps: list[tuple[float, int]], requests: float | None, tokens: float | None
) -> None:
    clock = Clock()
    limiter = RateLimiter(requests, tokens, clock)
    sent: list[tuple[float, int]] = []
    for pause, size in steps:
        clock.now += pause
        wait = limiter.book(size)
        assert wait >= 0
        sent.append((clock.now + wait, size))
    assert sent == sorted(sent, key=lambda one: one[0])
    for start, _ in sent:
        window = [size for at, size in sent if start - 1e-9 <= at < start + 60 - 1e-6]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(window[:-1]) <= tokens + 1e-6  # the last one is paid for afterwards
    if requests is None and tokens is None:
        assert [at for at, _ in sent] == [at for at, _ in sent if at <= clock.now]


def test_bookings_are_settled_and_pauses_hold_for_all() -> None:
    clock = Clock()
    limiter = RateLimiter(None, 60.0, clock)
    assert limiter.book(10) == 0.0
    limiter.settle(10, 4)
    assert limiter.book(0) == 4.0
    limiter.pause(30.0)
    limiter.pause(5.0)
    assert limiter.book(0) == 30.0


def test_the_breaker_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = CircuitBreaker(3, 10.0, Clock())
    for outcome in "ffsffsff":
        assert breaker.allow()
        breaker.failed() if outcome == "f" else breaker.succeeded()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()
    assert breaker.openings == 1


def test_one_trial_at_a_time_and_each_failed_one_doubles_the_pause() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 10.0, clock)
    breaker.failed()
    for pause in (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0):
        clock.now += pause - 0.001
        assert not breaker.allow()
        clock.now += 0.001
        assert breaker.allow()
        assert not breaker.allow()  # the trial is under way
        breaker.failed()
    clock.now += 600.0
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.allow()
    breaker.failed()  # the first pause again
    clock.now += 10.0
    assert breaker.allow()


def test_requests_under_way_when_it_opened_change_nothing_and_a_trial_can_say_nothing() -> None:
    clock = Clock()
    breaker = CircuitBreaker(2, 10.0, clock)
    for _ in range(5):
        breaker.failed()
    assert breaker.openings == 1
    clock.now += 10.0
    assert breaker.allow()
    breaker.neither()
    assert breaker.allow()
    breaker.succeeded()
    assert not breaker.is_open


def test_backoff_doubles_within_its_bounds_and_is_repeatable() -> None:
    for attempt in range(6):
        waits = [backoff(0.5, attempt, f"key{i}") for i in range(200)]
        low, high = 0.25 * 2**attempt, 0.5 * 2**attempt
        assert low <= min(waits) < 1.1 * low
        assert 0.95 * high < max(waits) <= high
        assert waits == [backoff(0.5, attempt, f"key{i}") for i in range(200)]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0.0),
        (
            {"retry-after": "Wed, 21 Oct 2015 09:00:09 GMT", "date": "Wed, 21 Oct 2015 09:00:00 GMT"},
            9.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "yesterday"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, None),
    ],
)
def test_the_wait_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, lambda: datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds
