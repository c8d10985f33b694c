"""From a ``MethodConfig`` to the method itself.

It opens no models and reads no command line.
"""

from __future__ import annotations

from dataclasses import replace

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods.beams import BeamSearch
from tokenzero.selfplay.methods.config import SEARCHES, MethodConfig
from tokenzero.selfplay.methods.samples import BestOfN, SelfConsistency
from tokenzero.selfplay.methods.search import Search, greedy
from tokenzero.selfplay.session import Method

SAMPLES = 16
"""Samples or beams where nobody says otherwise."""


def build(parts: Parts, search: SearchConfig, config: MethodConfig) -> Method:
    """The method of ``config``; ``search`` holds a checkpoint's own options, and its method where ``config``
    names none.

    Raises InputError for a combination that the parts cannot serve.
    """
    if config.method is None or config.method in SEARCHES:
        return Search(parts, searching(search, config.method, config.simulations))
    samples = SAMPLES if config.n is None else config.n
    match config.method:
        case "greedy":
            return greedy(parts)
        case "sample":
            return BestOfN(parts, 1 if config.n is None else config.n, config.sampling, name="sample")
        case "beam":
            return BeamSearch(parts, samples)
        case "best-of-n":
            return BestOfN(parts, samples, config.sampling)
        case "self-consistency":
            return SelfConsistency(parts, samples, config.sampling)
    raise NotImplementedError(config.method)


def searching(search: SearchConfig, method: str | None, simulations: int | None) -> SearchConfig:
    """``search`` with another method or number of simulations, where given. A budget of tokens stays only
    with the method it was meant for, and where nobody asks for simulations.
    """
    tokens = search.tokens if simulations is None and method in (None, search.method) else None
    changed = replace(search, method=search.method if method is None else method, tokens=tokens)
    return changed if simulations is None else replace(changed, simulations=simulations, node_capacity=None)
