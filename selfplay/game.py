"""One problem played to its end: the answer, what the searches on the way said, and what it cost.

Records only; nothing here plays, scores or learns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, ROOT
from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.tasks import PublicProblem

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


End = Literal["ended", "stop", "length", "budget"]
VerifiedBy = Literal["public", "judge", "value", ""]


@dataclass(slots=True)
class SearchedTree:
    """A whole search tree of n nodes, parents before their children; node 0 is the prompt.

    ``parent`` i32 [n], ``token`` i64 [n] that leads to a node (both -1 at the root); ``visits`` i32 [n]
    play-outs through it, ``value_sum`` f64 [n] their outcomes; ``raw_value`` f32 [n] of the evaluator;
    ``terminal``, ``exhausted`` bool [n]; ``solutions`` i32 [n], distinct verified solutions at or below it;
    ``proposers`` f32 [n, 1 + teachers], whose proposals led to a node, None where there were no teachers.
    """

    parent: I32
    token: Ids
    visits: I32
    value_sum: npt.NDArray[np.float64]
    raw_value: F32
    terminal: Flags
    exhausted: Flags
    solutions: I32
    proposers: F32 | None = None

    def path(self, node: int) -> list[int]:
        """Tokens from the prompt to ``node``."""
        tokens: list[int] = []
        while node != ROOT:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return tokens[::-1]

    def depths(self) -> I32:
        """Tokens from the prompt to each node, i32 [n]."""
        depth = np.zeros(len(self.parent), np.int32)
        for node, above in enumerate(self.parent.tolist()):
            depth[node] = 0 if above == NONE else depth[above] + 1
        return depth


@dataclass(slots=True)
class Searched:
    """A state that a search looked into: its candidates with their share of the improved policy, and its
    value."""

    actions: list[int]
    weights: list[float]
    value: float


@dataclass(slots=True)
class Move:
    """One searched position: candidate ``actions`` i64 [K], the visit distribution ``weights`` f32 [K], the
    root value after search, the chosen action's ``responsibility`` f32 [1 + teachers], and where teachers
    spoke that of all candidates, ``shares`` f32 [K, 1 + teachers]. ``full`` is False for a fast search of
    playout cap randomisation, whose weights are no target to learn from.
    """

    actions: Ids
    weights: F32
    visits: npt.NDArray[np.int32]
    q: F32
    prior: F32
    value: float
    chosen: int
    responsibility: F32
    full: bool = True
    shares: F32 | None = None


@dataclass
class Game:
    """One problem played to its end.

    ``end`` is what ended it: "ended" (the end mark, a verdict, a detector), "stop" (one of the problem's stop
    strings), "length" (no room for more tokens) or "budget" (tokens or time were spent first).
    ``tokens`` the answer; ``moves[i]`` the search before ``tokens[i]`` (fewer moves than tokens when a
    solution found in the tree was played out at once). ``verdict`` is the public verifier's score, None when
    only gold could tell; ``verified_by`` who took answers for solutions or refused them: the "public"
    verifier, the "judge" or the "value" that stood in for one, "" where nobody did. ``forwarded`` tokens of
    the model this game needs by itself, prompt included, whatever it shares with others, and ``ledger`` all
    that it needs, teachers and judge included, without seconds; ``depth`` is the deepest node any of its
    trees reached. ``tree`` is all that frontier search saw; ``searched`` what other searches say of states,
    by their answer tokens, where a player was told to gather it. Where an action of the searches is a whole
    step and no token, ``steps`` says which tokens its number stands for. ``trees`` are the searches of the
    game as they can be looked at, one for each move, where the asker wanted them kept.
    """

    problem: PublicProblem
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    text: str = ""
    value: float = 0.0
    verdict: float | None = None
    forwarded: int = 0
    simulations: int = 0
    depth: int = 0
    terminal_value: float | None = None
    end: End = "ended"
    verified_by: VerifiedBy = ""
    ledger: Ledger = field(default_factory=Ledger)
    tree: SearchedTree | None = None
    searched: dict[tuple[int, ...], Searched] = field(default_factory=dict)
    steps: dict[int, tuple[int, ...]] = field(default_factory=dict)
    trees: list[RecordedTree] = field(default_factory=list)
