"""LangChain's ``ChatOpenAI``, unmodified, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from served import NAME, PROBLEM, Served, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


def _model(server: Served, **options: Any) -> ChatOpenAI:
    given = {"max_tokens": 12, "seed": 3, "max_retries": 0, **options}
    return ChatOpenAI(model=NAME, base_url=server.v1, api_key="any", **given)


MESSAGES = [SystemMessage("be brief"), HumanMessage("the quick brown")]


def test_invoke_gives_text_and_usage(server: Served) -> None:
    made = _model(server).invoke(MESSAGES)
    assert isinstance(made.content, str)
    assert 1 <= made.usage_metadata["output_tokens"] <= 12
    assert made.response_metadata["finish_reason"] in ("stop", "length")
    assert made.response_metadata["model_name"] == NAME


def test_a_stream_says_what_invoke_says(server: Served) -> None:
    model = _model(server, stream_usage=True)
    pieces = list(model.stream(MESSAGES))
    assert "".join(str(piece.content) for piece in pieces) == model.invoke(MESSAGES).content
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata["output_tokens"] >= 1


def test_a_batch_equals_its_members(server: Served) -> None:
    model = _model(server)
    prompts = ["fox", "lazy dog", "over the", "jumps"]
    together = [made.content for made in model.batch(prompts)]
    assert together == [model.invoke(prompt).content for prompt in prompts]
    assert [made.content for made in asyncio.run(model.abatch(prompts))] == together


def test_a_search_goes_along_in_the_extra_body(server: Served) -> None:
    model = _model(server, extra_body={"search": {"method": "frontier", "simulations": 6}})
    made = model.invoke(PROBLEM)
    usage = made.response_metadata["token_usage"]
    assert usage["ledger"]["simulations"] >= 1
    assert made.content == model.invoke(PROBLEM).content


def test_log_probabilities_arrive(server: Served) -> None:
    made = _model(server, logprobs=True, top_logprobs=2).invoke(MESSAGES)
    content = made.response_metadata["logprobs"]["content"]
    assert len(content) == made.response_metadata["token_usage"]["completion_tokens"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)


def test_a_stop_string_is_kept_out(server: Served) -> None:
    whole = str(_model(server, max_tokens=40).invoke(MESSAGES).content)
    stop = next(whole[i : i + 2] for i in range(4, len(whole) - 2) if whole[i : i + 2].isascii())
    assert _model(server, max_tokens=40).invoke(MESSAGES, stop=[stop]).content == whole.split(stop)[0]
