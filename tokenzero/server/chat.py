"""``/v1/chat/completions``: messages become one prompt, by the tokenizer's chat template.

A model without a template was never taught roles: the contents are then joined by line ends and nothing is
added, so that a chat of one message asks what a completion of its text asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tokenzero.server.answers import Answer, answer, cost, frame_of, usage, with_scores
from tokenzero.server.asking import Order, games, order, submit, unless_left
from tokenzero.server.errors import refused
from tokenzero.server.protocol import ChatBody, Message
from tokenzero.server.service import Prompt, Service
from tokenzero.server.streaming import EventStream, pieces


def routes(service: Service, documented: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/v1/chat/completions", responses=documented)
    async def chat(request: Request, body: ChatBody) -> Response:
        """Answer a conversation."""
        found = _understood(service, body)
        if body.stream:
            return await unless_left(request.receive, _streamed(service, body, found))
        return JSONResponse(await unless_left(request.receive, _whole(service, body, found)))

    return router


def prompt_of(service: Service, messages: Sequence[Message], *, begin_answer: bool = True) -> Prompt:
    """The prompt that a conversation is. Raises ApiError or InputError for one the model cannot take."""
    tokenizer = service.tokenizer
    if not tokenizer.chat_template:
        return service.prompt("\n".join(message.text for message in messages))
    from jinja2 import TemplateError

    turns = [{"role": message.role, "content": message.text} for message in messages]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=begin_answer))
    except TemplateError as error:
        raise refused(f"the model's chat template refuses these messages: {error}", "messages") from error
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # a template writes special tokens itself
    if not ids:
        raise refused("the messages are empty; write something", "messages")
    return replace(service.prompt_of_ids(ids), text=text)


def _understood(service: Service, body: ChatBody) -> Order:
    if body.top_logprobs is not None and not body.logprobs:
        raise refused("top_logprobs needs logprobs: true", "top_logprobs")
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    prompt = prompt_of(service, body.messages)
    return order(service, body, [prompt], most=most, usual=None, draws=body.choices)


def _top(body: ChatBody) -> int | None:
    return (body.top_logprobs or 0) if body.logprobs else None


async def _whole(service: Service, body: ChatBody, found: Order) -> dict[str, Any]:
    submit(service, found)
    made = await games(service, found.tickets)
    given = [answer(service, found, index, game) for index, game in enumerate(made)]
    ledger = cost(made)
    given = await with_scores(service, given, _top(body), ledger)
    choices = [
        {
            "index": one.index,
            "message": {"role": "assistant", "content": one.text, "refusal": None},
            **_ending(service, one),
        }
        for one in given
    ]
    frame = frame_of(service, found, "chatcmpl", "chat.completion")
    return {**frame, "choices": choices, "usage": usage(service, found, made, ledger)}


async def _streamed(service: Service, body: ChatBody, found: Order) -> Response:
    frame = frame_of(service, found, "chatcmpl", "chat.completion.chunk")
    if body.wants_usage:
        frame["usage"] = None

    def write(index: int, text: str, last: Answer | None) -> dict[str, Any]:
        return {"index": index, "text": text, "ending": None if last is None else _ending(service, last)}

    def chunks(event: dict[str, Any]) -> list[dict[str, Any]]:
        return _chunks(frame, event)

    events = pieces(service, found, write, top=_top(body))
    first = await anext(events)
    roles = [
        _chunk(frame, index, {"role": "assistant", "content": ""}) for index in range(len(found.tickets))
    ]
    return EventStream([*roles, *chunks(first)], events, chunks, service.config.stall_s)


def _chunks(frame: dict[str, Any], event: dict[str, Any]) -> list[dict[str, Any]]:
    """A piece of text as a chunk, its end as one more; or the usage."""
    if "usage" in event:
        return [{**frame, "choices": [], **event}]
    index, ending = event["index"], event["ending"]
    found: list[dict[str, Any]] = []
    if event["text"]:
        log_probs = None if ending is None else ending["logprobs"]
        found.append(_chunk(frame, index, {"content": event["text"]}, logprobs=log_probs))
        if ending is not None:
            ending["logprobs"] = None
    if ending is not None:
        found.append(_chunk(frame, index, {}, **ending))
    return found


def _chunk(frame: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
    return {**frame, "choices": [choice]}


def _ending(service: Service, one: Answer) -> dict[str, Any]:
    ending: dict[str, Any] = {
        "logprobs": None if one.scores is None else {"content": _log_probs(service, one), "refusal": None},
        "finish_reason": one.finish,
    }
    return ending if one.search is None else {**ending, "search": one.search}


def _log_probs(service: Service, one: Answer) -> list[dict[str, Any]]:
    """The answer's tokens with the likeliest ones at their places."""
    assert one.scores is not None
    begin = len(one.prompt.ids) - 1  # the first score is that of the second token
    log_probs, top = one.scores.log_probs[begin:], one.scores.top[begin:]
    return [
        {
            **_token(service, token, log_prob, at == 0),
            "top_logprobs": [_token(service, other, value, at == 0) for other, value in likeliest],
        }
        for at, (token, log_prob, likeliest) in enumerate(zip(one.tokens, log_probs, top, strict=True))
    ]


def _token(service: Service, token: int, log_prob: float, first: bool) -> dict[str, Any]:
    spelling = service.spelling
    return {
        "token": spelling.name(token, first),
        "bytes": list(spelling.bytes(token, first)),
        "logprob": log_prob,
    }
