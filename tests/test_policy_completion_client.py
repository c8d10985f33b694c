"""The completion client against a real server with faults: every row comes back, with an answer or a
reason.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from completion_server import (
    Asked,
    CompletionServer,
    Reply,
    chat,
    completion,
    error,
    ok,
    old_logprobs,
    prompts_of,
    serving,
)

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import (
    CompletionClient,
    CompletionRequest,
    CompletionResult,
    Failure,
    ServerConfig,
)

KEY = "sk-very-secret-0123456789"


class Time:
    """A clock that only sleeping moves, that of any thread for all of them: time limits must be far away."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def good(asked: Asked) -> Reply:
    return completion(asked, lambda prompt: f"<{prompt}>", lambda prompt: old_logprobs({f"<{prompt}>": -0.5}))


@contextmanager
def connected(
    answer: Callable[[Asked], Reply], **settings: Any
) -> Iterator[tuple[CompletionClient, CompletionServer, Time]]:
    time = Time()
    with serving(answer) as server:
        config = ServerConfig(url=server.url, model="m", **{"timeout_s": 1e6, "concurrency": 4, **settings})
        with CompletionClient(config, clock=time.clock, sleep=time.sleep) as client:
            yield client, server, time


def texts(rows: list[CompletionResult | Failure]) -> list[str]:
    return [row.choices[0].text if isinstance(row, CompletionResult) else row.reason for row in rows]


def asks(count: int, **options: Any) -> list[CompletionRequest]:
    return [CompletionRequest(prompt=f"p{i}", **options) for i in range(count)]


def first_fails(*faults: Reply) -> Callable[[Asked], Reply]:
    return lambda asked: faults[asked.number] if asked.number < len(faults) else good(asked)


# ---- what is sent


def test_a_batch_comes_back_in_order_and_prompts_share_requests() -> None:
    with connected(good, prompts_per_request=4) as (client, server, _):
        rows = client.complete(asks(10, top=3, max_tokens=2))
    assert texts(rows) == [f"<p{i}>" for i in range(10)]
    assert sorted(len(prompts_of(asked)) for asked in server.asked) == [2, 4, 4]
    body = next(asked.body for asked in server.asked if len(prompts_of(asked)) == 2)
    assert body == {"model": "m", "max_tokens": 2, "temperature": 0.0, "logprobs": 3, "prompt": ["p8", "p9"]}
    assert {asked.path for asked in server.asked} == {"/v1/completions"}
    assert client.requests == 3
    assert client.tokens == 10 * 6
    assert sum(row.spent for row in rows if isinstance(row, CompletionResult)) == client.tokens


def test_requests_that_differ_are_not_put_together_and_equal_ones_are_sent_once() -> None:
    requests = [
        CompletionRequest("a", seed=1),
        CompletionRequest("b", seed=2),
        CompletionRequest("a", seed=1),
    ]
    with connected(good) as (client, server, _):
        rows = client.complete(requests)
    assert texts(rows) == ["<a>", "<b>", "<a>"]
    assert sorted(asked.body["prompt"] for asked in server.asked) == ["a", "b"]
    assert [row.spent for row in rows if isinstance(row, CompletionResult)] == [6, 6, 0]


def test_no_requests_send_nothing() -> None:
    with connected(good) as (client, server, _):
        assert client.complete([]) == []
    assert server.asked == []


def test_a_chat_goes_to_the_chat_endpoint_with_extra_fields_in_and_out() -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 9, "top_k": 1}
    with connected(lambda asked: chat("yes"), extra=extra) as (client, server, _):
        rows = client.complete(
            [CompletionRequest(messages=(("user", "Is it?"),), top=4, stop=("\n",), seed=3)]
        )
    assert texts(rows) == ["yes"]
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Is it?"}],
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 4,
        "stop": ["\n"],
        "seed": 3,
        "max_completion_tokens": 9,
        "top_k": 1,
    }


# ---- prompt arrays


