"""From the body of a request to the tickets that the conductor takes, and back to the games it made of them.

Completions and chat differ in how they write prompts and answers down; what happens in between is here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from starlette.types import Receive

from tokenzero.policy.sampling import Sampling
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import MethodConfig
from tokenzero.selfplay.methods.config import DRAWING, STEPWISE
from tokenzero.selfplay.session import Asked
from tokenzero.server.errors import ApiError, as_api_error, refused, unavailable
from tokenzero.server.limits import check_search
from tokenzero.server.protocol import Sampled, SearchRequest
from tokenzero.server.scoring import Scored, score
from tokenzero.server.service import Group, Prompt, Service
from tokenzero.server.tickets import Broken, Closed, Full, Ticket
from tokenzero.tasks import PublicProblem

T = TypeVar("T")
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


@dataclass(frozen=True)
class Order:
    """A request that is understood: ``tickets[p * draws + j]`` is answer j to prompt p. ``draws`` is at least
    the number of answers that are given. No tickets where nothing is to be written.
    """

    body: Sampled
    prompts: list[Prompt]
    draws: int
    seed: int
    tickets: list[Ticket]
    search: SearchRequest | None
    started: float


def order(
    service: Service,
    body: Sampled,
    prompts: list[Prompt],
    *,
    most: int | None,
    usual: int | None,
    draws: int,
) -> Order:
    """Understand a request. ``most`` tokens of an answer, ``usual`` where the client names none: None for as
    many as there is room for. Raises ApiError or InputError for what cannot be served.
    """
    service.check_model(body.model)
    if body.stream_options is not None and not body.stream:
        raise refused("stream_options mean nothing without stream", "stream_options")
    if len(prompts) * draws > service.config.choices:
        raise refused(
            f"{len(prompts)} prompts with {draws} answers each; "
            f"this server gives {service.config.choices} answers at a time",
            "n",
        )
    seed = secrets.randbits(32) if body.seed is None else body.seed
    started = time.monotonic()
    tickets: list[Ticket] = []
    if most != 0:
        deadline = started + service.config.timeout_s
        if body.search is not None and body.search.deadline_ms is not None:
            deadline = min(deadline, started + body.search.deadline_ms / 1000)
        for prompt in prompts:
            group = _group(service, body, prompt)
            problem = _problem(service, body, prompt, group, most, usual)
            drawing = sampling(service, body) if _draws(group.method) else None
            for j in range(draws):
                rng = np.random.default_rng([seed % (1 << 64), j])
                tickets.append(Ticket(group, _asked(body.search, problem, rng, deadline, drawing)))
    return Order(body, prompts, draws, seed, tickets, body.search, started)


def _asked(
    search: SearchRequest | None,
    problem: PublicProblem,
    rng: np.random.Generator,
    deadline: float,
    drawing: Sampling | None,
) -> Asked:
    if search is None:
        return Asked(problem, rng, None, deadline, sampling=drawing)
    return Asked(problem, rng, search.tokens, deadline, sampling=drawing, keep_tree=search.return_tree)


def _group(service: Service, body: Sampled, prompt: Prompt) -> Group:
    """Which session answers: samples of free text, as OpenAI's servers give them, or what ``search`` says."""
    if body.search is None:
        return Group(MethodConfig(method="sample"), free=True)
    method = body.search.method
    if method.method is None:
        method = replace(method, method=service.opened.search.method)
    check_search(method, service.config)
    if body.search.return_tree and not service.trees.kept:
        raise refused("this server keeps no trees; start it with --keep-trees N", "search.return_tree")
    return Group(method, free=not service.reads(prompt))


def _draws(method: MethodConfig) -> bool:
    """Whether the request's own temperature and filters say how tokens are drawn: where the method draws, and
    ``search.sampling`` says nothing else. Others are deterministic and have no use for them.
    """
    drawing = method.method in (*DRAWING, *STEPWISE) or method.granularity == "step"
    return drawing and method.sampling == Sampling()


def sampling(service: Service, body: Sampled) -> Sampling:
    """How tokens are drawn. Raises ApiError for a bias on an id that is no token."""
    given: dict[str, Any] = {
        name: getattr(body, name) for name in SAMPLING if getattr(body, name) is not None
    }
    if body.logit_bias:
        known = service.student.vocab_size
        bias = sorted((int(token), float(value)) for token, value in body.logit_bias.items())
        if bias[-1][0] >= known:
            raise refused(f"logit_bias: {bias[-1][0]} is no token id; there are {known}", "logit_bias")
        given["logit_bias"] = tuple(bias)
    return Sampling(**given)


def _problem(
    service: Service, body: Sampled, prompt: Prompt, group: Group, most: int | None, usual: int | None
) -> PublicProblem:
    room = service.room - len(prompt.ids)
    if room < 1:
        raise refused(
            f"the prompt has {len(prompt.ids)} tokens, the model takes {service.room}, answer included; "
            "shorten it",
            "prompt",
        )
    if most is not None and most > room:
        raise ApiError(
            400,
            f"the prompt has {len(prompt.ids)} tokens and max_tokens is {most}; "
            f"together they may be {service.room}",
            param="max_tokens",
            code="context_length_exceeded",
        )
    if group.free:
        wanted = min(room, usual or room) if most is None else most
    else:
        longest = service.opened.parts.task.max_answer_tokens
        wanted = min(room, longest if most is None else min(most, longest))
    tag = "" if group.free else service.opened.parts.task.name
    ids = () if prompt.cut else prompt.ids
    return PublicProblem("request", prompt.text, tag, wanted, body.stops, ids)


def submit(service: Service, found: Order) -> None:
    """Hand the tickets of an order to the conductor. Raises ApiError 429 or 503."""
    try:
        service.conductor.submit(found.tickets)
    except (Full, Closed) as error:
        raise told(error) from error


def told(error: BaseException) -> ApiError:
    """An exception of the conductor as what a client is told."""
    if isinstance(error, Full):
        return ApiError(
            429,
            "the server has as many requests as it takes; try again later",
            code="queue_full",
            headers={"Retry-After": str(error.retry_after)},
        )
    if isinstance(error, Closed):
        return unavailable(str(error), 5)
    if isinstance(error, Broken):
        return unavailable(f"the method failed ({error}); the server's log has more, try again", 1)
    return as_api_error(error)


class Gone(Exception):
    """The client left before it had its answer."""


async def left(receive: Receive) -> None:
    """Wait until the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves first: then Gone is raised."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def games(service: Service, tickets: Sequence[Ticket]) -> list[Game]:
    """The games of ``tickets``, which are dropped when one fails or nobody waits any more."""
    try:
        return list(await asyncio.gather(*(asyncio.wrap_future(ticket.game) for ticket in tickets)))
    except (Broken, Closed) as error:
        raise told(error) from error
    finally:
        service.conductor.drop([ticket for ticket in tickets if not _answered(ticket.game)])


def _answered(future: Future[Game]) -> bool:
    return future.done() and not future.cancelled()


async def scored(service: Service, sequences: list[list[int]], top: int) -> list[Scored]:
    """Log-probabilities of sequences (see ``scoring``)."""
    try:
        work = service.conductor.call(score(service.student, sequences, top))
        return await asyncio.wrap_future(work)
    except (Full, Closed, Broken) as error:
        raise told(error) from error
