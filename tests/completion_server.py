"""A real HTTP server in this process that answers like an OpenAI-compatible one, with faults on demand.

The model behind it is a function of the request, so that tests know every answer. It is no part of the
package.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Json = dict[str, Any]


class Asked(NamedTuple):
    """A request as it arrived; ``number`` counts from 0."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: Json


class Reply(NamedTuple):
    """Sent as it is. ``cut``: the connection closes after so many bytes of the content. ``hold``: nothing is
    sent until the server closes, so that the client's time limit ends the wait.
    """

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    cut: int | None = None
    hold: bool = False


def ok(value: Any) -> Reply:
    return Reply(json.dumps(value).encode())


def error(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}).encode(), status, headers or {})


class CompletionServer:
    """``url`` to give to a client; ``asked`` what arrived, in order of arrival."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    names = {name.lower(): value for name, value in self.headers.items()}
                    asked = Asked(len(outer.asked), self.path, names, body)
                    outer.asked.append(asked)
                self._send(outer._answer(asked))

            def _send(self, reply: Reply) -> None:
                if reply.hold:
                    outer._over.wait()
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.content[: reply.cut])
                if reply.cut is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@contextmanager
def serving(answer: Callable[[Asked], Reply]) -> Iterator[CompletionServer]:
    server = CompletionServer(answer)
    try:
        yield server
    finally:
        server.close()


def prompts_of(asked: Asked) -> list[str]:
    prompt = asked.body["prompt"]
    return prompt if isinstance(prompt, list) else [prompt]


def old_logprobs(top: Mapping[str, float]) -> Json:
    """One position in the shape of /v1/completions."""
    best = max(top, key=lambda token: top[token])
    return {"tokens": [best], "token_logprobs": [top[best]], "top_logprobs": [dict(top)], "text_offset": [0]}


def chat_logprobs(top: Mapping[str, float]) -> Json:
    """One position in the shape of chat."""
    entries = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in top.items()]
    entries.sort(key=lambda one: -one["logprob"])  # type: ignore[arg-type,return-value,operator]
    return {"content": [{**entries[0], "top_logprobs": entries}]}


def completion(asked: Asked, text: Callable[[str], str], top: Callable[[str], Json | None]) -> Reply:
    """A whole answer to /v1/completions: ``text`` and ``top`` (logprobs) are functions of the prompt."""
    n = asked.body.get("n", 1)
    prompts = prompts_of(asked)
    choices = [
        {"index": row * n + j, "text": text(prompt), "logprobs": top(prompt), "finish_reason": "length"}
        for row, prompt in enumerate(prompts)
        for j in range(n)
    ]
    count = len(prompts)
    return ok({"choices": choices, "usage": {"prompt_tokens": 5 * count, "completion_tokens": n * count}})


def chat(*texts: str, finish: str = "stop", logprobs: Json | None = None) -> Reply:
    """A whole answer to /v1/chat/completions."""
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "logprobs": logprobs,
        }
        for i, text in enumerate(texts)
    ]
    return ok({"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": len(texts)}})