def test_a_server_that_refuses_prompt_arrays_is_asked_one_by_one_from_then_on() -> None:
    def single(asked: Asked) -> Reply:
        return (
            error(422, "prompt must be a string") if isinstance(asked.body["prompt"], list) else good(asked)
        )

    with connected(single, prompts_per_request=4) as (client, server, _):
        assert texts(client.complete(asks(4))) == ["<p0>", "<p1>", "<p2>", "<p3>"]
        assert len(server.asked) == 5
        client.complete(asks(8)[4:])
        assert len(server.asked) == 9


def test_a_server_that_answers_the_first_prompt_alone_is_found_out() -> None:
    def first_only(asked: Asked) -> Reply:
        return good(asked._replace(body={**asked.body, "prompt": prompts_of(asked)[0]}))

    with connected(first_only) as (client, _, _):
        assert texts(client.complete(asks(3))) == ["<p0>", "<p1>", "<p2>"]


def test_one_refused_prompt_does_not_take_its_neighbours_along_nor_end_arrays() -> None:
    def picky(asked: Asked) -> Reply:
        return error(400, "too long") if "p1" in prompts_of(asked) else good(asked)

    with connected(picky, prompts_per_request=4) as (client, server, _):
        rows = client.complete(asks(4))
        assert texts(rows) == ["<p0>", "refused", "<p2>", "<p3>"]
        assert rows[1] == Failure("refused", "HTTP 400: too long", 1)
        client.complete(asks(8)[4:])
        assert len(prompts_of(server.asked[-1])) == 4


# ---- faults and retries


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (error(500, "sorry"), "server error"),
        (error(503), "server error"),
        (error(429), "rate limit"),
        (Reply(b'{"choices": [{"te'), "malformed JSON"),
        (Reply(b"<html>Bad gateway</html>"), "malformed JSON"),
        (Reply(b"[" * 100_000), "malformed JSON"),
        (Reply(b'{"choices": []}', cut=5), "connection"),
        (Reply(b"", cut=0, headers={"Content-Length": "10"}), "connection"),
        (ok({"error": {"code": 502, "message": "upstream"}}), "server error"),
        (ok({"error": "out of order"}), "server error"),
        (Reply(b"junk", headers={"Content-Encoding": "gzip"}), "connection"),
    ],
)
def test_a_fault_that_passes_is_mended_by_a_retry_and_counted(fault: Reply, reason: str) -> None:
    with connected(first_fails(fault, fault)) as (client, _, time):
        assert texts(client.complete(asks(1))) == ["<p0>"]
        assert client.faults == Counter({reason: 2})
        assert client.requests == 3
        assert 0.25 <= time.slept[0] <= 0.5 <= time.slept[1] <= 1.0


