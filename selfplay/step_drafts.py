"""Steps while they are written: a few tokens up to a delimiter, drawn one at a time from the student.

Many drafts, of any number of games, grow together; whoever owns them forwards what was drawn, all in one
call. This file does not forward, does not choose among steps and keeps no states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Literal

import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.sampling import Row, Sampling, choose
from tokenzero.selfplay.game import End
from tokenzero.tasks import PublicProblem, Task

STEP_TOKENS = 64
"""Longest step where nobody says otherwise; a guess that most lines of worked answers stay below."""

PROPOSALS = 4
"""Steps drawn at a state where nobody says otherwise."""

Stage = Literal["growing", "whole", "over"]


@dataclass(frozen=True)
class StepRules:
    """What a step is, and how many are drawn at a state.

    A step ends with the token that brings another ``delimiter`` into the answer (None: where the task counts
    another finished step), and after ``tokens`` tokens at most. Raises InputError for an empty delimiter and
    numbers below 1.
    """

    delimiter: str | None = None
    tokens: int = STEP_TOKENS
    proposals: int = PROPOSALS
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.delimiter == "":
            raise InputError("delimiter is empty; give the text that ends a step, for example a newline")
        for name in ("tokens", "proposals"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of a step: {getattr(self, name)}; give at least 1")

    def finished(self, task: Task, answer: str) -> int:
        """Steps that a partial answer has finished, however long they were."""
        return task.steps(answer) if self.delimiter is None else answer.count(self.delimiter)


@dataclass(eq=False, slots=True)
class Draft:
    """A step that is being written.

    ``row`` says how its tokens are drawn and holds the whole answer, of which the first ``head`` tokens stood
    there before; ``text`` is that of all. ``state`` is the engine state that the last token is to be
    forwarded from and ``logits`` f32 [V] what follows it; the owner moves both on, and ``moved`` says that
    they are no more those of the head. ``log_probability`` is the step's own under the unfiltered student,
    ``before`` that of the head. ``stage``: "growing", "whole" (the step has ended, the answer goes on) or
    "over" (the answer has ended, by ``end`` and with ``score``, NaN where nobody can tell). ``limit`` is the
    longest answer, ``finished`` counts the steps of the head; ``group`` and ``value`` in [-1, 1] are the
    owner's.
    """

    problem: PublicProblem
    row: Row
    limit: int
    head: int
    text: str
    state: int
    logits: torch.Tensor
    finished: int
    group: int = 0
    before: float = 0.0
    log_probability: float = 0.0
    moved: bool = False
    stage: Stage = "growing"
    end: End = "ended"
    score: float = nan
    value: float = nan

    @property
    def tokens(self) -> list[int]:
        """The step's own."""
        return self.row.answer[self.head :]


Ended = tuple[End, float] | None
"""How an answer ended and its score, NaN where nobody can tell; None: it goes on."""

ReadEnds = Callable[[Sequence[Draft]], Sequence[Ended]]
"""What is to be said of drafts that have just grown by a token. It may cut their texts."""


class StepWriter:
    """Draws the tokens of drafts by ``rules``; ``read`` says which answers end."""

    def __init__(self, task: Task, pieces: Pieces, rules: StepRules, read: ReadEnds) -> None:
        self.rules = rules
        self._task = task
        self._pieces = pieces
        self._read = read

    def begin(
        self,
        problem: PublicProblem,
        row: Row,
        limit: int,
        text: str,
        state: int,
        logits: torch.Tensor,
        count: int,
        group: int = 0,
    ) -> list[Draft]:
        """``count`` empty steps after the answer of ``row``, which reads ``text``, may have ``limit`` tokens
        and ends in the engine's ``state`` with ``logits`` f32 [V].
        """
        finished = self.rules.finished(self._task, text)
        rows = [replace(row, answer=list(row.answer)) for _ in range(count)]
        return [
            Draft(problem, own, limit, len(row.answer), text, state, logits, finished, group) for own in rows
        ]

    @torch.inference_mode()
    def draw(self, drafts: Sequence[Draft], logits: torch.Tensor) -> None:
        """Add a token to each of L drafts, at least one; ``logits`` f32 [L, V] are theirs, with minus
        infinity for what is never drawn.

        A token depends on its draft, the draft's generator and the drafts before it of the same generator
        only.
        """
        chosen = choose(logits, [draft.row for draft in drafts])
        picked = torch.from_numpy(chosen).to(logits.device)[:, None]
        shares = logits.log_softmax(-1).gather(1, picked)[:, 0].tolist()
        for draft, token, share in zip(drafts, chosen.tolist(), shares, strict=True):
            draft.text = self._pieces.append(draft.text, draft.row.answer, token)
            draft.row.answer.append(token)
            draft.log_probability += share
        for draft, ended in zip(drafts, self._read(drafts), strict=True):
            if ended is not None:
                draft.stage, (draft.end, draft.score) = "over", ended
            elif len(draft.row.answer) - draft.head >= self.rules.tokens or self._closed(draft):
                draft.stage = "whole"

    def _closed(self, draft: Draft) -> bool:
        return self.rules.finished(self._task, draft.text) > draft.finished
