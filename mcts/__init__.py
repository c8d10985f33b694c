"""The search, on integers and arrays only.

Give `search` evaluated roots and an `Evaluator`; it grows one tree per root and answers with a visit
distribution. Nothing here knows text, tokens, models or torch.
"""

from __future__ import annotations

from tokenzero.mcts.answer import SearchResult
from tokenzero.mcts.config import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluation, Evaluator
from tokenzero.mcts.export import to_networkx
from tokenzero.mcts.frontier import FrontierPool, FrontierResult
from tokenzero.mcts.noise import dirichlet_noise, gumbel_noise
from tokenzero.mcts.pool import SearchPool
from tokenzero.mcts.revision import Reviser, Revision
from tokenzero.mcts.search import search, warm
from tokenzero.mcts.tree import NONE, ROOT, Tree

__all__ = [
    "NONE",
    "ROOT",
    "Evaluation",
    "Evaluator",
    "FrontierPool",
    "FrontierResult",
    "InputError",
    "Reviser",
    "Revision",
    "SearchConfig",
    "SearchPool",
    "SearchResult",
    "Tree",
    "dirichlet_noise",
    "gumbel_noise",
    "search",
    "to_networkx",
    "warm",
]
