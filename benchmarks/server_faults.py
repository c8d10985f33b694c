"""What clients do wrong, against `tokenzero serve`: afterwards, does it still answer rightly, and is anything
left over?

Clients leave in the middle of a stream, before an answer and in the middle of a body; read slowly or not at
all; send 10 MB, invalid JSON and UTF-8, numbers that are negative, enormous or none; open connections and say
nothing. After each kind of fault the same questions must have the same answers as before, no answer may be in
play, and no file stay open. A status of 500 or more is wrong, but for a 503 that says when to come back.

python benchmarks/server_faults.py runs/demo
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from report import emit
from served_process import ServedProcess, serve

from tokenzero.tasks import get_task

TEN_MB = 10_000_000
PATIENCE_S = 30.0
NOTHING = 0  # stands for a connection that ended without a status


class Place(NamedTuple):
    """Where to send what: the address, and a prompt that the model reads."""

    host: str
    port: int
    prompt: str


Statuses = Counter[int]
Fault = Callable[[Place, int], Awaitable[Statuses]]


def body(place: Place, **changes: Any) -> dict[str, Any]:
    """A right request, changed."""
    return {"prompt": place.prompt, "max_tokens": 12, **changes}


def head(length: int | None, path: str = "/v1/completions", kind: str = "application/json") -> bytes:
    """A request's first lines; ``length`` None announces a body in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{size}\r\n\r\n".encode()


async def connect(place: Place, receive_buffer: int | None = None) -> tuple[Any, Any]:
    """A connection of its own, its receive buffer as small as asked."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (place.host, place.port))
    return await asyncio.open_connection(sock=sock)


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, NOTHING when the connection ends or stays silent."""
    try:
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        return int(line.split()[1]) if line else NOTHING
    except (OSError, TimeoutError, IndexError, ValueError):
        return NOTHING


async def raw(place: Place, sent: Sequence[bytes]) -> int:
    """Send bytes as they are; the status that comes back."""
    reader, writer = await connect(place)
    try:
        for piece in sent:
            writer.write(piece)
            await writer.drain()
        return await status(reader)
    except OSError:  # the server may refuse before all is sent, and close
        return await status(reader)
    finally:
        writer.transport.abort()


async def several(place: Place, count: int, one: Callable[[Place], Awaitable[int]]) -> Statuses:
    """The same fault by several clients at once."""
    return Counter(await asyncio.gather(*(one(place) for _ in range(count))))


# ---- clients that leave


async def leave_stream(place: Place) -> int:
    """Leave after the first piece of a stream."""
    sent = json.dumps(body(place, stream=True, n=8)).encode()
    reader, writer = await connect(place)
    writer.write(head(len(sent)) + sent)
    found = await status(reader)
    await reader.readuntil(b"data:")
    writer.transport.abort()
    return found


async def leave_answer(place: Place) -> int:
    """Leave before a long answer."""
    search = {"method": "gumbel", "simulations": 2000}
    sent = json.dumps(body(place, search=search, n=4)).encode()
    _, writer = await connect(place)
    writer.write(head(len(sent)) + sent)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    return NOTHING


async def leave_body(place: Place) -> int:
    """Leave in the middle of the body."""
    _, writer = await connect(place)
    writer.write(head(1000) + b'{"prompt": "')
    await writer.drain()
    writer.transport.abort()
    return NOTHING


# ---- clients that are slow


async def slow_reader(place: Place) -> int:
    """Ask for much, and read none of it for a while."""
    sent = json.dumps(body(place, stream=True, n=200, logprobs=5)).encode()
    reader, writer = await connect(place, receive_buffer=4096)
    writer.write(head(len(sent)) + sent)
    found = await status(reader)
    await asyncio.sleep(8.0)
    writer.transport.abort()
    return found


async def half_open(place: Place) -> int:
    """Say half of a request, and nothing more for a while."""
    reader, writer = await connect(place)
    writer.write(head(100)[:40])
    await writer.drain()
    await asyncio.sleep(5.0)
    writer.transport.abort()
    del reader
    return NOTHING


# ---- bodies that are wrong


def bodies(place: Place) -> list[bytes]:
    """Bodies that are no JSON, no UTF-8, or no object."""
    right = json.dumps(body(place)).encode()
    return [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe" + right,
        b"\x00" * 100,
        right[:-1],
        right + right,
        right.replace(b"12", b"NaN"),
        right.replace(b"12", b"1e999"),
        right.replace(b"12", b"9" * 5000),
        b"[" * 100_000,
        b'{"a":' * 50_000,
        right.replace(place.prompt.encode(), b"\\ud800"),
        right.replace(place.prompt.encode(), b"\xc3\x28"),
    ]


async def bad_bodies(place: Place, count: int) -> Statuses:
    """Each of ``bodies`` to each route that takes one."""
    routes = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
    found = [
        raw(place, [head(len(sent), route, kind), sent])
        for route in routes
        for kind in ("application/json", "text/plain")
        for sent in bodies(place)
    ]
    return Counter(await asyncio.gather(*found))


async def ten_megabytes(place: Place) -> int:
    """A body of 10 MB whose size is announced."""
    return await raw(place, [head(TEN_MB), *[b"x" * 100_000] * 100])


