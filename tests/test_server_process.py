"""A real server on a socket: clients that leave, that do not read, keys, failures, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fake_method import FakeMethod
from served import NAME, checkpoint, opened

from tokenzero.mcts.errors import InputError
from tokenzero.server import ServeConfig, create_app
from tokenzero.server.auth import read_keys
from tokenzero.server.conductor import Conductor
from tokenzero.server.process import Server
from tokenzero.server.service import Service

LIMIT_S = 30.0
LONG = 150
HEAD = {"Content-Type": "application/json"}
Behind = tuple[str, Service, Server, FakeMethod]


@contextmanager
def serving(
    config: ServeConfig, drain_s: float = LIMIT_S
) -> Iterator[tuple[str, Service, Server, FakeMethod]]:
    """A server whose method is a fake one: its address, what is behind it, and its method's gate."""
    app = create_app(opened(), config)
    service: Service = app.state.service
    method = FakeMethod()
    service.method_of = lambda group: method  # type: ignore[method-assign]
    service.conductor = Conductor(
        lambda group: method, places=config.places, waiting=config.waiting, on_game=service._finished
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    settings = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
    server = Server(settings, service.conductor, drain_s)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service, server, method
    finally:
        method.gate.set()
        server.should_exit = True
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    end, pause = time.monotonic() + LIMIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it never came true"
        pause.wait(0.001)


def body(**more: Any) -> bytes:
    return json.dumps({"prompt": "a", "max_tokens": LONG, **more}).encode()


def ask(url: str) -> int:
    """The status of a plain request."""
    return httpx.post(f"{url}/v1/completions", json={"prompt": "a"}, timeout=LIMIT_S).status_code


def leave_after(url: str, method: FakeMethod, conductor: Conductor, content: bytes) -> None:
    """Ask, close the connection while the answer is in play, and see that nothing is held for it."""
    method.gate.clear()
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
    until(lambda: conductor.in_play == 1)
    connection.close()
    until(lambda: bool(conductor._gone))
    method.gate.set()
    until(lambda: conductor.taken == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(stream: bool) -> None:
    with serving(ServeConfig(name=NAME)) as (url, service, _, method):
        leave_after(url, method, service.conductor, body(stream=stream))
        assert method.dropped == 1
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 3}).status_code == 200
        page = httpx.get(f"{url}/metrics").text
        assert 'tokenzero_requests_total{code="499",route="/v1/completions"} 1.0' in page


def test_a_full_queue_is_429_with_a_time_to_come_back() -> None:
    with serving(ServeConfig(name=NAME, places=1, waiting=1)) as (url, service, _, method):
        method.gate.clear()
        asked = [
            threading.Thread(
                target=httpx.post,
                args=(f"{url}/v1/completions",),
                kwargs={"content": body(), "headers": HEAD},
            )
            for _ in range(2)
        ]
        for thread in asked:
            thread.start()
        until(lambda: service.conductor.taken == 2)
        for stream in (False, True):
            refused = httpx.post(f"{url}/v1/completions", content=body(stream=stream), headers=HEAD)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.json()["error"]["type"] == "rate_limit_error"
        method.gate.set()
        for thread in asked:
            thread.join(LIMIT_S)


def test_a_broken_method_is_503_and_the_next_request_is_served(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ServeConfig(name=NAME)) as (url, _, _, _):
        for stream in (False, True):
            failed = httpx.post(f"{url}/v1/completions", json={"prompt": "fail", "stream": stream})
            assert failed.status_code == 503
            assert failed.json()["error"]["type"] == "server_error"
            assert "planted" not in failed.text
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "a"}).status_code == 200
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "refuse"})
        assert (refused.status_code, "refused" in refused.text) == (400, True)
    assert "planted" in caplog.text


def test_an_unforeseen_failure_of_a_route_is_503(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ServeConfig(name=NAME)) as (url, service, _, _):
        service.check_model = None  # type: ignore[assignment,method-assign]
        failed = httpx.post(f"{url}/v1/completions", json={"prompt": "a"})
        assert failed.status_code == 503
        assert failed.json()["error"]["code"] == "unavailable"
    assert "TypeError" in caplog.text


def test_a_reader_that_stalls_is_cut_off() -> None:
    with serving(ServeConfig(name=NAME, stall_s=0.05, choices=64)) as (url, service, _, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.connect((host, int(port)))
            content = body(stream=True, n=64)
            head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            reader.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            until(lambda: _streams_over(url) == 1)  # though nothing was read
        until(lambda: service.conductor.taken == 0)


def _streams_over(url: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    done = [line for line in lines if line.startswith('tokenzero_requests_total{code="200",route="/v1/comp')]
    return float(done[0].rsplit(" ", 1)[1]) if done else 0.0


def test_keys_are_asked_for_everywhere_but_at_the_health_check() -> None:
    config = ServeConfig(name=NAME, api_keys=("first", "sécond"))
    with serving(config) as (url, _, _, _):
        assert httpx.get(f"{url}/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/docs", "/tokenizer_info"):
            refused = httpx.get(f"{url}{path}")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for key, status in (
            (b"Bearer first", 200),
            ("Bearer sécond".encode(), 200),
            (b"bearer first", 200),
            (b"Bearer firs", 401),
            (b"Basic first", 401),
            (b"Bearer \xff", 401),
        ):
            assert httpx.get(f"{url}/v1/models", headers={b"Authorization": key}).status_code == status


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# mine\n\n one \ntwo\n")
    path.chmod(0o600)
    assert read_keys(path) == ("one", "two")
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_keys(path)
    path.chmod(0o600)
    path.write_text("# none\n")
    with pytest.raises(InputError, match="no key"):
        read_keys(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "absent")


def test_a_server_that_is_told_to_stop_finishes_first() -> None:
    with serving(ServeConfig(name=NAME)) as (url, service, server, method):
        method.gate.clear()
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(ask(url)))
        asking.start()
        until(lambda: service.conductor.in_play == 1)
        server.handle_exit(signal.SIGTERM, None)
        until(lambda: not service.conductor.alive)
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "a"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{url}/health").status_code == 503
        method.gate.set()
        asking.join(LIMIT_S)
        assert answers == [200]
        until(lambda: server.should_exit)


def test_what_takes_longer_than_the_drain_is_503() -> None:
    with serving(ServeConfig(name=NAME), drain_s=0.0) as (url, service, server, method):
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(ask(url)))
        method.gate.clear()
        asking.start()
        until(lambda: service.conductor.in_play == 1)
        service.conductor._closing = True  # the step that is held now is the last one
        server.handle_exit(signal.SIGTERM, None)
        method.gate.set()
        asking.join(LIMIT_S)
        assert answers == [503]


@pytest.mark.slow
def test_the_command_serves_and_ends_well(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    keys.chmod(0o600)
    command = [sys.executable, "-m", "tokenzero.cli", "serve", str(checkpoint()), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--api-key-file", str(keys), "--name", NAME],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        said: list[str] = []
        while not said or "try: curl" not in said[-1]:
            line = process.stderr.readline()
            assert line, said
            said.append(line)
        url = next(word for word in said[0].split() if word.startswith("http")).removesuffix("/v1,")
        made = httpx.post(
            f"{url}/v1/completions",
            json={"prompt": "a", "max_tokens": 2},
            headers={"Authorization": "Bearer secret"},
            timeout=LIMIT_S,
        )
        assert made.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        assert "has stopped" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_an_address_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from tokenzero.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(checkpoint()), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err.strip().splitlines()[-1]
