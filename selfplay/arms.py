"""Experts to compare, each a handful of settings over one base config: what plays, and what is learnt from
it.

An arm is an ordinary self-play run; the comparison gives all arms the same warm start, the same forwarded
tokens in play (``play.tokens``) and the same optimiser steps. It runs nothing: ``tokenzero compare`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.config import SelfPlayConfig

Record = TypeVar("Record")


@dataclass(frozen=True)
class Arm:
    """An expert: its ``name``, a ``title`` for tables, ``settings`` by dotted key, and what it is
    ``about``."""

    name: str
    title: str
    settings: Mapping[str, Any]
    about: str = field(default="")


_FRONTIER = {"play.player": "search", "play.search.method": "frontier"}
# Right answers alone would teach the value head that everything succeeds.
_IMITATION = {"play.targets": "solutions", "learner.value_weight": 0.0}
_PATH = {"play.player": "search", "play.search.tokens": None, "play.targets": "path"}

ARMS = {
    arm.name: arm
    for arm in (
        Arm(
            "frontier",
            "frontier search, whole trees",
            {**_FRONTIER, "play.targets": "tree", "learner.taught_share": 0.75},
            "solution counts as targets at every state of the tree, values everywhere",
        ),
        Arm(
            "frontier-solutions",
            "frontier search, imitation",
            {**_FRONTIER, **_IMITATION},
            "every distinct solution found, as a sequence; the value head stays as the warm start left it",
        ),
        Arm(
            "without-replacement",
            "sampling without replacement",
            {
                **_FRONTIER,
                "play.search.frontier_score": "sampling",
                **_IMITATION,
            },
            "no answer twice, shared beginnings paid once (Kool et al., arXiv:1903.06059)",
        ),
        Arm(
            "sampling",
            "rejection sampling",
            {"play.player": "sample", **_IMITATION},
            "play.samples answers to each problem; every distinct right one is imitated",
        ),
        Arm(
            "reward-weighted",
            "reward-weighted sampling",
            {"play.player": "sample", **_IMITATION, "play.targets": "rewards"},
            "every sample imitated with its score as weight, repeats included",
        ),
        Arm(
            "gumbel",
            "Gumbel search, played path",
            {**_PATH, "play.search.method": "gumbel"},
            "visit distributions along the moves that were played",
        ),
        Arm(
            "gumbel-tree",
            "Gumbel search, whole trees",
            {**_PATH, "play.search.method": "gumbel", "play.targets": "tree"},
            "improved policies at every state with play.tree_visits visits, on the played path or not",
        ),
        Arm(
            "gumbel-solutions",
            "Gumbel search, imitation",
            {**_PATH, "play.search.method": "gumbel", **_IMITATION},
            "the answers of won games, as sequences",
        ),
        Arm(
            "puct",
            "PUCT, played path",
            {**_PATH, "play.search.method": "puct"},
            "visits along the moves that were played",
        ),
        Arm(
            "random-play",
            "random legal play",
            {"play.player": "demonstrate", "play.targets": "path", "play.tokens": None},
            "the floor: more of what the warm start was made of; it forwards nothing",
        ),
    )
}


def arm_config(base: SelfPlayConfig, name: str, settings: Mapping[str, Any] | None = None) -> SelfPlayConfig:
    """``base`` with the settings of the arm ``name``, and then ``settings`` by dotted key.

    Raises InputError for an unknown arm or key, naming the nearest, and for values the config refuses.
    """
    if name not in ARMS:
        raise InputError(f"arm {name!r} does not exist; {_nearest(name, list(ARMS))}")
    return with_settings(base, {**ARMS[name].settings, **(settings or {})})


def with_settings(config: Record, settings: Mapping[str, Any]) -> Record:
    """A copy of a config record with values by dotted key; all take effect together, so that each record is
    checked once, as it will be. Raises InputError for a key that does not exist.
    """
    own: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    assert is_dataclass(config)
    assert not isinstance(config, type)
    known = [entry.name for entry in fields(config)]
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if head not in known:
            raise InputError(f"setting {key!r} does not exist; {_nearest(head, known)}")
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    for head, inner in deeper.items():
        record = getattr(config, head)
        own[head] = {**record, **inner} if isinstance(record, dict) else with_settings(record, inner)
    values = {name: getattr(config, name) for name in known}
    return type(config)(**{**values, **own})


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
