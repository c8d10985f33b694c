"""Tree search at test time, and the raw policy as the search without simulations.

It chooses options of a ``Player``; the search itself is there.
"""

from __future__ import annotations

import dataclasses

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.evaluator import LeafConfig, Parts
from tokenzero.selfplay.player import Player


class Search(Player):
    """A Player that neither explores nor records: no noise, and what was searched below a move is kept. With
    a public verifier, settled subtrees are left alone and a verified answer ends the search.
    """

    def __init__(self, parts: Parts, config: SearchConfig, leaf: LeafConfig | None = None) -> None:
        public = parts.task.public_verifier
        quiet = dataclasses.replace(
            config,
            gumbel_scale=0.0,
            dirichlet_fraction=0.0,
            temperature=0.0,
            reuse_subtree=True,
            stop_on_solution=public,
            skip_exhausted=public,
        )
        super().__init__(parts, quiet, leaf)
        self.name = config.method if config.simulations else "greedy"


def greedy(parts: Parts) -> Search:
    """The raw policy, its likeliest token each time; teachers and judge have no say."""
    return Search(parts, SearchConfig(simulations=0, candidates=1))
