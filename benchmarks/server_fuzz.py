"""Thousands of requests made up from the server's own OpenAPI page (schemathesis), valid and invalid, against
`tokenzero serve`: which statuses come back, and is the server right and empty afterwards?

python benchmarks/server_fuzz.py runs/demo --requests 10000
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from report import emit
from schemathesis import Case, GenerationMode
from served_process import ServedProcess, serve

from tokenzero.tasks import get_task

TIMEOUT_S = 120.0
BATCH = 500


def answer(served: ServedProcess, prompt: str) -> Any:
    """What the server says to a question with a seed."""
    sent = json.dumps({"prompt": prompt, "seed": 1, "search": {"method": "frontier"}}).encode()
    asked = urllib.request.Request(f"{served.url}/v1/completions", sent, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
        return json.load(response)["choices"]


def readable(case: Case, prompt: str) -> Case:
    """The same request for this model, with a prompt that it reads, so that it comes to be answered."""
    body = case.body
    if isinstance(body, dict):
        body.pop("model", None)
        for name, value in (("prompt", prompt), ("messages", [{"role": "user", "content": prompt}])):
            if name in body:
                body[name] = value
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(body.get(name), int):
                body[name] = min(body[name], 12)
    return case


def fuzz(
    served: ServedProcess, mode: GenerationMode, prompt: str | None, count: int, at: int
) -> tuple[Counter[str], list[str]]:
    """Statuses of ``count`` made-up requests, and what was wrong: an unexpected status or a refusal without
    an error object. With ``prompt`` they are made readable.
    """
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    with requests.Session() as session:

        @hypothesis.seed(at)
        @hypothesis.given(case=schema.as_strategy(generation_mode=mode))
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        def one(case: Case) -> None:
            if prompt is not None:
                case = readable(case, prompt)
            response = case.call(session=session, timeout=TIMEOUT_S)
            statuses[str(response.status_code)] += 1
            if response.status_code < 400:
                return
            error = response.json().get("error", {})
            deliberate = response.status_code < 500 or "Retry-After" in response.headers
            if response.status_code >= 500 or not error.get("message") or not deliberate:
                wrong.append(
                    f"{response.status_code} {response.text[:200]} to {case.as_curl_command()[:500]}"
                )

        one()
    return statuses, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="run or checkpoint directory")
    parser.add_argument("--task", default="countdown", help="whose test problem is asked before and after")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prompt = get_task(arguments.task).problems("test")[0].public.prompt
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    with serve(arguments.model) as served:
        right = answer(served, prompt)
        kinds = [
            (GenerationMode.POSITIVE, None),
            (GenerationMode.NEGATIVE, None),
            (GenerationMode.POSITIVE, prompt),
            (GenerationMode.NEGATIVE, prompt),
        ]
        for at in range(-(-arguments.requests // BATCH)):
            mode, given = kinds[at % len(kinds)]
            statuses, found = fuzz(served, mode, given, BATCH, at)
            wrong += found
            rows.append(
                {
                    "kind": mode.value + (", readable" if given else ""),
                    "requests": sum(statuses.values()),
                    "statuses": ", ".join(f"{code}: {n}" for code, n in sorted(statuses.items())),
                    "wrong": len(found),
                    "resident MiB": served.resident_bytes() / 2**20,
                    "files open": served.descriptors(),
                }
            )
            print(rows[-1], flush=True)
        settled, same = served.settled(), answer(served, prompt) == right
        emit(
            f"{sum(row['requests'] for row in rows):,} requests made up from the OpenAPI page",
            rows,
            arguments.json,
            notes=[
                f"Afterwards the same question has the same answer: {same}; nothing is in play: {settled}.",
                *wrong[:20],
            ],
        )


if __name__ == "__main__":
    main()
