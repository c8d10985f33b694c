"""Independent samples, and which of them is the answer: one sample, best-of-N, self-consistency.

One session serves them all: each of its steps draws one token for every sample in flight. A public verdict
may end a sample early. It does not score against gold answers: see ``evaluation``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.sampling import Row, Sampling, choose
from tokenzero.selfplay.methods.answer_ends import Grown, Reading, certain
from tokenzero.selfplay.methods.choosing import Choose, chooser, voting
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

ROWS = 1024
"""Samples in flight above which a game begins no second one."""


@dataclass(frozen=True)
class Draws:
    """``n`` samples of each problem: ``together`` or one after another, with the ``value`` of each finished
    one or without, until all are drawn or (``until_verified``) one is verified.
    """

    n: int
    sampling: Sampling
    choose: Choose
    together: bool = True
    value: bool = False
    until_verified: bool = False


class BestOfN(Decoder):
    """The best of N independent samples; the prompt is forwarded once, every duplicate is paid for.

    ``choose``: the public "verifier" (samples are drawn one after another, and the first verified one is the
    last; else the likeliest is given), the "value" of the finished answer (its last token is forwarded too,
    and paid as a value token), the "judge" (the likeliest of those it finds equal), the "likelihood", or the
    "first" of all. None is the verifier where the task has a public one, else the likelihood.

    A budget of tokens is spent on samples in order: one begins while anything is left, and the last may be
    cut. Raises InputError for ``n`` below 1, and for a chooser that the parts lack.
    """

    def __init__(
        self,
        parts: Parts,
        n: int,
        sampling: Sampling | None = None,
        *,
        choose: str | None = None,
        name: str = "best-of-n",
    ) -> None:
        super().__init__(parts, name)
        if choose is None:
            choose = "verifier" if parts.task.public_verifier else "likelihood"
        verified = choose == "verifier"
        self._draws = Draws(
            _checked(n),
            _known(sampling, parts),
            chooser(parts, choose),
            together=not verified,
            value=choose == "value",
            until_verified=verified,
        )

    def session(self, places: int = PLACES, clock: Clock = time.monotonic) -> Session:
        """See ``Method.session``."""
        return SampleSession(self._parts, self.ledger, places, clock, self._draws)


class SelfConsistency(Decoder):
    """The final answer given most often among N samples (Wang et al., ICLR 2023), or the one with the most
    ``vote``: "count", "likelihood" or "value" (see ``choosing.voting``).

    It asks no verifier which answer to give, so all N samples are drawn. Raises InputError for ``n`` below 1,
    and for a vote that the parts lack.
    """

    def __init__(
        self, parts: Parts, n: int, sampling: Sampling | None = None, *, vote: str | None = None
    ) -> None:
        super().__init__(parts, "self-consistency")
        self._draws = Draws(
            _checked(n),
            _known(sampling, parts),
            voting(parts, "count" if vote is None else vote),
            value=vote == "value",
        )

    def session(self, places: int = PLACES, clock: Clock = time.monotonic) -> Session:
        """See ``Method.session``."""
        return SampleSession(self._parts, self.ledger, places, clock, self._draws)


def _checked(n: int) -> int:
    if n < 1:
        raise InputError(f"n is {n}; give at least 1 sample")
    return n


def _known(sampling: Sampling | None, parts: Parts) -> Sampling:
    """``sampling``, or the policy as it is. Raises InputError for tokens outside the vocabulary."""
    sampling = sampling or Sampling()
    sampling.check_vocabulary(parts.student.vocab_size)
    return sampling


@dataclass(eq=False)
class Samples(Play):
    """A game whose samples are being drawn: ``begun`` of them so far, ``flying`` now; ``found`` by their
    number.
    """

    begun: int = 0
    flying: list[Sample] = field(default_factory=list)
    found: dict[int, Answer] = field(default_factory=dict)
    cut: bool = False


@dataclass(eq=False, slots=True)
class Sample:
    """A sample in flight, by its ``number`` in its game. ``states`` are those of its tokens."""

    play: Samples
    number: int
    row: Row
    text: str = ""
    log_probability: float = 0.0
    states: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # of the text after each token


class SampleSession(DecodingSession[Samples]):
    """Samples in flight, whatever game they belong to: one token for each of them at every step."""

    def __init__(self, parts: Parts, ledger: Ledger, places: int, clock: Clock, draws: Draws) -> None:
        super().__init__(parts, ledger, places, clock)
        self._draws = draws
        self._flying: list[Sample] = []
        self._logits: torch.Tensor | None = None  # f32 [samples in flight, V]

    def _make(self, number: int, asked: Asked, game: SampledGame, limit: int) -> Samples:
        return Samples(number, asked, game, limit, asked.tokens)

    @torch.inference_mode()
    def _advance(self) -> None:
        self._keep()
        self._begin_samples()
        if not self._flying or self._logits is None:
            return
        allowed = self._allowed(self._logits)
        tokens = choose(allowed, [sample.row for sample in self._flying])
        picked = torch.from_numpy(tokens).to(allowed.device)[:, None]
        shares = allowed.log_softmax(-1).gather(1, picked)[:, 0].tolist()
        for sample, token, share in zip(self._flying, tokens.tolist(), shares, strict=True):
            before = sample.row.answer
            sample.text = self._parts.pieces.append(sample.text, before, token)
            before.append(token)
            sample.log_probability += share
        self._forward(self._read_ends())
        for play in list(self._plays.values()):
            self._conclude(play)

    # ---- samples begin

    def _keep(self) -> None:
        """Forget the samples of games that are gone."""
        going = [sample.play.number in self._plays for sample in self._flying]
        if self._logits is not None and not all(going):
            self._flying = list(compress(self._flying, going))
            self._logits = self._logits[torch.tensor(going, device=self._logits.device)]

    def _begin_samples(self) -> None:
        """Begin the samples there is room and budget for, older games first."""
        new = []
        for play in self._plays.values():
            if play.start is None:  # all have begun
                continue
            while self._may_begin(play, len(self._flying)):
                new.append(play.start)
                sampling = play.asked.sampling or self._draws.sampling
                row = Row(sampling, play.asked.rng.spawn(1)[0], play.game.prompt)
                sample = Sample(play, play.begun, row)
                play.begun += 1
                play.flying.append(sample)
                self._flying.append(sample)
            if play.begun == self._draws.n:
                play.start = None
        logits = [row[None] for row in new if row is not None]
        if logits:
            first = [] if self._logits is None else [self._logits]
            self._logits = torch.cat([*first, *logits])

    def _may_begin(self, play: Samples, in_flight: int) -> bool:
        """Whether a game's next sample begins now. Samples that fly together could all be paid for if each
        were as long as can be, so the budget ends the same samples as it would one after another.
        """
        draws = self._draws
        if play.begun == draws.n or play.cut or (play.flying and not draws.together):
            return False
        if play.begun == 0:
            return True
        longest = play.limit - 1 + draws.value
        if not play.flying:
            return play.left is None or play.left >= min(longest, 1 + draws.value)
        if in_flight >= ROWS:
            return False
        promised = sum(longest - len(sample.row.answer) for sample in play.flying)
        return play.left is None or play.left - promised >= longest

    # ---- samples go on and end

    def _read_ends(self) -> list[Reading]:
        """How every sample in flight stands; what is certain of an only one is told."""
        grown = [
            Grown(sample.play.asked.problem, sample.play.limit, sample.row.answer, sample.text)
            for sample in self._flying
        ]
        readings = self._read(grown)
        for sample, reading in zip(self._flying, readings, strict=True):
            play = sample.play
            play.game.ledger.verifier_calls += 1
            if self._draws.n == 1 and play.asked.on_tokens is not None and reading.end is None:
                play.tell(_certain(sample))
        self.spent.verifier_calls += len(readings)
        return readings

    def _forward(self, readings: Sequence[Reading]) -> None:
        """Forward what goes on, and what ended and is to be valued; settle what ended."""
        going: list[Sample] = []
        ended: list[tuple[Sample, Reading]] = []
        valued: list[tuple[Sample, Reading]] = []
        reserve = int(self._draws.value)
        for sample, reading in zip(self._flying, readings, strict=True):
            play = sample.play
            if reading.end is None:
                if play.left is None or play.left >= 1 + reserve:
                    play.pay(1)
                    play.game.ledger.decode_tokens += 1
                    going.append(sample)
                else:
                    play.cut = True
                    ended.append((sample, reading._replace(end="budget")))
            elif self._draws.value and (play.left is None or play.left >= 1):
                play.pay(1)
                play.game.ledger.value_tokens += 1
                valued.append((sample, reading))
            else:
                ended.append((sample, reading))
        self._flying, self._logits = going, None
        rows = [*going, *(sample for sample, _ in valued)]
        values: list[float] = []
        if rows:
            step = self._extend(
                [sample.states[-1] if sample.states else sample.play.root for sample in rows],
                [sample.row.answer[-1] for sample in rows],
                len(valued),
            )
            for sample, state in zip(rows, step.states.tolist(), strict=True):
                sample.states.append(state)
            self._logits = step.logits[: len(going)]
            if valued and self._parts.value_head is not None:
                values = self._parts.value_head.evaluate(step.hidden[len(going) :]).tolist()
        for (sample, reading), value in zip(valued, values, strict=True):
            self._settle(sample, reading, value)
        for sample, reading in ended:
            self._settle(sample, reading, None)

    def _settle(self, sample: Sample, reading: Reading, value: float | None) -> None:
        """A sample becomes an answer; its states are given up."""
        play = sample.play
        play.found[sample.number] = self._answer(sample, reading, value)
        play.flying.remove(sample)
        self._unheld += reversed(sample.states)

    def _answer(self, sample: Sample, reading: Reading, value: float | None) -> Answer:
        unfinished = 0.0 if self._parts.task.public_verifier else None
        return Answer(
            sample.row.answer,
            reading.text.strip(),
            sample.log_probability,
            unfinished if reading.end == "budget" else reading.verdict,
            reading.end or "budget",
            value,
        )

    # ---- games end

    def _conclude(self, play: Samples) -> None:
        """Hand a game out if nothing more is to be drawn for it."""
        if play.flying:
            return
        solved = self._draws.until_verified and any(found.verdict == 1.0 for found in play.found.values())
        if solved or play.begun == self._draws.n:
            self._give(play, cut=play.cut)
        elif not self._may_begin(play, 0):
            self._give(play, cut=True)

    def _stop(self, play: Samples) -> None:
        for sample in play.flying:
            if sample.row.answer:
                reading = Reading(sample.text, "budget", None)
                play.found[sample.number] = self._answer(sample, reading, None)
        self._give(play, cut=True)

    def _give(self, play: Samples, *, cut: bool) -> None:
        """The best finished answer, else the longest there is."""
        game = play.game
        game.answers = [play.found[number] for number in sorted(play.found)]
        finished = [found for found in game.answers if found.end != "budget"]
        answer = None
        if finished:
            asking = Ledger()
            answer = self._draws.choose(play.asked.problem, finished, asking)
            game.ledger.add(asking)
            self.spent.add(asking)
        elif game.answers:
            answer = max(game.answers, key=lambda found: len(found.tokens))
        self._finish(play, answer, cut=cut)

    def _held(self, play: Samples) -> list[int]:
        held = [state for sample in play.flying for state in reversed(sample.states)]
        play.flying = []
        return held


def _certain(sample: Sample) -> list[int]:
    """The tokens of a sample in flight whose text no stop string can take back."""
    tokens, stop = sample.row.answer, sample.play.asked.problem.stop
    if not stop:
        return tokens
    sample.lengths.append(len(sample.text))
    sure = certain(sample.text, stop)
    return tokens[: sum(length <= sure for length in sample.lengths)]