async def ten_megabytes_in_chunks(place: Place) -> int:
    """The same without a word on its size."""
    piece = b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    return await raw(place, [head(None), *[piece] * 100, b"0\r\n\r\n"])


# ---- parameters that are wrong

NUMBERS: tuple[Any, ...] = (-1, -1e300, 1e300, 10**18, 10**400, 0, 0.5, "12", True, [], {}, "\x00")
FIELDS = [
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "best_of",
    "seed",
    "logprobs",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "echo",
    "stream",
    "logit_bias",
    "stream_options",
    "model",
    "prompt",
]
SEARCHES = [
    "method",
    "simulations",
    "n",
    "deadline_ms",
    "tokens",
    "return_tree",
    "sampling",
    "granularity",
    "delimiter",
    "step_tokens",
    "proposals",
    "length_penalty",
    "groups",
    "diversity",
    "stand_in",
    "min_kld_gain",
    "choose",
    "vote",
    "smart_pruning",
]


async def bad_parameters(place: Place, count: int) -> Statuses:
    """Every field with every odd value, in the body and in its search object."""
    wanted = [body(place, **{name: value}) for name in FIELDS for value in NUMBERS]
    wanted += [
        body(place, search={"method": method, name: value})
        for method in ("gumbel", "best-of-n", "beam", "step-beam")
        for name in SEARCHES
        for value in NUMBERS
    ]
    found: Statuses = Counter()
    room = asyncio.Semaphore(32)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:

        async def one(sent: dict[str, Any]) -> None:
            async with room, session.post(_url(place, "/v1/completions"), json=sent) as response:
                text = await response.text()
                found[response.status] += 1
                if response.status >= 500:
                    print(response.status, json.dumps(sent)[:200], text[:300])

        await asyncio.gather(*(one(sent) for sent in wanted))
    return found


async def bad_http(place: Place, count: int) -> Statuses:
    """What is no HTTP, or no route."""
    sent = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /trees/%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    return Counter(await asyncio.gather(*(raw(place, [one]) for one in sent)))


def _by_many(one: Callable[[Place], Awaitable[int]]) -> Fault:
    return lambda place, count: several(place, count, one)


FAULTS: dict[str, Fault] = {
    "leaves in a stream": _by_many(leave_stream),
    "leaves before the answer": _by_many(leave_answer),
    "leaves in its own body": _by_many(leave_body),
    "does not read": _by_many(slow_reader),
    "says half a request": _by_many(half_open),
    "10 MB, announced": _by_many(ten_megabytes),
    "10 MB in chunks": _by_many(ten_megabytes_in_chunks),
    "bad JSON and UTF-8": bad_bodies,
    "odd parameters": bad_parameters,
    "bad HTTP": bad_http,
}


# ---- is the server right?


def _url(place: Place, path: str) -> str:
    return f"http://{place.host}:{place.port}{path}"


async def answers(place: Place, task: str) -> list[Any]:
    """What the server says to a few questions with seeds, each alone."""
    found: list[Any] = []
    searches: list[dict[str, Any] | None] = [None, {"method": "frontier"}, {"method": "gumbel"}]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
        for seed, problem in enumerate(get_task(task).problems("test")[:12]):
            search = searches[seed % len(searches)]
            sent = body(place, prompt=problem.public.prompt, seed=seed, search=search)
            async with session.post(_url(place, "/v1/completions"), json=sent) as response:
                made = await response.json()
                found.append((response.status, made.get("choices")))
    return found


async def suffer(served: ServedProcess, place: Place, task: str, count: int) -> list[dict[str, Any]]:
    """One row for each kind of fault; while its clients are at work, another one must be served."""
    right = await answers(place, task)
    if {code for code, _ in right} != {200}:
        raise RuntimeError(f"the server does not answer: {right}")
    rows: list[dict[str, Any]] = []
    for name, fault in FAULTS.items():
        work = asyncio.ensure_future(fault(place, count))
        meanwhile = await answers(place, task) == right
        statuses = await work
        settled = await asyncio.to_thread(served.settled)
        rows.append(
            {
                "fault": name,
                "statuses": ", ".join(f"{code or 'none'}: {n}" for code, n in sorted(statuses.items())),
                "5xx": sum(n for code, n in statuses.items() if code >= 500),
                "right meanwhile": meanwhile,
                "right after": await answers(place, task) == right,
                "nothing in play": settled,
                "files open": served.descriptors(),
                "resident MiB": served.resident_bytes() / 2**20,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="run or checkpoint directory")
    parser.add_argument("--task", default="countdown", help="whose test problems are asked")
    parser.add_argument("--clients", type=int, default=50, help="clients with the same fault at a time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prompt = get_task(arguments.task).problems("test")[0].public.prompt
    with serve(arguments.model) as served:
        where = urlsplit(served.url)
        place = Place(where.hostname or "", where.port or 0, prompt)
        rows = asyncio.run(suffer(served, place, arguments.task, arguments.clients))
        emit(f"Faults by {arguments.clients} clients each", rows, arguments.json)


if __name__ == "__main__":
    main()
