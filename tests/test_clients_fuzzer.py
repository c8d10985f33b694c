"""A schema fuzzer (schemathesis) on the OpenAPI page of the server: whatever is sent, the answer is a success
or a refusal that says why; and afterwards nothing is left over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from served import NAME, PROBLEM, Served, serving

CASES = 150  # of each kind
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


def _refusal(response: Any) -> dict[str, Any]:
    """The error object of a refusal; every refusal has one, whoever made it."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "Traceback" not in error["message"]
    found: dict[str, Any] = error
    return found


def _reach_the_model(body: dict[str, Any]) -> None:
    """Made-up names and prompts too long would end most requests before anything is answered."""
    body.pop("model", None)
    for name, value in (("prompt", PROBLEM), ("messages", [{"role": "user", "content": PROBLEM}])):
        if body.get(name) is not None:
            body[name] = value
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int):
            body[name] = min(body[name], 20)


def _check(response: Any) -> None:
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert int(response.headers["retry-after"][0]) >= 1
        # a failure that nobody foresaw is a 503 too; here nothing is broken, so none may happen
        raise AssertionError(f"refused as unavailable: {_refusal(response)['message']}")
    if response.status_code >= 400:
        _refusal(response)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_breaks_the_server(server: Served, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    with requests.Session() as session:

        @given(case=schema.as_strategy(generation_mode=mode))
        @settings(
            max_examples=CASES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        def fuzz(case: Case) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                _reach_the_model(case.body)
            response = case.call(session=session, timeout=TIMEOUT_S)
            _check(response)
            statuses[response.status_code] += 1

        fuzz()

    assert statuses[400], "nothing was refused: the fuzzer did not fuzz"
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] > CASES // 8, f"most requests went nowhere: {statuses}"
    metrics = server.metrics()
    assert metrics["tokenzero_answers_in_play"] == 0
    assert metrics["tokenzero_answers_waiting"] == 0
    with openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0) as client:
        texts = {
            client.completions.create(model=NAME, prompt="fox", max_tokens=8, temperature=0).choices[0].text
            for _ in range(2)
        }
    assert len(texts) == 1
    assert server.opened.parts.engine.resident == 0, "keys and values of nobody are kept"
