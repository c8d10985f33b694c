"""Many clients at once against `tokenzero serve`: does every request succeed, does load change an answer, how
much faster is it than serving them one by one, and does memory stay flat?

A pool of requests (plain samples, Gumbel and frontier searches, each with a seed) goes round among the
clients for a while. Then each request of the pool is made once more, alone, and the answers are compared.

python benchmarks/server_load.py runs/demo --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from report import emit
from served_process import ServedProcess, serve

from tokenzero.tasks import get_task

WINDOWS = 10
TIMEOUT_S = 120.0
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sample", {"max_tokens": 13}),
    ("gumbel", {"search": {"method": "gumbel", "simulations": 16}}),
    ("frontier", {"search": {"method": "frontier", "tokens": 100}}),
)


class Reply(NamedTuple):
    """One request of the pool, answered: when it began after the start, how long it took, both in seconds,
    its status (0: no answer at all), and all that must not depend on load.
    """

    request: int
    began: float
    took: float
    status: int
    answer: str


def pool(task: str, count: int) -> list[dict[str, Any]]:
    """Bodies of requests: the kinds in turn, each with a test problem and a seed of its own."""
    problems = get_task(task).problems("test")
    return [
        {"prompt": problems[i % len(problems)].public.prompt, "seed": i, **KINDS[i % len(KINDS)][1]}
        for i in range(count)
    ]


def unchanging(made: dict[str, Any]) -> str:
    """What an answer says, without its name and times."""
    usage = dict(made["usage"])
    usage["ledger"] = {k: v for k, v in usage.get("ledger", {}).items() if k != "wall_s"}
    return json.dumps({"choices": made["choices"], "usage": usage}, sort_keys=True)


async def ask(
    session: aiohttp.ClientSession, url: str, request: int, body: dict[str, Any], start: float
) -> Reply:
    """Make one request."""
    began = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/completions", json=body) as response:
            status, made = response.status, await response.json()
    except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
        return Reply(request, began - start, time.perf_counter() - began, 0, type(error).__name__)
    took = time.perf_counter() - began
    answer = unchanging(made) if status == 200 else json.dumps(made)
    return Reply(request, began - start, took, status, answer)


async def crowd(
    served: ServedProcess, bodies: Sequence[dict[str, Any]], clients: int, seconds: float
) -> tuple[list[Reply], list[tuple[float, int]]]:
    """The replies to ``clients`` that ask for ``seconds``, and the server's memory (instant, bytes)."""
    replies: list[Reply] = []
    memory: list[tuple[float, int]] = []
    turns: Iterator[int] = itertools.cycle(range(len(bodies)))
    start = time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() - start < seconds:
            request = next(turns)
            replies.append(await ask(session, served.url, request, bodies[request], start))

    async def watch() -> None:
        while time.perf_counter() - start < seconds:
            memory.append((time.perf_counter() - start, served.resident_bytes()))
            await asyncio.sleep(0.25)

    async with _session(clients) as session:
        await asyncio.gather(watch(), *(client(session) for _ in range(clients)))
    return replies, memory


async def one_by_one(served: ServedProcess, bodies: Sequence[dict[str, Any]]) -> list[Reply]:
    """Each request once, to a server that does nothing else."""
    start = time.perf_counter()
    async with _session(1) as session:
        return [await ask(session, served.url, i, body, start) for i, body in enumerate(bodies)]


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    )


def rates(replies: Sequence[Reply], seconds: float) -> dict[str, float | None]:
    """Requests, failures, requests per second, and latencies in milliseconds."""
    took = [1000 * reply.took for reply in replies]
    return {
        "requests": len(replies),
        "failed": sum(reply.status != 200 for reply in replies),
        "per s": len(replies) / seconds,
        "p50 ms": float(np.percentile(took, 50)) if took else None,
        "p99 ms": float(np.percentile(took, 99)) if took else None,
    }


