"""``/v1/completions``: text goes on where the prompt ends.

Without ``search`` an answer is one sample of the model over free text, as OpenAI's servers give it. With
``echo`` or ``logprobs`` whole sequences are scored by the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tokenzero.server.answers import Answer, answer, chosen, cost, empty, frame_of, usage, with_scores
from tokenzero.server.asking import Order, games, order, submit, unless_left
from tokenzero.server.errors import refused
from tokenzero.server.protocol import CompletionBody
from tokenzero.server.service import Service
from tokenzero.server.streaming import EventStream, pieces

USUAL_TOKENS = 16
"""Tokens of an answer where the client names no limit, as in the OpenAI API."""


def routes(service: Service, documented: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/v1/completions", responses=documented)
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Go on with one or several prompts."""
        found = understood(service, body)
        if body.stream:
            return await unless_left(request.receive, _streamed(service, body, found))
        return JSONResponse(await unless_left(request.receive, _whole(service, body, found)))

    return router


def understood(service: Service, body: CompletionBody) -> Order:
    """The order of a request. Raises ApiError or InputError for what cannot be served."""
    draws = body.choices if body.best_of is None else body.best_of
    if draws < body.choices:
        raise refused(f"best_of is {draws} and n is {body.choices}; draw at least as many", "best_of")
    if draws > body.choices and (body.stream or body.search is not None):
        raise refused("best_of works neither with stream nor with search; use search.method", "best_of")
    prompts = service.prompts(body.prompt)
    usual = USUAL_TOKENS if body.search is None else None
    return order(service, body, prompts, most=body.max_tokens, usual=usual, draws=draws)


async def _whole(service: Service, body: CompletionBody, found: Order) -> dict[str, Any]:
    if found.tickets:
        submit(service, found)
        made = await games(service, found.tickets)
        given = [answer(service, found, index, game) for index, game in enumerate(chosen(found, made))]
    else:
        made = []
        given = [empty(service, found, index) for index in range(len(found.prompts) * body.choices)]
    ledger = cost(made)
    given = await with_scores(service, given, body.logprobs, ledger)
    return {
        **frame_of(service, found, "cmpl", "text_completion"),
        "choices": [_choice(service, body, one) for one in given],
        "usage": usage(service, found, made, ledger),
    }


async def _streamed(service: Service, body: CompletionBody, found: Order) -> Response:
    if not found.tickets:
        raise refused("there is nothing to stream with max_tokens 0", "max_tokens")
    frame = frame_of(service, found, "cmpl", "text_completion")

    def write(index: int, text: str, last: Answer | None) -> dict[str, Any]:
        if last is None:
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
        else:
            choice = {**_choice(service, body, last), "text": text}
        return {"choices": [choice], **({"usage": None} if body.wants_usage else {})}

    def first(index: int) -> str:
        return _echoed(service, found.prompts[index // body.choices].text) if body.echo else ""

    def framed(event: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**frame, "choices": [], **event}]

    events = pieces(service, found, write, top=body.logprobs, first=first)
    opening = framed(await anext(events))
    return EventStream(opening, events, framed, service.config.stall_s)


def _echoed(service: Service, prompt: str) -> str:
    return prompt + service.spelling.joint if prompt else ""


def _choice(service: Service, body: CompletionBody, one: Answer) -> dict[str, Any]:
    text = one.text
    if body.echo:
        text = _echoed(service, one.prompt.text) + text if text else one.prompt.text
    choice: dict[str, Any] = {
        "index": one.index,
        "text": text,
        "logprobs": None if one.scores is None else _log_probs(service, body, one),
        "finish_reason": one.finish,
    }
    return choice if one.search is None else {**choice, "search": one.search}


def _log_probs(service: Service, body: CompletionBody, one: Answer) -> dict[str, Any]:
    """Of the answer's tokens, and with ``echo`` of the prompt's, of which nothing is known of the first."""
    assert one.scores is not None
    sequence = [*one.prompt.ids, *one.tokens]
    begin = 0 if body.echo else len(one.prompt.ids)
    spelling = service.spelling
    # The first score is that of the second token.
    values = [None, *one.scores.log_probs][begin:]
    tops: Sequence[Any] = [None, *one.scores.top][begin:]
    tokens = sequence[begin:]
    return {
        "tokens": [spelling.name(token, first=at == 0) for at, token in enumerate(tokens)],
        "token_logprobs": values,
        "top_logprobs": [
            None if top is None else _by_name(service, top, at == 0) for at, top in enumerate(tops)
        ]
        if body.logprobs
        else None,
        "text_offset": spelling.offsets(tokens, 0, True),
    }


def _by_name(service: Service, top: Sequence[tuple[int, float]], first: bool) -> dict[str, float]:
    """Likeliest tokens by their text; of two that read alike the likelier one."""
    found: dict[str, float] = {}
    for token, value in top:
        found.setdefault(service.spelling.name(token, first), value)
    return found
