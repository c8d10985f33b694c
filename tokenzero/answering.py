"""One prompt answered by any method. What ``generate`` prints is made here.

It opens no models (see ``checkpoint``) and scores nothing against gold answers (see ``selfplay.evaluation``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tokenzero.checkpoint import Opened
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.game import End, Game
from tokenzero.selfplay.methods import SEARCHES, Budget, Method, MethodConfig, SampledGame, build
from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.selfplay.session import play_all
from tokenzero.tasks import PublicProblem

OnTrees = Callable[[list[RecordedTree]], None]

WARM_UP_TOKENS = 64
"""Most tokens that a warm-up forwards beside its prompt."""


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
    None. ``ledger`` has the fields of ``policy.ledger.Ledger``. ``end`` is what ended it (see
    ``selfplay.game.Game``). ``solved`` is what was said of it at test time and ``verified_by`` by whom: the
    "public" verifier, or the "judge" or the "value" that stood in for one; None where nobody was asked.
    """

    text: str
    tokens: list[int]
    value: float | None
    method: str
    seed: int
    ledger: dict[str, int | float]
    candidates: list[Candidate]
    end: End
    solved: bool | None
    verified_by: str | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def build_method(opened: Opened, config: MethodConfig | None = None) -> Method:
    """The method of ``config``; without one the checkpoint's own search. What nobody says of its budget is
    the checkpoint's useful budget of that method, where it was measured.

    Raises InputError for a combination that the parts cannot serve.
    """
    asked = config or MethodConfig()
    useful = opened.useful.get(asked.method or opened.search.method)
    if useful is not None and asked.simulations is None and asked.n is None:
        searches = budget_field(asked.method or opened.search.method) == "simulations"
        asked = replace(asked, simulations=useful) if searches else replace(asked, n=useful)
    return build(opened.parts, opened.search, asked, opened.leaf)


def budget_field(method: str) -> str:
    """The field of ``MethodConfig`` that says how much ``method`` may do: "simulations" or "n"."""
    return "simulations" if method in SEARCHES else "n"


def answer(
    opened: Opened,
    method: Method,
    prompt: str,
    seed: int,
    budget: Budget | None = None,
    stop: Sequence[str] = (),
    on_trees: OnTrees | None = None,
) -> Generation:
    """Answer one prompt, within ``budget``; the answer ends before the first of ``stop`` too. ``on_trees`` is
    called with the search trees, none where the method searches none.

    Raises InputError for a prompt that is empty, too long, outside the vocabulary or not the task's.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; give a whole number of at least 0")
    parts = opened.parts
    # The task reads prompts too; what is wrong with the text itself should be said first.
    encode_prompt(parts.student.tokenizer, prompt, parts.student.max_length - parts.task.max_answer_tokens)
    before = method.ledger.copy()
    problem = PublicProblem("prompt", prompt, parts.task.name, stop=tuple(stop))
    rng = np.random.default_rng(seed)
    if on_trees is None:
        game = method.play([problem], rng, budget=budget)[0]
    else:
        game = play_all(method.session(1), [problem], rng, budget, None, keep_trees=True)[0]
        on_trees(game.trees)
    return Generation(
        text=game.text,
        tokens=list(game.tokens),
        value=_value(game),
        method=method.name,
        seed=seed,
        ledger=method.ledger.since(before).as_dict(),
        candidates=_candidates(opened, method, game),
        end=game.end,
        solved=None if game.verdict is None else game.verdict == 1.0,
        verified_by=verified_by(game),
    )


def warm_up(opened: Opened, method: Method, prompt: str) -> None:
    """Begin an answer by ``method`` and throw it away: what is compiled once on a machine, which takes up to
    half a minute, must not count against a deadline. However much the method may do, no more than
    `WARM_UP_TOKENS` tokens are forwarded beside the prompt.

    Raises InputError as `answer` does.
    """
    problem = PublicProblem("warm-up", prompt, opened.parts.task.name, limit=2)
    prompt_tokens = len(encode_prompt(opened.parts.student.tokenizer, prompt))
    budget = Budget(tokens=prompt_tokens + WARM_UP_TOKENS)
    method.play([problem], np.random.default_rng(0), budget=budget)


def verified_by(game: Game) -> str | None:
    """Who accepted the answer: the "public" verifier, the "judge" or the "value" that stood in; None where
    nobody did."""
    if game.verdict is not None:
        return (game.verified_by or "public") if game.verdict == 1.0 else None
    return game.verified_by or None if game.terminal_value == 1.0 else None


def _value(game: Game) -> float | None:
    if game.verdict is not None:
        return 2.0 * game.verdict - 1.0
    return None if isinstance(game, SampledGame) else game.value


def _candidates(opened: Opened, method: Method, game: Game) -> list[Candidate]:
    if isinstance(game, SampledGame):
        return [] if method.name == "sample" else _answers(game)
    if method.name == "greedy" or not game.moves:  # a budget may be spent before the first search
        return []
    move, pieces = game.moves[0], opened.parts.pieces

    def text(action: int) -> str:
        return pieces.text(game.steps.get(action, (action,))).strip()

    found = [
        Candidate(text(int(action)), int(visits), float(q) if visits else None, float(prior))
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
