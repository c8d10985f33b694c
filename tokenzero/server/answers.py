"""What an answer looks like from outside: its text, why it ended, what the search says and what it cost."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenzero.answering import verified_by
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import SampledGame
from tokenzero.server.asking import Order, scored
from tokenzero.server.scoring import Scored
from tokenzero.server.service import Prompt, Service


@dataclass(frozen=True)
class Answer:
    """One choice: ``scores`` are of its prompt and tokens as one sequence, where they were asked for."""

    index: int
    prompt: Prompt
    text: str
    tokens: list[int]
    finish: str
    search: dict[str, Any] | None
    scores: Scored | None = None


def chosen(found: Order, made: Sequence[Game]) -> list[Game]:
    """The games that are given: of ``draws`` for each prompt those ``n`` with the highest mean
    log-probability of a token, in the order in which they were asked for.
    """
    kept: list[Game] = []
    for first in range(0, len(made), found.draws):
        drawn = made[first : first + found.draws]
        order = sorted(range(len(drawn)), key=lambda j: (-_mean(drawn[j]), j))
        kept += [drawn[j] for j in sorted(order[: found.body.choices])]
    return kept


def _mean(game: Game) -> float:
    return game.value / max(1, len(game.tokens)) if isinstance(game, SampledGame) else 0.0


def answer(service: Service, found: Order, index: int, game: Game) -> Answer:
    """What is given of a finished game."""
    return Answer(
        index,
        found.prompts[index // found.body.choices],
        service.spelling.text(game.tokens, found.body.stops),
        list(game.tokens),
        "stop" if game.end in ("ended", "stop") else "length",
        None if found.search is None else _search(service, found, game),
    )


def empty(service: Service, found: Order, index: int) -> Answer:
    """The answer of a request for no tokens."""
    return Answer(index, found.prompts[index // found.body.choices], "", [], "length", None)


async def with_scores(
    service: Service, given: Sequence[Answer], top: int | None, ledger: Ledger
) -> list[Answer]:
    """The answers with the scores of their whole sequences and the ``top`` likeliest tokens at each place, or
    as they are where ``top`` is None; what that costs is added to ``ledger``.
    """
    if top is None:
        return list(given)
    sequences = [[*one.prompt.ids, *one.tokens] for one in given]
    ledger.prefill_tokens += sum(len(sequence) for sequence in sequences if len(sequence) > 1)
    scores = await scored(service, sequences, top)
    return [replace(one, scores=score) for one, score in zip(given, scores, strict=True)]


def frame_of(service: Service, found: Order, prefix: str, kind: str) -> dict[str, Any]:
    """What every object sent for an order says of itself; ``prefix`` begins its id, ``kind`` is the OpenAI
    API's name of it."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": service.name,
        "seed": found.seed,
    }


def cost(made: Sequence[Game]) -> Ledger:
    """What games cost together."""
    total = Ledger()
    for game in made:
        total.add(game.ledger)
    return total


def usage(service: Service, found: Order, made: Sequence[Game], ledger: Ledger) -> dict[str, Any]:
    """The usage object; it is also what the metrics are told."""
    ledger.wall_s = time.monotonic() - found.started
    service.metrics.pay(ledger)
    prompt = sum(len(one.ids) for one in found.prompts)
    completion = sum(len(game.tokens) for game in made)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "ledger": ledger.as_dict(),
    }


def _search(service: Service, found: Order, game: Game) -> dict[str, Any]:
    """The ``search`` object of a choice. ``value`` in [-1, 1]: the outcome by the public verdict where there
    is one, else what the search thinks of the prompt, else null.
    """
    value: float | None = None if isinstance(game, SampledGame) else game.value
    if game.verdict is not None:
        value = 2.0 * game.verdict - 1.0
    told: dict[str, Any] = {
        "value": value if value is not None and math.isfinite(value) else None,
        "simulations": game.simulations,
        "depth": game.depth,
        "end": game.end,
        "verified_by": verified_by(game),
    }
    if found.search is not None and found.search.return_tree:
        name = service.trees.keep(game)
        told["tree"] = None if name is None else {"id": name, "url": f"/trees/{name}"}
    return told
