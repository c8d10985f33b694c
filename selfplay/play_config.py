"""How a round is played, as one frozen record. It plays nothing: see ``play_stage``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.evaluator import LeafConfig
from tokenzero.selfplay.move_session import Caps

PLAYERS = ("search", "sample", "demonstrate")
TARGETS = ("path", "tree", "solutions", "rewards")


@dataclass(frozen=True)
class PlayConfig:
    """How a round is played, and what of it is learnt from.

    ``games`` problems, ``games_in_flight`` of them searched together; with ``tokens`` as many problems as
    that many forwarded tokens last for, prompts included, over all rounds together to the token or nearly so.

    ``player``: "search" plays with ``search``; "sample" draws ``samples`` answers to each problem at
    ``temperature``; "demonstrate" shows random legal play and forwards nothing.

    ``targets``: "path" the visit distributions along the moves played; "tree" every state of the search tree,
    of PUCT and Gumbel those with ``tree_visits`` visits, of frontier search with solutions counted
    ``length_discount`` to the power of their extra length; "solutions" every distinct solution found, as
    whole sequences, and nothing else (expert iteration, rejection sampling); "rewards" every sample, weighted
    by its score.

    ``fast_simulations`` above 0 turns playout cap randomisation on: a share ``full_share`` of the moves is
    searched with ``search.simulations`` and learnt from, the others with ``fast_simulations`` and no noise.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    games: int = 3000
    games_in_flight: int = 1024
    tokens: int | None = None
    player: str = "search"
    samples: int = 8
    temperature: float = 1.0
    targets: str = "path"
    tree_visits: int = 4
    length_discount: float = 1.0
    search: SearchConfig = field(default_factory=SearchConfig)
    leaf: LeafConfig = field(default_factory=LeafConfig)
    fast_simulations: int = 0
    full_share: float = 1.0

    def __post_init__(self) -> None:
        Caps(self.search.simulations, self.fast_simulations, self.full_share)
        if self.games < 1 or self.games_in_flight < 1 or min(self.samples, self.tree_visits) < 1:
            raise InputError(
                f"play.games is {self.games}, games_in_flight {self.games_in_flight} samples "
                f"{self.samples} and tree_visits {self.tree_visits}; give at least 1 of each"
            )
        if self.tokens is not None and self.tokens < 1:
            raise InputError(
                f"play.tokens is {self.tokens}; give at least 1, or null to let play.games decide"
            )
        if not self.temperature > 0:
            raise InputError(f"play.temperature is {self.temperature}; give a number above 0")
        if not 0 < self.length_discount <= 1:
            raise InputError(
                f"play.length_discount is {self.length_discount}; give a number above 0, at most 1 (off)"
            )
        if self.player not in PLAYERS:
            raise InputError(f"play.player is {self.player!r}; choose one of {', '.join(PLAYERS)}")
        if self.targets not in TARGETS:
            raise InputError(f"play.targets is {self.targets!r}; choose one of {', '.join(TARGETS)}")
        self._check_targets()

    def _check_targets(self) -> None:
        frontier = self.player == "search" and self.search.method == "frontier"
        possible = {
            "search": ("tree", "solutions") if frontier else ("path", "tree", "solutions"),
            "sample": ("solutions", "rewards"),
            "demonstrate": ("path",),
        }[self.player]
        if self.targets not in possible:
            who = "frontier search commits to no path" if frontier else f"play.player is {self.player!r}"
            raise InputError(
                f"play.targets is {self.targets!r} but {who}; choose one of {', '.join(possible)}"
            )
