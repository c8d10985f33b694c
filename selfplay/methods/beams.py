"""Beam search, plain and diverse, as a method of answering.

Which beams grow is said in ``beam_growth``; here they are forwarded, those of all games in one call.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch

from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.methods.answer_ends import Grown, Reading
from tokenzero.selfplay.methods.beam_growth import DIVERSITY, Beam, Beams, BeamShape
from tokenzero.selfplay.methods.decoder import (
    Answer,
    Clock,
    Decoder,
    DecodingSession,
    Play,
    SampledGame,
)
from tokenzero.selfplay.parts import Parts
from tokenzero.selfplay.session import PLACES, Asked, Session


class BeamSearch(Decoder):
    """The answer with the best score among ``width`` beams: its log-probability / length **
    ``length_penalty``, where 1 is the mean per token.

    With ``groups`` above 1 it is diverse beam search (Vijayakumar et al., arXiv:1610.02424, Hamming
    diversity): ``diversity`` changes which tokens a group takes, and no answer's score; None is 0.5. A
    public verdict ends the search at a verified answer and drops beams that can no longer become legal. A
    budget of tokens that has no room for all beams goes on with the likeliest.

    Raises InputError for ``width`` below 1, and for options out of their ranges.
    """

    def __init__(
        self,
        parts: Parts,
        width: int,
        *,
        length_penalty: float = 1.0,
        groups: int = 1,
        diversity: float | None = None,
    ) -> None:
        super().__init__(parts, "beam")
        if diversity is None:
            diversity = DIVERSITY if groups > 1 else 0.0
        self._shape = BeamShape(width, length_penalty, groups, diversity)

    def session(self, places: int = PLACES, clock: Clock = time.monotonic) -> Session:
        """See ``Method.session``."""
        return BeamSession(self._parts, self.ledger, places, clock, self._shape)


@dataclass(eq=False)
class BeamPlay(Play):
    """A game whose beams grow. ``first`` of the session's rows is that of its first live beam; ``grown`` are
    the states its beams grew from last. ``above`` is the state above each state it holds, ``below`` how many
    are below it.
    """

    beams: Beams | None = None
    first: int = 0
    grown: list[int] = field(default_factory=list)
    cut: bool = False
    above: dict[int, int] = field(default_factory=dict)
    below: dict[int, int] = field(default_factory=dict)

    @property
    def live(self) -> list[Beam]:
        """Its beams that grow."""
        return [] if self.beams is None else self.beams.live

    def hold(self, state: int, parent: int) -> None:
        """Remember a new state under ``parent``."""
        self.above[state] = parent
        self.below[state] = 0
        if parent in self.below:
            self.below[parent] += 1

    def give_up(self, states: Iterable[int]) -> list[int]:
        """Forget those of ``states`` under which nothing grows, and what is above them alone; the lowest
        come first.
        """
        gone: list[int] = []
        for state in states:
            while self.below.get(state) == 0:
                gone.append(state)
                del self.below[state]
                state = self.above.pop(state)
                if state in self.below:
                    self.below[state] -= 1
        return gone


class BeamSession(DecodingSession[BeamPlay]):
    """The beams of all games in play, one token longer at every step."""

    def __init__(self, parts: Parts, ledger: Ledger, places: int, clock: Clock, shape: BeamShape) -> None:
        super().__init__(parts, ledger, places, clock)
        self._shape = shape
        self._rows: list[tuple[BeamPlay, Beam]] = []
        self._logits: torch.Tensor | None = None  # f32 [rows, V]

    def _make(self, number: int, asked: Asked, game: SampledGame, limit: int) -> BeamPlay:
        return BeamPlay(number, asked, game, limit, asked.tokens)

    @torch.inference_mode()
    def _advance(self) -> None:
        blocks = self._blocks()
        self._rows, self._logits = [], None
        for play, log_probabilities in blocks:
            self._grow(play, log_probabilities)
        if not self._rows:
            return
        parents = [beam.state for _, beam in self._rows]
        step = self._extend(parents, [beam.tokens[-1] for _, beam in self._rows])
        self._logits = step.logits
        for (play, beam), state in zip(self._rows, step.states.tolist(), strict=True):
            play.hold(state, beam.state)
            beam.state = state
        for play, _ in blocks:
            if play.number in self._plays:
                self._unheld += play.give_up(play.grown)

    def _blocks(self) -> list[tuple[BeamPlay, torch.Tensor]]:
        """The games in play, each with the log-probabilities f32 [B, V] after its live beams."""
        new = [play for play in self._plays.values() if play.beams is None]
        blocks: list[tuple[BeamPlay, torch.Tensor]] = []
        if self._logits is not None:
            shares = self._allowed(self._logits).log_softmax(-1)
            old = (play for play in self._plays.values() if play.beams is not None)
            blocks += [(play, shares[play.first : play.first + len(play.live)]) for play in old]
        if new:
            starts = torch.stack([play.start for play in new if play.start is not None])
            shares = self._allowed(starts).log_softmax(-1)
            for play, row in zip(new, shares, strict=True):
                play.beams, play.start = Beams(self._shape, play.root, partial(self._look, play)), None
                blocks.append((play, row.expand(self._shape.groups, -1)))
        return blocks

    def _look(self, play: BeamPlay, beam: Beam) -> Reading:
        """How a beam stands with its new last token."""
        *before, token = beam.tokens
        text = self._parts.pieces.append(beam.reading.text, before, token)
        play.game.ledger.verifier_calls += 1
        self.spent.verifier_calls += 1
        return self._read([Grown(play.asked.problem, play.limit, beam.tokens, text)])[0]

    def _grow(self, play: BeamPlay, log_probabilities: torch.Tensor) -> None:
        """Let the beams of a game grow as far as its budget goes; what is to be forwarded joins the rows."""
        beams = play.beams
        if beams is None:
            return
        play.grown = [beam.state for beam in play.live]
        growing = beams.grow(log_probabilities)
        if play.left is not None and len(growing) > play.left:
            play.cut = True
            if play.left == 0:
                growing = []
            else:
                beams.keep(play.left)
                growing = play.live
        if not growing:
            self._give(play)
            return
        play.pay(len(growing))
        play.game.ledger.decode_tokens += len(growing)
        play.first = len(self._rows)
        self._rows += [(play, beam) for beam in growing]

    def _give(self, play: BeamPlay) -> None:
        found = [] if play.beams is None else play.beams.answers()
        play.game.answers = [self._answer(beam) for beam in found]
        self._finish(play, play.game.answers[0] if found else None, cut=play.cut)

    def _answer(self, beam: Beam) -> Answer:
        text, end, verdict = beam.reading
        if end is None and self._parts.task.public_verifier:
            verdict = 0.0
        return Answer(beam.tokens, text.strip(), beam.log_probability, verdict, end or "budget")

    def _stop(self, play: BeamPlay) -> None:
        play.cut = True
        self._give(play)

    def _held(self, play: BeamPlay) -> list[int]:
        held = list(reversed(play.below))
        play.above.clear()
        play.below.clear()
        return held