@pytest.mark.parametrize("retries", [0, 2])
def test_a_fault_that_stays_is_a_failure_with_its_reason_after_all_attempts(retries: int) -> None:
    with connected(lambda asked: error(500, "broken\n  inside"), retries=retries) as (client, server, time):
        rows = client.complete(asks(1))
        assert rows == [Failure("server error", "HTTP 500: broken inside", retries + 1)]
        assert len(server.asked) == retries + 1
        assert len(time.slept) == retries


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (error(401), "unauthorised"),
        (error(403), "unauthorised"),
        (error(404, "no such model"), "refused"),
        (Reply(b"", 301, {"Location": "http://127.0.0.1:9/v1"}), "refused"),
        (ok([1, 2]), "wrong schema"),
        (ok({"choices": []}), "wrong schema"),
        (ok({"choices": [{"text": 3}]}), "wrong schema"),
        (ok({"choices": [{"index": 0}]}), "wrong schema"),
        (ok({"choices": ["text"]}), "wrong schema"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(fault: Reply, reason: str) -> None:
    with connected(lambda asked: fault) as (client, server, _):
        assert texts(client.complete(asks(1))) == [reason]
        assert len(server.asked) == 1


def test_a_server_that_is_too_slow_runs_into_the_time_limit() -> None:
    with connected(lambda asked: Reply(b"", hold=True), timeout_s=0.03, retries=1) as (client, server, _):
        assert texts(client.complete(asks(1))) == ["timeout"]
        assert len(server.asked) == 2


def test_an_answer_that_trickles_in_runs_into_the_same_limit() -> None:
    with serving(good) as server:
        config = ServerConfig(url=server.url, model="m", timeout_s=5.0, retries=0)
        ticks = iter(range(0, 10_000, 10))  # ten seconds pass between any two looks at the clock
        with CompletionClient(config, clock=lambda: float(next(ticks)), sleep=lambda s: None) as client:
            assert texts(client.complete(asks(1))) == ["timeout"]


def test_nobody_at_home_is_a_failure() -> None:
    with serving(good) as server:
        gone = server.url
    with CompletionClient(ServerConfig(url=gone, model="m", retries=1, backoff_s=0.0)) as client:
        assert texts(client.complete(asks(2))) == ["connection", "connection"]


def test_retry_after_is_honoured_by_everybody_and_refused_when_it_is_too_long() -> None:
    fault = error(429, headers={"Retry-After": "7"})
    with connected(first_fails(fault), concurrency=1, prompts_per_request=1) as (client, _, time):
        assert texts(client.complete(asks(2))) == ["<p0>", "<p1>"]
        assert time.slept == [7.0]
    # the request that was told gives up; the others wait all the same
    with connected(first_fails(fault), retries=0) as (client, _, time):
        assert texts(client.complete(asks(1))) == ["rate limit"]
        assert texts(client.complete(asks(1))) == ["<p0>"]
        assert time.slept == [7.0]
    long = error(429, "slow down", {"Retry-After": "3600"})
    with connected(lambda asked: long) as (client, server, time):
        rows = client.complete(asks(1))
        assert rows == [Failure("rate limit", "asks to wait 3600 s; HTTP 429: slow down", 1)]
        assert time.slept == []
        assert len(server.asked) == 1


def test_half_of_all_requests_failing_leaves_every_row_with_an_answer_or_a_reason() -> None:
    faults = [error(500), error(429), Reply(b"{"), Reply(b"{}" * 99, cut=3), ok({"choices": 1}), error(401)]

    def flaky(asked: Asked) -> Reply:
        chance = random.Random(f"{asked.body['prompt']} {seen[asked.body['prompt']]}")
        seen[asked.body["prompt"]] += 1
        return chance.choice(faults) if chance.random() < 0.5 else good(asked)

    outcomes: list[Counter[str]] = []
    for retries in (0, 3, 3):
        seen: Counter[str] = Counter()
        settings = {"prompts_per_request": 1, "retries": retries, "breaker_failures": 200, "concurrency": 8}
        with connected(flaky, **settings) as (client, server, time):
            rows = client.complete(asks(200))
            assert len(rows) == 200
            answered = [i for i, row in enumerate(rows) if isinstance(row, CompletionResult)]
            assert all(texts(rows)[i] == f"<p{i}>" for i in answered)
            failed = Counter(row.reason for row in rows if isinstance(row, Failure))
            assert len(answered) + failed.total() == 200
            assert client.requests == len(server.asked) == len(answered) + client.faults.total()
            assert client.tokens == 6 * len(answered)
            outcomes.append(failed)
            assert (not time.slept) == (retries == 0)
    assert 70 <= outcomes[0].total() <= 130
    assert set(outcomes[0]) == {
        "server error",
        "rate limit",
        "malformed JSON",
        "connection",
        "wrong schema",
        "unauthorised",
    }
    assert 0 < outcomes[1].total() < outcomes[0].total()
    assert outcomes[1] == outcomes[2]


def test_a_server_that_keeps_failing_is_left_alone_and_tried_again() -> None:
    down = True

    def answer(asked: Asked) -> Reply:
        return error(500) if down else good(asked)

    settings = {"concurrency": 1, "prompts_per_request": 1, "retries": 0, "breaker_failures": 3}
    with connected(answer, **settings, breaker_cooldown_s=10.0) as (client, server, time):
        assert texts(client.complete(asks(8))) == ["server error"] * 3 + ["circuit open"] * 5
        assert len(server.asked) == 3
        time.now += 10.0
        assert texts(client.complete(asks(3))) == ["server error", "circuit open", "circuit open"]
        time.now += 10.0  # the pause doubled
        assert texts(client.complete(asks(1))) == ["circuit open"]
        down = False
        time.now += 10.0
        assert texts(client.complete(asks(3))) == ["<p0>", "<p1>", "<p2>"]


def test_refusals_do_not_open_the_breaker() -> None:
    settings = {"concurrency": 1, "prompts_per_request": 1, "breaker_failures": 2}
    with connected(lambda asked: error(400), **settings) as (client, server, _):
        assert texts(client.complete(asks(6))) == ["refused"] * 6
        assert len(server.asked) == 6


def test_limits_per_minute_space_the_requests() -> None:
    settings = {"concurrency": 1, "prompts_per_request": 1}
    with connected(good, **settings, requests_per_minute=30) as (client, _, time):
        client.complete(asks(4))
        assert time.slept == [2.0, 2.0, 2.0]
    # 60 a minute is one a second; each answer turns out to have 6 tokens, whatever was booked for it
    with connected(good, **settings, tokens_per_minute=60) as (client, _, time):
        client.complete(asks(3))
        assert time.slept == [6.0, 6.0]


# ---- cache


def test_a_resumed_client_gives_the_same_answers_without_asking(tmp_path: Path) -> None:
    request = CompletionRequest("p", top=2, n=2, temperature=1.0, seed=4)
    with connected(good, cache_dir=str(tmp_path)) as (client, server, _):
        first = client.complete([request, *asks(5)])
        url = server.url
    config = ServerConfig(url=url, model="m", cache_dir=str(tmp_path), retries=0)
    with CompletionClient(config) as again:  # the server is gone
        second = again.complete([request, *asks(6)])
        assert again.hits == 6
    assert texts(second)[-1] == "connection"
    for before, after in zip(first, second, strict=False):
        assert isinstance(before, CompletionResult)
        assert isinstance(after, CompletionResult)
        assert after.choices == before.choices
        assert after.choices[0].alternatives == ((f"{after.choices[0].text}", pytest.approx(-0.5)),)
        assert (after.cached, after.spent) == (True, 0)


def test_failures_are_not_cached_and_damaged_entries_are_asked_for_again(tmp_path: Path) -> None:
    with connected(first_fails(error(404)), cache_dir=str(tmp_path)) as (client, server, _):
        assert texts(client.complete(asks(1))) == ["refused"]
        assert texts(client.complete(asks(1))) == ["<p0>"]
        assert client.cache is not None
        client.cache.put(client.key(asks(1)[0]), {"choices": "?"})
        assert texts(client.complete(asks(1))) == ["<p0>"]
        assert client.cache.corrupt == 1
        assert texts(client.complete(asks(1))) == ["<p0>"]
        assert len(server.asked) == 3


# ---- the key


def test_the_key_is_sent_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG, "httpx")
    replies = first_fails(error(401, f"wrong key {KEY}, try another"), Reply(f"no {KEY}".encode(), 500))
    with connected(replies, key_env="SOME_KEY", retries=1, cache_dir=str(tmp_path)) as (client, server, _):
        refused = client.complete(asks(1))
        client.complete(asks(1))
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
        assert refused == [Failure("unauthorised", "HTTP 401: wrong key ***, try another", 1)]
        shown = f"{client!r} {client.config} {client.faults} {caplog.text}"
    assert KEY not in shown
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(InputError, match=r"pip install 'tokenzero\[remote\]'"):
        CompletionClient(ServerConfig(url="http://127.0.0.1:1", model="m"))


def test_the_choices_of_several_prompts_find_their_rows_in_any_order() -> None:
    def shuffled(asked: Asked) -> Reply:
        payload = json.loads(good(asked).content)
        for choice in payload["choices"]:
            choice["text"] += str(choice["index"])
        random.Random(0).shuffle(payload["choices"])
        return ok({**payload, "surprise": {"nested": math.pi}})

    with connected(shuffled) as (client, _, _):
        rows = client.complete(asks(5, n=2))
    got = [[c.text for c in row.choices] for row in rows if isinstance(row, CompletionResult)]
    assert got == [[f"<p{i}>{2 * i}", f"<p{i}>{2 * i + 1}"] for i in range(5)]
