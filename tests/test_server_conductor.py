"""The thread that owns the model: sharing, fairness, limits, failures, cancelling, ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from fake_method import LENGTH, FakeMethod

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.session import Asked
from tokenzero.server.conductor import Conductor
from tokenzero.server.tickets import Broken, Closed, Full, Ticket
from tokenzero.tasks import PublicProblem

LIMIT_S = 20.0


def ticket(
    seed: int = 0, prompt: str = "p", group: str = "g", deadline: float | None = None, limit: int = LENGTH
) -> Ticket:
    problem = PublicProblem("1", prompt, limit=limit)
    return Ticket(group, Asked(problem, np.random.default_rng(seed), deadline=deadline))


@contextmanager
def conducting(method: FakeMethod, **options: float) -> Iterator[Conductor]:
    conductor = Conductor(lambda group: method, **options)  # type: ignore[arg-type]
    conductor.start()
    try:
        yield conductor
    finally:
        method.gate.set()
        conductor.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end, pause = time.monotonic() + LIMIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it never came true"
        pause.wait(0.001)


def tokens(one: Ticket) -> list[int]:
    return one.game.result(LIMIT_S).tokens


def alone(seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(4, 10, size=LENGTH).tolist()


def test_games_of_a_group_share_steps_and_are_the_same_as_alone() -> None:
    method = FakeMethod()
    method.gate.clear()
    asked = [ticket(seed) for seed in range(8)]
    with conducting(method) as conductor:
        conductor.submit(asked)
        method.gate.set()
        assert [tokens(one) for one in asked] == [alone(seed) for seed in range(8)]
    assert method.rows == [8] * LENGTH
    assert len(method.sessions) == 1


def test_groups_have_sessions_of_their_own_that_take_turns() -> None:
    method = FakeMethod()
    asked = [ticket(seed, group=name) for seed, name in enumerate("aabb")]
    with conducting(method) as conductor:
        conductor.submit(asked)
        assert [tokens(one) for one in asked] == [alone(seed) for seed in range(4)]
    assert len(method.sessions) == 2


def test_what_comes_later_joins_the_batch_that_is_going() -> None:
    method = FakeMethod()
    method.gate.clear()
    first, second = ticket(0), ticket(1)
    with conducting(method) as conductor:
        conductor.submit([first])
        until(lambda: conductor.in_play == 1)
        conductor.submit([second])
        method.gate.set()
        assert (tokens(first), tokens(second)) == (alone(0), alone(1))
    assert sum(method.rows) == 2 * LENGTH
    assert len(method.rows) < 2 * LENGTH


def test_places_are_a_limit_over_all_groups() -> None:
    method = FakeMethod()
    asked = [ticket(seed, group="ab"[seed % 2]) for seed in range(10)]
    with conducting(method, places=3) as conductor:
        conductor.submit(asked)
        assert [tokens(one) for one in asked] == [alone(seed) for seed in range(10)]
    assert max(method.rows) <= 3


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    method = FakeMethod()
    method.gate.clear()
    with conducting(method, places=1, waiting=2) as conductor:
        kept = [ticket(0), ticket(1)]
        conductor.submit(kept)
        with pytest.raises(Full) as full:
            conductor.submit([ticket(2), ticket(3)])
        assert 1 <= full.value.retry_after <= 60
        last = ticket(4)
        conductor.submit([last])
        method.gate.set()
        assert [tokens(one) for one in (*kept, last)] == [alone(0), alone(1), alone(4)]
        until(lambda: conductor.taken == 0)
        conductor.submit([ticket(5), ticket(6), ticket(7)])


def test_a_refused_problem_fails_alone() -> None:
    method = FakeMethod()
    good, bad = ticket(1), ticket(2, prompt="refuse")
    with conducting(method) as conductor:
        conductor.submit([bad, good])
        with pytest.raises(InputError, match="refused"):
            bad.game.result(LIMIT_S)
        assert tokens(good) == alone(1)
        until(lambda: conductor.taken == 0)


def test_a_broken_session_fails_its_own_and_the_next_one_is_new(caplog: pytest.LogCaptureFixture) -> None:
    method = FakeMethod()
    method.gate.clear()
    bad, beside, other = ticket(0, prompt="fail"), ticket(1), ticket(2, group="other")
    with conducting(method) as conductor:
        conductor.submit([bad, beside, other])
        method.gate.set()
        for one in (bad, beside):
            with pytest.raises(Broken, match="RuntimeError"):
                one.game.result(LIMIT_S)
        assert tokens(other) == alone(2)
        later = ticket(3)
        conductor.submit([later])
        assert tokens(later) == alone(3)
        until(lambda: conductor.taken == 0)
    assert "planted" in caplog.text
    assert [session.closed for session in method.sessions] == [True] * 3


def test_a_method_that_cannot_be_made_fails_its_ticket() -> None:
    def refusing(group: object) -> FakeMethod:
        raise InputError("no such method; use another")

    conductor = Conductor(refusing)
    conductor.start()
    one = ticket()
    conductor.submit([one])
    with pytest.raises(InputError, match="no such method"):
        one.game.result(LIMIT_S)
    conductor.close()


def test_dropping_frees_the_place_in_play_and_in_the_queue() -> None:
    method = FakeMethod()
    method.gate.clear()
    with conducting(method, places=1, waiting=1) as conductor:
        playing, waiting = ticket(0, limit=10**9), ticket(1)
        conductor.submit([playing])
        until(lambda: conductor.in_play == 1)
        conductor.submit([waiting])
        conductor.drop([waiting, playing])
        method.gate.set()
        until(lambda: conductor.taken == 0)
        assert method.dropped == 1
        last = ticket(2)
        conductor.submit([last])
        assert tokens(last) == alone(2)
        conductor.drop([last, playing])  # both are over: nothing happens
        until(lambda: conductor.idle)
        assert conductor.taken == 0
    assert not waiting.game.done()


def test_what_waits_beyond_its_deadline_is_answered_at_once() -> None:
    method = FakeMethod()
    method.gate.clear()
    with conducting(method, places=1) as conductor:
        playing = ticket(0)
        conductor.submit([playing])
        until(lambda: conductor.in_play == 1)
        late = ticket(1, deadline=time.monotonic())
        conductor.submit([late])
        method.gate.set()
        game = late.game.result(LIMIT_S)
    assert (game.end, game.tokens, game.forwarded) == ("budget", [], 0)


def test_sessions_are_closed_when_idle_or_in_the_way() -> None:
    method = FakeMethod()
    with conducting(method, sessions=2) as conductor:
        for name in "abc":
            one = ticket(1, group=name)
            conductor.submit([one])
            assert tokens(one) == alone(1)
            until(lambda: conductor.idle)
        assert [session.closed for session in method.sessions] == [True, False, False]
    assert all(session.closed for session in method.sessions)
    other = FakeMethod()
    with conducting(other, idle_s=1e-6) as conductor:
        one = ticket(1)
        conductor.submit([one])
        tokens(one)
        until(lambda: other.sessions[0].closed)


def test_chores_run_between_steps_and_report_failure() -> None:
    def work(result: int | Exception) -> Generator[None, None, int]:
        yield
        yield
        if isinstance(result, Exception):
            raise result
        return result

    method = FakeMethod()
    with conducting(method) as conductor:
        one = ticket(0)
        conductor.submit([one])
        assert conductor.call(work(7)).result(LIMIT_S) == 7
        with pytest.raises(InputError, match="too long"):
            conductor.call(work(InputError("too long; shorten it"))).result(LIMIT_S)
        with pytest.raises(Broken, match="ZeroDivisionError"):
            conductor.call(work(ZeroDivisionError())).result(LIMIT_S)
        assert tokens(one) == alone(0)


def test_a_cancelled_chore_is_left() -> None:
    steps: list[int] = []

    def endless() -> Generator[None, None, None]:
        while True:
            steps.append(1)
            yield

    with conducting(FakeMethod()) as conductor:
        result = conductor.call(endless())
        until(lambda: len(steps) > 3)
        assert result.cancel()
        until(lambda: conductor.idle)


def test_draining_finishes_what_is_there_and_takes_nothing_new() -> None:
    method = FakeMethod()
    method.gate.clear()
    with conducting(method) as conductor:
        one = ticket(0)
        conductor.submit([one])
        assert conductor.alive
        conductor.drain()
        assert not conductor.alive
        with pytest.raises(Closed):
            conductor.submit([ticket(1)])
        method.gate.set()
        assert tokens(one) == alone(0)


def test_closing_fails_what_is_unfinished() -> None:
    method = FakeMethod()
    with conducting(method, places=1) as conductor:
        playing, waiting = ticket(0, limit=10**9), ticket(1)
        conductor.submit([playing, waiting])
        until(lambda: conductor.in_play == 1)
        conductor.close()
        for one in (playing, waiting):
            with pytest.raises(Closed):
                one.game.result(LIMIT_S)
    assert method.sessions[0].closed
