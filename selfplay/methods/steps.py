"""Beams of whole steps, chosen by their value: step-level beam search and diverse verifier tree search.

Live answers propose steps by sampling; once all of a group's are whole, the best live on and propose again.
Both methods are one machine: groups of beams that do not compete with each other. It keeps no tree of states
(see ``step_evaluator`` for search over steps) and scores nothing against gold answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.sampling import Row
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods.answer_ends import Grown
from tokenzero.selfplay.methods.decoder import Answer, Clock, Decoder, DecodingSession, Play, SampledGame
from tokenzero.selfplay.session import PLACES, Asked, Session
from tokenzero.selfplay.step_drafts import Draft, Ended, StepRules, StepWriter
from tokenzero.value.judge import tokens_of


@dataclass(frozen=True)
class Shape:
    """``groups`` that do not compete, of ``width`` beams each, which take steps by ``rules``."""

    groups: int
    width: int
    rules: StepRules


class Stepwise(Decoder):
    """What the two methods share. Steps are priced by the value head, else by the judge.

    Raises InputError for ``n`` below 1, and where there is neither value head nor judge.
    """

    def __init__(self, parts: Parts, name: str, n: int, shape: Shape) -> None:
        super().__init__(parts, name)
        if n < 1:
            raise InputError(f"n is {n}; give at least 1")
        if parts.value_head is None and parts.judge is None:
            raise InputError(
                f"method {name} chooses steps by their value, and this model has neither value head nor "
                "judge; use beam or best-of-n"
            )
        self._shape = shape

    def session(self, places: int = PLACES, clock: Callable[[], float] = time.monotonic) -> Session:
        """See ``Method``."""
        return StepSession(self._parts, self._shape, self.ledger, places, clock)


class StepBeam(Stepwise):
    """Step-level beam search: the ``n`` most valuable answers live on after each step.

    Every live answer proposes ``rules.proposals`` steps, the prompt n times as many, so that the beams differ
    from the first step on (Snell et al., arXiv:2408.03314, section 5.1). Ended answers hold their place among
    the n while they are good enough; those that a public verdict refuses do not. The first verified answer is
    given at once.
    """

    def __init__(self, parts: Parts, n: int, rules: StepRules | None = None) -> None:
        super().__init__(parts, "step-beam", n, Shape(1, n, rules or StepRules()))


class Dvts(Stepwise):
    """Diverse verifier tree search: ``n`` trees that do not compete, of each of which the best of its
    ``rules.proposals`` steps lives on; the best of all answers is given.

    Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models" (Hugging Face).
    """

    def __init__(self, parts: Parts, n: int, rules: StepRules | None = None) -> None:
        super().__init__(parts, "dvts", n, Shape(n, 1, rules or StepRules()))


@dataclass(eq=False)
class StepPlay(Play):
    """A game: steps being written (``drafts``), whole ones that wait for the rest of their group (``whole``),
    the ``beams`` that were chosen last, and answers that are ``over``.

    ``seen`` are the answers that have a whole step or an end, by group; ``short`` are steps that tokens did
    not suffice for, and ``cut`` says that something was left out for that reason.
    """

    drafts: list[Draft] = field(default_factory=list)
    whole: list[Draft] = field(default_factory=list)
    beams: list[Draft] = field(default_factory=list)
    over: list[Draft] = field(default_factory=list)
    short: list[Draft] = field(default_factory=list)
    seen: set[tuple[int, ...]] = field(default_factory=set)
    cut: bool = False


class StepSession(DecodingSession[StepPlay]):
    """Games that grow by steps of one ``shape``."""

    def __init__(self, parts: Parts, shape: Shape, ledger: Ledger, places: int, clock: Clock) -> None:
        super().__init__(parts, ledger, places, clock)
        self._shape = shape
        self._writer = StepWriter(parts.task, parts.pieces, shape.rules, self._ends)

    def _make(self, number: int, asked: Asked, game: SampledGame, limit: int) -> StepPlay:
        return StepPlay(number, asked, game, limit, asked.tokens)

    def _ends(self, drafts: Sequence[Draft]) -> list[Ended]:
        """How answers that have just grown stand."""
        grown = [Grown(draft.problem, draft.limit, draft.row.answer, draft.text) for draft in drafts]
        found: list[Ended] = []
        for draft, reading in zip(drafts, self._read(grown), strict=True):
            draft.text = reading.text
            score = nan if reading.verdict is None else reading.verdict
            found.append(None if reading.end is None else (reading.end, score))
        return found

    def _advance(self) -> None:
        for play in self._plays.values():
            if play.start is not None:
                self._plant(play, play.start)
        plays = list(self._plays.values())
        drafts = [draft for play in plays for draft in play.drafts]
        if not drafts:
            return
        self._writer.draw(drafts, self._allowed(torch.stack([draft.logits for draft in drafts])))
        going: list[tuple[StepPlay, Draft]] = []
        ended: list[tuple[StepPlay, Draft]] = []
        for play in plays:
            self._sort(play)
            going += [(play, draft) for draft in play.drafts]
            ended += [(play, draft) for draft in self._unpriced(play)]
        if going or ended:
            self._forward(going, ended)
        for play in plays:
            self._choose(play)

    def _plant(self, play: StepPlay, logits: torch.Tensor) -> None:
        """Begin the first steps of a game, from its prompt."""
        shape, asked, play.start = self._shape, play.asked, None
        row = Row(asked.sampling or shape.rules.sampling, asked.rng, play.game.prompt)
        for group in range(shape.groups):
            self._propose(play, row, "", play.root, logits, group, shape.width * shape.rules.proposals)

    def _propose(
        self,
        play: StepPlay,
        row: Row,
        text: str,
        state: int,
        logits: torch.Tensor,
        group: int,
        count: int,
        before: float = 0.0,
    ) -> None:
        problem = play.asked.problem
        for draft in self._writer.begin(problem, row, play.limit, text, state, logits, count):
            draft.group, draft.before = group, before
            play.drafts.append(draft)

    def _sort(self, play: StepPlay) -> None:
        """Sort out a game's drafts, which have just grown by a token: repeated answers fall away, ended ones
        go to ``over``, and of the others those stay that can be paid for. A verified answer leaves none.
        """
        self._count(play, Ledger(verifier_calls=len(play.drafts)))
        going: list[Draft] = []
        for draft in play.drafts:
            answer = (draft.group, *draft.row.answer)
            if draft.stage != "growing":
                if answer in play.seen:
                    self._let_go([draft])
                    continue
                play.seen.add(answer)
            (play.over if draft.stage == "over" else going).append(draft)
        if any(draft.score == 1.0 for draft in play.over):
            play.short += going
            going = []
        room = len(going) if play.left is None else max(0, play.left)
        play.drafts, play.short = going[:room], play.short + going[room:]
        play.cut |= len(going) > room

    def _unpriced(self, play: StepPlay) -> list[Draft]:
        """Ended answers that only the value head can rank, as far as they can be paid for."""
        if self._parts.value_head is None:
            return []
        found = [draft for draft in play.over if isnan(draft.score) and isnan(draft.value)]
        room = len(found) if play.left is None else max(0, play.left - len(play.drafts))
        play.cut |= len(found) > room
        return found[:room]

    def _forward(
        self, going: Sequence[tuple[StepPlay, Draft]], ended: Sequence[tuple[StepPlay, Draft]]
    ) -> None:
        """Forward the last tokens of drafts, those of ``ended`` answers for their value alone, and price
        whatever grows no more.
        """
        rows = [*going, *ended]
        step = self._extend(
            [draft.state for _, draft in rows], [draft.row.answer[-1] for _, draft in rows], len(ended)
        )
        for index, ((play, draft), state) in enumerate(zip(rows, step.states.tolist(), strict=True)):
            self._let_go([draft])
            draft.state, draft.logits, draft.moved = state, step.logits[index], True
            play.pay(1)
            if index < len(going):
                play.game.ledger.decode_tokens += 1
            else:
                play.game.ledger.value_tokens += 1
        self._value(rows, step)

    def _value(self, rows: Sequence[tuple[StepPlay, Draft]], step: Step) -> None:
        if self._parts.value_head is None:
            return
        done = [index for index, (_, draft) in enumerate(rows) if draft.stage != "growing"]
        if done:
            pick = torch.tensor(done, device=step.hidden.device)
            values = self._parts.value_head.evaluate(step.hidden[pick]).tolist()
            for index, value in zip(done, values, strict=True):
                rows[index][1].value = value

    def _judge(self, play: StepPlay) -> None:
        """Ask the judge about what nothing has priced yet, where there is no value head."""
        judge = self._parts.judge
        asked = [draft for draft in (*play.drafts, *play.over) if draft.stage != "growing"]
        asked = [draft for draft in asked if isnan(draft.value) and isnan(draft.score)]
        if judge is None or self._parts.value_head is not None or not asked:
            return
        before = tokens_of(judge)
        verdicts = judge.judge([play.asked.problem.prompt] * len(asked), [draft.text for draft in asked])
        self._count(play, Ledger(judge_calls=len(asked), judge_tokens=tokens_of(judge) - before))
        for draft, verdict in zip(asked, verdicts.tolist(), strict=True):
            draft.value = float(verdict)

    def _choose(self, play: StepPlay) -> None:
        """Let the best of each group whose steps are all whole live on, or end the game."""
        self._judge(play)
        self._let_go(play.over)
        play.whole += [draft for draft in play.drafts if draft.stage == "whole"]
        play.drafts = [draft for draft in play.drafts if draft.stage == "growing"]
        if not any(draft.score == 1.0 for draft in play.over):
            writing = {draft.group for draft in play.drafts}
            for group in sorted({draft.group for draft in play.whole}):
                if group not in writing:
                    self._select(play, group)
        if not play.drafts:
            self._give(play, spent=play.cut)

    def _select(self, play: StepPlay, group: int) -> None:
        """Of a group's whole steps and ended answers the best stay; those that can go on propose anew."""
        whole = [draft for draft in play.whole if draft.group == group]
        over = [draft for draft in play.over if draft.group == group and draft.score != 0.0]
        best = sorted([*whole, *over], key=rank, reverse=True)[: self._shape.width]
        beams = [draft for draft in best if draft.stage == "whole"]
        self._let_go([draft for draft in play.beams if draft.group == group])
        self._let_go([draft for draft in whole if draft not in beams])
        play.whole = [draft for draft in play.whole if draft.group != group]
        play.beams = [draft for draft in play.beams if draft.group != group] + beams
        for beam in beams:
            beam.logits = beam.logits.clone()  # the logits of a whole forward would stay with it
            self._propose(
                play,
                beam.row,
                beam.text,
                beam.state,
                beam.logits,
                group,
                self._shape.rules.proposals,
                beam.before + beam.log_probability,
            )

    def _stop(self, play: StepPlay) -> None:
        self._give(play, spent=True)

    def _give(self, play: StepPlay, *, spent: bool) -> None:
        """End a game with the best answer it has: an ended one that is not refused, else the best of its last
        whole steps, else the longest of what was begun.
        """
        game = play.game
        good = [draft for draft in play.over if draft.score != 0.0]
        best = max(good or play.whole or play.beams, key=rank, default=None)
        if best is None:
            begun = [draft for draft in (*play.drafts, *play.short, *play.over) if draft.row.answer]
            best = max(begun, key=lambda draft: len(draft.row.answer), default=None)
        game.answers = [self._answer(draft) for draft in play.over]
        solved = best is not None and best.score == 1.0
        seen = [len(answer) - 1 for answer in play.seen]
        self._finish(play, None if best is None else self._answer(best), cut=spent and not solved)
        game.depth = max(game.depth, len(game.tokens), *seen, 0)

    def _answer(self, draft: Draft) -> Answer:
        score = None if isnan(draft.score) else draft.score
        if score is None and self._parts.task.public_verifier:
            score = 0.0
        total = draft.before + draft.log_probability
        value = None if isnan(draft.value) else draft.value
        return Answer(list(draft.row.answer), draft.text.strip(), total, score, draft.end, value)

    def _held(self, play: StepPlay) -> list[int]:
        drafts = [*play.drafts, *play.short, *play.over, *play.whole, *play.beams]
        return [draft.state for draft in drafts if draft.moved]

    def _count(self, play: StepPlay, spent: Ledger) -> None:
        self.spent.add(spent)
        play.game.ledger.add(spent)

    def _let_go(self, drafts: Iterable[Draft]) -> None:
        """Give back the states that drafts have made for themselves."""
        for draft in drafts:
            if draft.moved:
                self._unheld.append(draft.state)
                draft.moved = False


def rank(draft: Draft) -> tuple[bool, float, float]:
    """Verified answers before others, then by value, then by log-probability; for sorting."""
    value = -2.0 if isnan(draft.value) else draft.value
    return draft.score == 1.0, value, draft.before + draft.log_probability
