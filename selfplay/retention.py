"""Which checkpoints and games of a run are kept: a pure function of its records and of what the config asks.

It deletes nothing: see ``run_directory``. Metrics are never among what may go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenzero.mcts.errors import InputError

SHARDS = ("window", "all")


@dataclass(frozen=True)
class RetentionConfig:
    """What stays on disk.

    ``best`` checkpoints by their score on what is held out (see :class:`Reach`), the ``last`` ones, ``every``
    so many rounds one (0: none), and always the warm start (round 0) and whatever any of the last ones needs
    to play on from there. ``shards`` "window" keeps the games that these still learn from, "all" every game.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    best: int = 1
    last: int = 3
    every: int = 0
    shards: str = "window"

    def __post_init__(self) -> None:
        if self.best < 0 or self.every < 0:
            raise InputError(f"keep.best is {self.best} and every is {self.every}; give 0 or more of each")
        if self.last < 1:
            raise InputError(f"keep.last is {self.last}; give at least 1, which resuming needs")
        if self.shards not in SHARDS:
            raise InputError(f"keep.shards is {self.shards!r}; use window or all")


@dataclass(frozen=True)
class Reach:
    """What a kind of run looks back to, in rounds: the replay ``window`` (0: it keeps no games), the oldest
    checkpoint teacher's ``lag`` (0: no such teacher), and every ``rungs``-th round, which later ones meet (0:
    none). ``score`` names the field of a record by which a checkpoint is good; ``low`` says that less is
    better.
    """

    window: int
    lag: int = 0
    rungs: int = 0
    score: str = "greedy_accuracy"
    low: bool = False


def kept_checkpoints(
    records: Sequence[Mapping[str, Any]], config: RetentionConfig, reach: Reach
) -> frozenset[int]:
    """Rounds whose checkpoints stay once ``records`` (of rounds 0, 1, ...) are all there is."""
    done = len(records)
    kept = set(milestones(done, config))
    if reach.rungs:
        kept.update(range(0, done, reach.rungs))
    sign = 1 if reach.low else -1
    scored = [r for r in range(done) if records[r][reach.score] is not None]
    kept.update(sorted(scored, key=lambda r: (sign * records[r][reach.score], r))[: config.best])
    for end in _ends(done, config):
        kept.update((end, int(records[end]["incumbent"]), int(records[end]["learner"]["from"])))
        if reach.lag:
            kept.update(int(records[r]["incumbent"]) for r in range(max(0, end - reach.lag), end))
    return frozenset(kept)


def milestones(done: int, config: RetentionConfig) -> list[int]:
    """The rounds that are never deleted: the warm start, and those that ``every`` keeps."""
    return list(range(0, done, config.every)) if config.every else [0]


def kept_shards(done: int, config: RetentionConfig, reach: Reach) -> frozenset[int]:
    """Rounds whose games stay once ``done`` rounds are finished, the warm start included."""
    first = 1 if config.shards == "all" else window_start(min(_ends(done, config)) + 1, reach.window)
    return frozenset(range(first, done))


def window_start(round_index: int, window: int) -> int:
    """The oldest round whose games round ``round_index`` learns from."""
    return max(1, round_index - window + 1)


def _ends(done: int, config: RetentionConfig) -> range:
    """The rounds after which the run can be gone on with."""
    return range(max(0, done - config.last), done)