class Measured(NamedTuple):
    """Both phases: replies and memory under load, replies alone, the server's processor seconds in each, and
    whether nothing was left over after each.
    """

    crowded: list[Reply]
    memory: list[tuple[float, int]]
    alone: list[Reply]
    busy: tuple[float, float]
    settled: bool


def window(found: Measured, low: float, high: float) -> dict[str, float | None]:
    """What ended between two instants under load."""
    ended = [reply for reply in found.crowded if low < reply.began + reply.took <= high]
    resident = [size for instant, size in found.memory if low <= instant < high]
    return {
        **rates(ended, high - low),
        "resident MiB": float(np.mean(resident)) / 2**20 if resident else None,
    }


def measure(model: str, bodies: Sequence[dict[str, Any]], clients: int, seconds: float) -> Measured:
    """See the module."""
    with serve(model) as served:
        asyncio.run(one_by_one(served, bodies[: 2 * len(KINDS)]))  # compiles what is compiled at first use
        at_first = served.cpu_seconds()
        replies, memory = asyncio.run(crowd(served, bodies, clients, seconds))
        between, settled = served.cpu_seconds(), served.settled()
        alone = asyncio.run(one_by_one(served, bodies))
        busy = (between - at_first, served.cpu_seconds() - between)
        memory.append((float("inf"), served.resident_bytes()))
        return Measured(replies, memory, alone, busy, settled and served.settled())


def notes(found: Measured, took: float) -> list[str]:
    """What the numbers come to."""
    crowded, alone = found.crowded, found.alone
    same = sum(reply.answer == alone[reply.request].answer for reply in crowded)
    ratio = (len(crowded) / took) / (len(alone) / sum(reply.took for reply in alone))
    early = [size for instant, size in found.memory if instant < took / 5]
    late = [size for instant, size in found.memory if 4 * took / 5 <= instant <= took]
    return [
        f"{sum(r.status != 200 for r in crowded)} of {len(crowded)} requests failed under load, "
        f"{sum(r.status != 200 for r in alone)} of {len(alone)} alone.",
        f"{same} of {len(crowded)} answers under load are those of the same request alone, usage included.",
        f"Throughput is {ratio:.2f} times that of one by one; the server's processor time for a request is "
        f"{1000 * found.busy[0] / len(crowded):.2f} ms, alone {1000 * found.busy[1] / len(alone):.2f}.",
        f"Resident memory: mean {np.mean(early) / 2**20:.1f} MiB in the first fifth, "
        f"{np.mean(late) / 2**20:.1f} in the last, {found.memory[-1][1] / 2**20:.1f} MiB after all.",
        f"After each phase nothing waits or is in play: {found.settled}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="run or checkpoint directory")
    parser.add_argument("--task", default="countdown", help="whose test problems are asked")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=900, help="different requests in the pool")
    parser.add_argument("--quick", action="store_true", help="20 seconds, 300 different requests")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds, count = (20.0, 300) if arguments.quick else (arguments.seconds, arguments.requests)
    found = measure(arguments.model, pool(arguments.task, count), arguments.clients, seconds)
    took = max(reply.began + reply.took for reply in found.crowded)
    edges = np.linspace(0, took, WINDOWS + 1).tolist()
    rows = [
        {"what": f"{low:.0f} to {high:.0f} s", **window(found, low, high)}
        for low, high in itertools.pairwise(edges)
    ]
    for offset, (name, _) in enumerate(KINDS):
        of_kind = [reply for reply in found.crowded if reply.request % len(KINDS) == offset]
        rows.append({"what": name, **rates(of_kind, took)})
    alone_took = sum(reply.took for reply in found.alone)
    rows.append({"what": "all", **rates(found.crowded, took)})
    rows.append({"what": "one by one", **rates(found.alone, alone_took)})
    emit(
        f"{arguments.clients} clients for {seconds:g} s, {count} different requests in turn",
        rows,
        arguments.json,
        notes=notes(found, took),
    )


if __name__ == "__main__":
    main()
