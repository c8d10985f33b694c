"""Ways to answer problems, behind one face and one ledger: greedy, sampling, beams, steps, search.

Every method sees ``PublicProblem``s only; a public verdict may end a sample or a search early for every
method alike. Scoring against gold answers is ``selfplay.evaluation``'s.
"""

from __future__ import annotations

from tokenzero.selfplay.methods.beams import BeamSearch
from tokenzero.selfplay.methods.build import build, searching
from tokenzero.selfplay.methods.config import METHODS, SEARCHES, MethodConfig, unknown_method
from tokenzero.selfplay.methods.decoder import Answer, SampledGame
from tokenzero.selfplay.methods.samples import BestOfN, SelfConsistency
from tokenzero.selfplay.methods.search import Search, greedy
from tokenzero.selfplay.methods.steps import Dvts, StepBeam
from tokenzero.selfplay.session import Budget, Method, OnGames

__all__ = [
    "METHODS",
    "SEARCHES",
    "Answer",
    "BeamSearch",
    "BestOfN",
    "Budget",
    "Dvts",
    "Method",
    "MethodConfig",
    "OnGames",
    "SampledGame",
    "Search",
    "SelfConsistency",
    "StepBeam",
    "build",
    "greedy",
    "searching",
    "unknown_method",
]
