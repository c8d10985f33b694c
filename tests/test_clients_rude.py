"""Clients that leave, lag or send too much, on raw sockets against a real server: others are served, and
nothing is left over.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from served import NAME, Served, serving

from tokenzero.server import ServeConfig

PATIENCE_S = 60.0
BODY = {"model": NAME, "prompt": "the quick", "max_tokens": 100, "n": 8, "seed": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(ServeConfig(name=NAME, body_mb=0.5, stall_s=1.0)) as served:
        yield served


def _connect(server: Served) -> socket.socket:
    where = httpx.URL(server.url)
    return socket.create_connection((where.host, where.port), timeout=PATIENCE_S)


def _post(body: dict[str, object], more: bytes = b"") -> bytes:
    sent = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(sent) + len(more)}\r\n\r\n".encode() + sent


def _empty(server: Served) -> bool:
    """Whether the server comes to hold nothing: no answer waits or is in play, no keys and values stay."""
    for _ in range(2000):  # every question lets the server come to a few of its turns
        now = server.metrics()
        if now["tokenzero_answers_in_play"] == now["tokenzero_answers_waiting"] == 0:
            return bool(server.opened.parts.engine.resident == 0)
    return False


def _answer(server: Served) -> str:
    made = httpx.post(f"{server.v1}/completions", json={**BODY, "n": 1, "max_tokens": 8}, timeout=PATIENCE_S)
    return str(made.json()["choices"][0]["text"])


def test_a_client_that_leaves_a_stream_is_forgotten(server: Served) -> None:
    before = _answer(server)
    for _ in range(10):
        with _connect(server) as gone:
            gone.sendall(_post({**BODY, "stream": True}))
            assert b"200" in gone.recv(64)
    assert _empty(server)
    assert _answer(server) == before


def test_a_client_that_leaves_before_its_answer_is_forgotten(server: Served) -> None:
    before = _answer(server)
    for search in (None, {"method": "gumbel", "simulations": 512}, {"method": "best-of-n", "n": 64}):
        with _connect(server) as gone:
            gone.sendall(_post({**BODY, "search": search}))
    assert _empty(server)
    assert _answer(server) == before


def test_a_client_that_leaves_its_own_body_is_forgotten(server: Served) -> None:
    for _ in range(10):
        with _connect(server) as gone:
            gone.sendall(_post(BODY, more=b" " * 1000))  # the thousand never come
    assert _empty(server)


def test_a_reader_that_takes_nothing_is_cut_off(server: Served) -> None:
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        lazy.settimeout(PATIENCE_S)
        where = httpx.URL(server.url)
        lazy.connect((where.host, where.port))
        lazy.sendall(_post({**BODY, "n": 256, "stream": True, "logprobs": 5}))
        assert _empty(server), "while it is still there"
    assert _answer(server)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
def test_a_body_that_is_too_large_is_refused_and_the_client_is_told(server: Served, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    content = pieces() if chunked else b"x" * 10_000_000
    made = httpx.post(f"{server.v1}/completions", content=content, timeout=PATIENCE_S)
    assert made.status_code == 413
    assert "0.5 MiB" in made.json()["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000, b'{"max_tokens": ' + b"9" * 5000],
    ids=["nothing", "half", "a list", "no UTF-8", "deep lists", "deep objects", "a long number"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_a_body_that_is_no_request_is_a_bad_request(server: Served, path: str, wrong: bytes) -> None:
    made = httpx.post(server.url + path, content=wrong, headers={"Content-Type": "application/json"})
    assert made.status_code == 400
    assert made.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e308"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "search.length_penalty"])
def test_a_number_that_is_none_is_a_bad_request(server: Served, name: str, value: str) -> None:
    field = name.removeprefix("search.")
    option = f'"{field}": {value}'
    inside = option if field == name else f'"search": {{"method": "beam", {option}}}'
    body = f'{{"prompt": "the quick", "max_tokens": 2, {inside}}}'
    made = httpx.post(
        f"{server.v1}/completions", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert made.status_code == 400, made.text
