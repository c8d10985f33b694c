"""From a ``MethodConfig`` to the method itself.

It opens no models and reads no command line.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.selfplay.methods.beams import BeamSearch
from tokenzero.selfplay.methods.config import SEARCHES, MethodConfig
from tokenzero.selfplay.methods.samples import BestOfN, SelfConsistency
from tokenzero.selfplay.methods.search import Search, greedy
from tokenzero.selfplay.methods.steps import Dvts, StepBeam
from tokenzero.selfplay.player import EvaluatorFactory
from tokenzero.selfplay.session import Method
from tokenzero.selfplay.step_drafts import PROPOSALS, STEP_TOKENS, StepRules
from tokenzero.selfplay.step_evaluator import StepEvaluator
from tokenzero.selfplay.text.likelihood_evaluator import LikelihoodConfig, LikelihoodEvaluator

SAMPLES = 16
"""Samples or beams where nobody says otherwise."""

BEAMS = 4
"""Step-level beams, or first steps of DVTS, where nobody says otherwise; each costs `PROPOSALS` samples."""

ACTIONS = 64
"""Most actions of an environment that a search weighs at a state; the likeliest are kept."""


def build(parts: Parts, search: SearchConfig, config: MethodConfig, leaf: LeafConfig | None = None) -> Method:
    """The method of ``config``; ``search`` holds a checkpoint's own options, and its method where ``config``
    names none. ``leaf`` is how searches price states.

    Raises InputError for a combination that the parts cannot serve.
    """
    if config.method is None or config.method in SEARCHES:
        own = searching(search, config.method, config.simulations)
        evaluator: EvaluatorFactory = LeafEvaluator
        if parts.task.likelier_is_better:
            evaluator = partial(LikelihoodEvaluator, LikelihoodConfig())
        if config.granularity == "step":
            rules = _rules(config)
            own, evaluator = replace(own, candidates=rules.proposals), partial(StepEvaluator, rules)
        elif config.granularity == "environment":
            own, evaluator = replace(own, candidates=ACTIONS), partial(StepEvaluator, None)
        return Search(
            parts,
            own,
            leaf,
            evaluator=evaluator,
            smart_pruning=config.smart_pruning,
            min_kld_gain=config.min_kld_gain,
            stand_in=config.stand_in,
        )
    samples = SAMPLES if config.n is None else config.n
    match config.method:
        case "greedy":
            return greedy(parts)
        case "sample":
            count = 1 if config.n is None else config.n
            return BestOfN(parts, count, config.sampling, choose="first", name="sample")
        case "beam":
            return BeamSearch(
                parts,
                samples,
                length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
                groups=1 if config.groups is None else config.groups,
                diversity=config.diversity,
            )
        case "best-of-n":
            return BestOfN(parts, samples, config.sampling, choose=config.choose)
        case "self-consistency":
            return SelfConsistency(parts, samples, config.sampling, vote=config.vote)
        case "step-beam":
            return StepBeam(parts, BEAMS if config.n is None else config.n, _rules(config))
        case _:
            return Dvts(parts, BEAMS if config.n is None else config.n, _rules(config))


def _rules(config: MethodConfig) -> StepRules:
    """What a step is, with this project's defaults for what ``config`` leaves open."""
    return StepRules(
        config.delimiter,
        STEP_TOKENS if config.step_tokens is None else config.step_tokens,
        PROPOSALS if config.proposals is None else config.proposals,
        config.sampling,
    )


def searching(search: SearchConfig, method: str | None, simulations: int | None) -> SearchConfig:
    """``search`` with another method or number of simulations, where given. A budget of tokens stays only
    with the method it was meant for, and where nobody asks for simulations; an early stop stays with puct.
    """
    if method in (None, search.method):
        changed = search if simulations is None else replace(search, tokens=None)
    else:
        changed = replace(
            search, method=method, tokens=None, smart_pruning=False, min_kld_gain=0.0, prune_targets=False
        )
    return changed if simulations is None else replace(changed, simulations=simulations, node_capacity=None)
