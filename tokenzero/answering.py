"""Methods by name, and one prompt answered by any of them. What ``generate`` prints is made here.

It opens no models (see ``checkpoint``) and scores nothing against gold answers (see ``selfplay.evaluation``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import (
    BeamSearch,
    BestOfN,
    Method,
    SampledGame,
    Search,
    SelfConsistency,
    greedy,
    searching,
)
from tokenzero.tasks import PublicProblem

SEARCHES = ("puct", "gumbel", "frontier")
METHODS = ("greedy", "sample", "beam", "best-of-n", "self-consistency", *SEARCHES)
SAMPLES = 16
"""Samples or beams where nobody says otherwise."""


@dataclass(frozen=True)
class Candidate:
    """One option that was weighed: a next token of a search (its visits, mean value and prior), or a whole
    answer of a sampling method (how often it was drawn, its outcome if a public verdict tells, and its
    probability).
    """

    text: str
    visits: int
    q: float | None
    prior: float


@dataclass(frozen=True)
class Generation:
    """An answer and how it came about.

    ``tokens`` are the answer's ids, its end mark included. ``value`` in [-1, 1] is the outcome by the public
    verdict where there is one, else the value of the prompt after search, else (sampling without a verdict)
    None. ``ledger`` has the fields of ``policy.ledger.Ledger``.
    """

    text: str
    tokens: list[int]
    value: float | None
    method: str
    seed: int
    ledger: dict[str, int | float]
    candidates: list[Candidate]

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def build_method(
    opened: Opened, name: str | None, simulations: int | None = None, n: int | None = None
) -> Method:
    """The method called ``name``; None is the checkpoint's own search.

    Raises InputError for an unknown name or a number out of its range.
    """
    parts = opened.parts
    if name is None or name in SEARCHES:
        return Search(parts, searching(opened.search, name, simulations))
    if name == "greedy":
        return greedy(parts)
    if name == "sample":
        return BestOfN(parts, 1, name="sample")
    samples = SAMPLES if n is None else n
    if name == "beam":
        return BeamSearch(parts, samples)
    if name == "best-of-n":
        return BestOfN(parts, samples)
    if name == "self-consistency":
        return SelfConsistency(parts, samples)
    raise InputError(_unknown(name))


def check_methods(names: list[str]) -> list[str]:
    """``names`` if all are tree searches, else InputError."""
    for name in names:
        if name not in SEARCHES:
            raise InputError(
                _unknown(name)
                if name not in METHODS
                else f"{name} is no search; use one of {', '.join(SEARCHES)}"
            )
    return names


def _unknown(name: str) -> str:
    near = get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"method {name!r} does not exist; {hint}there are {', '.join(METHODS)}"


def answer(opened: Opened, method: Method, prompt: str, seed: int) -> Generation:
    """Answer one prompt. Raises InputError for a prompt that is empty, too long, outside the vocabulary or
    not the task's.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; give a whole number of at least 0")
    parts = opened.parts
    # The task reads prompts too; what is wrong with the text itself should be said first.
    encode_prompt(parts.student.tokenizer, prompt, parts.student.max_length - parts.task.max_answer_tokens)
    before = method.ledger.copy()
    problem = PublicProblem("prompt", prompt, parts.task.name)
    game = method.play([problem], np.random.default_rng(seed))[0]
    return Generation(
        text=game.text,
        tokens=list(game.tokens),
        value=_value(game),
        method=method.name,
        seed=seed,
        ledger=method.ledger.since(before).as_dict(),
        candidates=_candidates(opened, method, game),
    )


def _value(game: Game) -> float | None:
    if game.verdict is not None:
        return 2.0 * game.verdict - 1.0
    return None if isinstance(game, SampledGame) else game.value


def _candidates(opened: Opened, method: Method, game: Game) -> list[Candidate]:
    if isinstance(game, SampledGame):
        return [] if method.name == "sample" else _answers(game)
    if method.name == "greedy":
        return []
    move, pieces = game.moves[0], opened.parts.pieces
    found = [
        Candidate(pieces.text([int(action)]).strip(), int(visits), float(q) if visits else None, float(prior))
        for action, visits, q, prior in zip(move.actions, move.visits, move.q, move.prior, strict=True)
        if action >= 0
    ]
    return sorted(found, key=lambda c: (-c.visits, -c.prior))


def _answers(game: SampledGame) -> list[Candidate]:
    """The distinct answers, the most frequent first; probabilities are those of the first time each was
    drawn.
    """
    found: dict[str, Candidate] = {}
    for drawn in game.answers:
        seen = found.get(drawn.text)
        q = None if drawn.verdict is None else 2.0 * drawn.verdict - 1.0
        prior = math.exp(drawn.log_probability) if seen is None else seen.prior
        found[drawn.text] = Candidate(drawn.text, 1 if seen is None else seen.visits + 1, q, prior)
    return sorted(found.values(), key=lambda c: (-c.visits, -c.prior))
