"""Reading answers: the shapes of different servers mean the same, and what cannot be read is said to be
so.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.policy.completion_client_answer import (
    AnswerError,
    CompletionRequest,
    CompletionResult,
    read_answer,
)

ASK = CompletionRequest("What is it?", top=3)


def answer(logprobs: Any, text: str = " a", **more: Any) -> CompletionResult:
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length", "matched_stop": 7}
    (result,) = read_answer({"choices": [choice], "id": "x", **more}, [ASK])
    return result


def tops(result: CompletionResult) -> dict[str, float] | None:
    found = result.choices[0].alternatives
    return None if found is None else {text: round(math.exp(value), 6) for text, value in found}


A, B = math.log(0.6), math.log(0.3)
BYTES_A, BYTES_B = list(b" a"), list(b" b")
ENTRY_A = {"token": " a", "logprob": A, "bytes": BYTES_A}
ENTRY_B = {"token": " b", "logprob": B, "bytes": BYTES_B}


@pytest.mark.parametrize(
    "logprobs",
    [
        # OpenAI, vLLM, SGLang
        {"tokens": [" a"], "token_logprobs": [A], "top_logprobs": [{" a": A, " b": B}], "text_offset": [3]},
        {"tokens": [" a"], "token_logprobs": [A], "top_logprobs": [{" b": B, " a": A}]},
        # llama.cpp, chat
        {"content": [{**ENTRY_A, "top_logprobs": [ENTRY_B, ENTRY_A]}]},
        {
            "content": [{"token": " a", "id": 5, "logprob": A, "top_logprobs": {" a": A, " b": B}}],
            "refusal": None,
        },
        # mixtures seen in proxies
        {"top_logprobs": [[ENTRY_A, ENTRY_B]]},
        {"top_logprobs": [ENTRY_A, ENTRY_B]},
        {"top_logprobs": [{" a": {"logprob": A, "rank": 1}, " b": {"logprob": B, "rank": 2}}]},
        # the first position is the one that counts
        {"tokens": [" a", " c"], "top_logprobs": [{" a": A, " b": B}, {" c": -0.1}]},
        # bytes as text, and an id whose text is known because it is the whole answer
        {"tokens": [" a"], "top_logprobs": [{"bytes: a": A, "bytes:\\x20b": B}]},
        {"tokens": ["token_id:7"], "top_logprobs": [{"token_id:7": A, " b": B}]},
        {
            "content": [
                {"token": "?", "top_logprobs": [{**ENTRY_A, "token": "?"}, {**ENTRY_B, "bytes": None}]}
            ]
        },
        # numbers that are none
        {"tokens": [" a"], "top_logprobs": [{" a": A, " b": B, "x": None, "y": "low", "z": float("-inf")}]},
    ],
)
def test_the_shapes_of_all_servers_mean_the_same(logprobs: Any) -> None:
    result = answer(logprobs)
    assert tops(result) == {" a": 0.6, " b": 0.3}
    assert result.choices[0].alternatives is not None
    assert result.choices[0].alternatives[0].text == " a"
    assert result.choices[0].unreadable == 0


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        [],
        "none",
        {"tokens": [" a"], "token_logprobs": [A], "top_logprobs": None},
        {"tokens": [], "top_logprobs": []},
        {"top_logprobs": [None, {" a": A}]},
        {"top_logprobs": [{}]},
        {"content": []},
        {"content": None},
        {"content": [{"token": " a", "logprob": A}]},
        {"content": [{"token": " a", "logprob": A, "top_logprobs": []}]},
    ],
)
def test_missing_log_probabilities_are_none_and_no_error(logprobs: Any) -> None:
    result = answer(logprobs)
    assert result.choices[0].alternatives is None
    assert result.choices[0].text == " a"


def test_tokens_without_a_text_of_their_own_are_counted_and_left_out() -> None:
    top = {"token_id:9": A, "bytes:\\xe2\\x80": B, "\ufffd": -3.0, "ok": -4.0}
    result = answer({"tokens": ["ok"], "top_logprobs": [top]}, text="ok")
    assert result.choices[0].unreadable == 3
    assert [one.text for one in result.choices[0].alternatives or ()] == ["ok"]
    # an id stays unknown when the text holds more tokens than the first
    two = answer({"tokens": ["token_id:9", "x"], "top_logprobs": [{"token_id:9": A}, {}]}, text="yx")
    assert (two.choices[0].alternatives, two.choices[0].unreadable) == ((), 1)


def test_tokens_with_the_same_text_are_one_alternative() -> None:
    entries = [
        ENTRY_B,
        {"token": " b", "logprob": math.log(0.5), "bytes": None},
        {**ENTRY_A, "token": "\\x20a"},
    ]
    result = answer({"content": [{"token": " a", "top_logprobs": entries}]})
    assert tops(result) == {" b": 0.8, " a": 0.6}


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.floats(-20, 0), min_size=1, max_size=6))
def test_bytes_spelt_out_are_read_back(top: dict[str, float]) -> None:
    spelt = {"bytes:" + "".join(f"\\x{byte:02x}" for byte in t.encode()): p for t, p in top.items()}
    result = answer({"top_logprobs": [spelt]})
    wanted = {token for token in top if "\ufffd" not in token}
    assert {one.text for one in result.choices[0].alternatives or ()} == wanted


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "assistant", "content": "hi"}, "hi"),
        ({"role": "assistant", "content": None, "refusal": "no"}, ""),
        ({"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}, "hi"),
    ],
)
def test_chat_messages(message: Any, text: str) -> None:
    (result,) = read_answer({"choices": [{"message": message}]}, [ASK])
    assert result.choices[0].text == text
    assert result.choices[0].finish == ""


def test_choices_are_put_in_order_only_when_all_have_an_index() -> None:
    def read(*indices: Any) -> list[str]:
        choices = [{"text": f"{place}", "index": index} for place, index in enumerate(indices)]
        (result,) = read_answer({"choices": choices}, [CompletionRequest(n=3)])
        return [choice.text for choice in result.choices]

    assert read(2, 0, 1) == ["1", "2", "0"]
    assert read(0, 0, 0) == ["0", "1", "2"]
    assert read(1, None, 0) == ["0", "1", "2"]
    assert read(2, True, 1) == ["0", "1", "2"]


def test_usage_of_several_prompts_adds_up_and_a_missing_one_is_estimated() -> None:
    asked = [CompletionRequest("x" * 9), CompletionRequest("y"), CompletionRequest("z")]
    choices = [{"index": i, "text": "12345"} for i in range(3)]
    usage = {"prompt_tokens": 11, "completion_tokens": 4}
    results = read_answer({"choices": choices, "usage": usage}, asked)
    assert [r.prompt_tokens for r in results] == [4, 4, 3]
    assert [r.completion_tokens for r in results] == [2, 1, 1]
    assert not any(r.estimated for r in results)
    for bad in (None, {}, {"prompt_tokens": -1}, {"prompt_tokens": "5"}, {"prompt_tokens": True}, 3):
        results = read_answer({"choices": choices, "usage": bad}, asked)
        assert all(r.estimated for r in results)
        assert [r.prompt_tokens for r in results] == [3, 1, 1]
        assert [r.completion_tokens for r in results] == [2, 2, 2]
    (only_prompt,) = read_answer({"choices": choices[:1], "usage": {"prompt_tokens": 5}}, asked[:1])
    assert (only_prompt.spent, only_prompt.estimated) == (5, False)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": "x"}]},
    ],
)
def test_what_is_no_answer_is_refused(payload: Any) -> None:
    with pytest.raises(AnswerError):
        read_answer(payload, [ASK])


def test_a_wrong_number_of_choices_is_refused_for_several_prompts_only() -> None:
    with pytest.raises(AnswerError, match="1 choices for 2 prompts with 1 each"):
        read_answer({"choices": [{"text": "a"}]}, [ASK, ASK])
    (result,) = read_answer({"choices": [{"text": "a"}]}, [CompletionRequest(n=4)])
    assert len(result.choices) == 1
    (result,) = read_answer({"choices": [{"text": "a"}, {"text": "b"}]}, [ASK])
    assert [choice.text for choice in result.choices] == ["a"]


def test_a_result_survives_the_cache() -> None:
    result = answer({"tokens": ["x"], "top_logprobs": [{" a": A, "token_id:3": B}]})
    back = CompletionResult.from_json(json.loads(json.dumps(result.as_json())))
    assert back.choices == result.choices
    assert back.cached
    assert (back.prompt_tokens, back.estimated) == (result.prompt_tokens, True)
    for damaged in ({}, {"choices": 3}, {**result.as_json(), "prompt_tokens": None}, {"choices": [{}]}):
        with pytest.raises(AnswerError):
            CompletionResult.from_json(damaged)
