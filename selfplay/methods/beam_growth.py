"""Beam search from one prompt, a token at a time: which continuations of the live beams grow, and which are
answers.

Beams may be split into groups that grow one after another, each put off the tokens that earlier groups took
(diverse beam search). The caller forwards; nothing here knows engines, texts or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.methods.answer_ends import Reading

Read = Callable[["Beam"], Reading]
"""A beam with its new last token -> how it stands; the beam's own reading is still its parent's."""

DIVERSITY = 0.5
"""Penalty of diverse groups where nobody says otherwise; the paper finds that 0.2 to 0.8 suits most tasks."""


@dataclass(frozen=True)
class BeamShape:
    """``width`` beams in ``groups`` of equal size; an answer's score is its log-probability in nats / its
    tokens ** ``length_penalty``; ``diversity`` is taken off a token's log-probability for each time that an
    earlier group took it in the same step.

    Raises InputError for a number out of its range, and for a width that the groups do not divide.
    """

    width: int
    length_penalty: float = 1.0
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"n is {self.width}; give at least 1 beam")
        if not math.isfinite(self.length_penalty):
            raise InputError(f"length_penalty is {self.length_penalty}; give a number, where 1 is the mean")
        if self.groups < 1 or self.width % self.groups:
            raise InputError(f"groups is {self.groups}; give a divisor of n, which is {self.width}")
        if not 0 <= self.diversity < math.inf:
            raise InputError(f"diversity is {self.diversity}; give 0 (off) or more")
        if self.diversity and self.groups == 1:
            raise InputError(f"diversity is {self.diversity} and there is one group; give 2 groups or more")


@dataclass(eq=False, slots=True)
class Beam:
    """A continuation: its tokens, the sum of their ``log_probability`` in nats, and how it stands. ``state``
    is its own once it was forwarded, and its parent's before.
    """

    tokens: list[int]
    log_probability: float
    reading: Reading
    state: int = -1

    @property
    def rank(self) -> int:
        """2 for a verified answer, 0 for one that is refused or can never be legal, 1 for the others."""
        end, verdict = self.reading.end, self.reading.verdict
        if end in (None, "length") or verdict is None:
            return 1
        return 2 if verdict == 1.0 else 0


@dataclass
class Group:
    """Live beams, likeliest first, and those that have ended."""

    live: list[Beam]
    ended: list[Beam] = field(default_factory=list)


class Beams:
    """The beams of one game. ``grow`` -> the caller forwards the last token of each beam it gives, and writes
    the new ``state`` -> ``grow``, until it gives none.

    Each step keeps the likeliest beams of a group that ``read`` lets grow, out of the likeliest 2 * its size
    continuations. A group is over when it has as many answers as beams or nothing left to grow, all are when
    one answer is verified.
    """

    def __init__(self, shape: BeamShape, root: int, read: Read) -> None:
        self.shape = shape
        self._read = read
        empty = Reading("", None, None)
        # All groups begin at the prompt, which is forwarded once.
        self.groups = [Group([Beam([], 0.0, empty, root)]) for _ in range(shape.groups)]

    @property
    def live(self) -> list[Beam]:
        """The beams that grow, group by group: the rows of ``grow``."""
        return [beam for group in self.groups for beam in group.live]

    def grow(self, shares: torch.Tensor) -> list[Beam]:
        """Take a step with the log-probabilities f32 [B, V] after the live beams; the beams to forward."""
        size = self.shape.width // self.shape.groups
        taken = torch.zeros(shares.shape[1], device=shares.device)
        first = 0
        for group in self.groups:
            block = shares[first : first + len(group.live)]
            first += len(group.live)
            if group.live:
                for token in self._grow(group, block, taken, size):
                    taken[token] += 1.0
        if any(beam.rank == 2 for group in self.groups for beam in group.ended):
            for group in self.groups:
                group.live = []
        return self.live

    def _grow(self, group: Group, shares: torch.Tensor, taken: torch.Tensor, size: int) -> list[int]:
        """Grow a group; the tokens that it took, refused ones left out."""
        parents = group.live
        above = torch.tensor([beam.log_probability for beam in parents], device=shares.device)
        totals = shares + above[:, None]
        scores = totals - self.shape.diversity * taken if self.shape.diversity else totals
        best, places = scores.flatten().topk(min(2 * size, scores.numel()))
        own = totals.flatten()[places].tolist()
        growing: list[Beam] = []
        tokens: list[int] = []
        for score, total, place in zip(best.tolist(), own, places.tolist(), strict=True):
            if score == -math.inf or len(growing) == size:
                break
            parent, token = divmod(place, shares.shape[1])
            old = parents[parent]
            beam = Beam([*old.tokens, token], total, old.reading, old.state)
            beam.reading = self._read(beam)
            if beam.rank > 0:
                tokens.append(token)
            (growing if beam.reading.end is None else group.ended).append(beam)
        over = sum(beam.rank > 0 for beam in group.ended) >= size
        group.live = [] if over else growing
        return tokens

    def keep(self, count: int) -> None:
        """Go on with the ``count`` likeliest live beams alone."""
        best = sorted(self.live, key=lambda beam: beam.log_probability, reverse=True)[:count]
        for group in self.groups:
            group.live = [beam for beam in group.live if beam in best]

    def answers(self) -> list[Beam]:
        """Ended beams, best first, refused ones left out; where there are none live ones, likeliest first;
        else the best of the refused.
        """
        ended = sorted((b for group in self.groups for b in group.ended), key=self._score, reverse=True)
        live = sorted(self.live, key=lambda beam: beam.log_probability, reverse=True)
        return [beam for beam in ended if beam.rank > 0] or [b for b in live if b.tokens] or ended[:1]

    def _score(self, beam: Beam) -> tuple[int, float]:
        return beam.rank, beam.log_probability / len(beam.tokens) ** self.shape.length_penalty
