"""Tree search at test time, and the raw policy as the search without simulations.

It chooses options of a ``Player``; the search itself is there.
"""

from __future__ import annotations

import dataclasses
from copy import copy

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.selfplay.player import EvaluatorFactory, Player


class Search(Player):
    """A Player that neither explores nor records: no noise, and what was searched below a move is kept. With
    a public verifier, settled subtrees are left alone and a verified answer ends the search.

    ``smart_pruning`` and ``min_kld_gain`` end searches early, where they are given in place of ``config``'s
    own. ``stand_in`` is the value from which on frontier search takes a finished answer for a solution where
    nobody can verify one; its first solution ends it in any case. ``evaluator`` makes what prices states.

    Raises InputError for options that the method does not know.
    """

    def __init__(
        self,
        parts: Parts,
        config: SearchConfig,
        leaf: LeafConfig | None = None,
        *,
        smart_pruning: bool | None = None,
        min_kld_gain: float | None = None,
        stand_in: float | None = None,
        evaluator: EvaluatorFactory = LeafEvaluator,
    ) -> None:
        public = parts.task.public_verifier
        quiet = dataclasses.replace(
            config,
            gumbel_scale=0.0,
            dirichlet_fraction=0.0,
            temperature=0.0,
            reuse_subtree=True,
            stop_on_solution=public or config.method == "frontier",
            skip_exhausted=public,
            smart_pruning=config.smart_pruning if smart_pruning is None else smart_pruning,
            min_kld_gain=config.min_kld_gain if min_kld_gain is None else min_kld_gain,
        )
        super().__init__(parts, quiet, leaf, stand_in=stand_in, evaluator=evaluator)
        self.name = config.method if config.simulations else "greedy"


def greedy(parts: Parts) -> Search:
    """The raw policy, its likeliest token each time; teachers and judge have no say."""
    alone = copy(parts)
    alone.ensemble = None
    return Search(alone, SearchConfig(simulations=0, candidates=1))
