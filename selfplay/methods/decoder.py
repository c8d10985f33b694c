"""What the methods without a tree share: games that wait, that are in play and that are over, their prompts,
budgets and costs.

How answers grow is each method's own: see ``samples`` and ``beams``. Nothing is scored against gold answers.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Step
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.evaluator import banned_tokens
from tokenzero.selfplay.game import End, Game
from tokenzero.selfplay.methods.answer_ends import AnswerReader
from tokenzero.selfplay.outcomes import before_stop, longest_answer
from tokenzero.selfplay.parts import Parts
from tokenzero.selfplay.prompt_tokens import prompt_tokens
from tokenzero.selfplay.session import Asked, Method

Clock = Callable[[], float]


@dataclass
class Answer:
    """One of several answers: ``log_probability`` under the unfiltered policy in nats; ``verdict`` and
    ``end`` as in ``Game``; ``value`` in [-1, 1] by the value head, None where nobody asked or could pay.
    """

    tokens: list[int]
    text: str
    log_probability: float
    verdict: float | None
    end: End = "ended"
    value: float | None = None


@dataclass
class SampledGame(Game):
    """A game with every answer that was drawn, in order; ``value`` is the given answer's log-probability."""

    answers: list[Answer] = field(default_factory=list)

    def give(self, answer: Answer) -> None:
        """Make ``answer`` the game's own."""
        self.tokens, self.text, self.verdict = answer.tokens, answer.text, answer.verdict
        self.value, self.end = answer.log_probability, answer.end


@dataclass(eq=False)
class Play:
    """A game that waits or is in play. ``limit`` is its longest answer, ``left`` the tokens that may still be
    forwarded for it, None without a budget. ``root`` is its prompt's state and ``start`` f32 [V] the logits
    there, once it is in play.
    """

    number: int
    asked: Asked
    game: SampledGame
    limit: int
    left: int | None
    root: int = -1
    start: torch.Tensor | None = None
    told: int = 0

    def pay(self, tokens: int) -> None:
        """Take ``tokens`` from what may still be forwarded."""
        if self.left is not None:
            self.left -= tokens

    def tell(self, tokens: Sequence[int]) -> None:
        """Let whoever asked know of the answer's beginning ``tokens``, as far as that is news."""
        if self.asked.on_tokens is not None and len(tokens) > self.told:
            self.asked.on_tokens(list(tokens[self.told :]))
            self.told = len(tokens)


P = TypeVar("P", bound=Play)


class Decoder(Method):
    """A method without a tree: its parts, its name and its ledger."""

    def __init__(self, parts: Parts, name: str) -> None:
        self.ledger = Ledger()
        self.name = name
        self._parts = parts


class DecodingSession(ABC, Generic[P]):
    """Games in play without a tree; see ``session.Session`` for its life.

    A step begins games in free places (their prompts in one prefill), draws for everything in play and
    forwards all that goes on in one call. What is forwarded is counted in ``spent``, and for each game in
    its own ledger; ``close`` pays ``spent`` into ``ledger``. Deadlines are looked at before and after the
    forwards. A prompt that alone is over its budget is not forwarded: its answer is empty.
    """

    def __init__(self, parts: Parts, ledger: Ledger, places: int, clock: Clock) -> None:
        if places < 1:
            raise InputError(f"a session of {places} places plays nothing; give at least 1")
        self.spent = Ledger()
        self._parts = parts
        self._ledger = ledger
        self._places = places
        self._clock = clock
        self._read = AnswerReader(parts)
        self._banned = torch.zeros(parts.student.vocab_size, dtype=torch.bool, device=parts.student.device)
        self._banned[banned_tokens(parts.student)] = True
        self._asked = 0
        self._waiting: deque[P] = deque()
        self._plays: dict[int, P] = {}
        self._over: list[tuple[int, Game]] = []
        self._unheld: list[int] = []

    # ---- what a method adds

    @abstractmethod
    def _make(self, number: int, asked: Asked, game: SampledGame, limit: int) -> P:
        """A game that waits. May raise InputError."""

    @abstractmethod
    def _advance(self) -> None:
        """One token more for all that is in play; ``_finish`` what is over."""

    @abstractmethod
    def _stop(self, play: P) -> None:
        """Give the best answer that there is so far to a game whose budget is spent."""

    @abstractmethod
    def _held(self, play: P) -> list[int]:
        """States of a game above its prompt's, what is below before what is above; it holds none after."""

    # ---- the session

    @property
    def live(self) -> int:
        """Games that wait, are in play, or are over and not handed out."""
        return len(self._waiting) + len(self._plays) + len(self._over)

    def add(self, asked: Sequence[Asked]) -> list[int]:
        """See ``Session.add``. Raises InputError, too, for a prompt that is not the task's."""
        plays = [self._queued(self._asked + index, one) for index, one in enumerate(asked)]
        self._asked += len(plays)
        self._waiting.extend(plays)
        return [play.number for play in plays]

    def _queued(self, number: int, asked: Asked) -> P:
        parts, problem = self._parts, asked.problem
        limit = longest_answer(parts.task, problem)
        if limit < 1:
            raise InputError(f"limit is {problem.limit}; give room for at least 1 token, or None")
        if asked.tokens is not None and asked.tokens < 1:
            raise InputError(f"a budget of {asked.tokens} tokens is none; give at least 1")
        if "" in problem.stop:
            raise InputError("a stop string is empty; give text, or leave it out")
        prompt = prompt_tokens(parts.student, problem, parts.student.max_length - limit)
        parts.task.verdict(problem, "")  # refuses a prompt that it cannot read, while others are unharmed
        if asked.sampling is not None:
            asked.sampling.check_vocabulary(parts.student.vocab_size)
        return self._make(number, asked, SampledGame(problem, prompt), limit)

    def step(self) -> list[tuple[int, Game]]:
        """See ``Session.step``."""
        started = time.perf_counter()
        try:
            for forward in (self._begin, self._advance):
                self._expire()
                if self._over:  # whoever waits for these is not to wait for another forward
                    break
                forward()
            self._expire()
        finally:
            self._release()
            self.spent.wall_s += time.perf_counter() - started
        over, self._over = self._over, []
        return over

    def drop(self, numbers: Sequence[int]) -> None:
        """See ``Session.drop``."""
        gone = set(numbers)
        self._waiting = deque(play for play in self._waiting if play.number not in gone)
        for number in gone & self._plays.keys():
            self._leave(self._plays[number])
        self._release()

    def close(self) -> None:
        """See ``Session.close``."""
        self._waiting.clear()
        self._over.clear()
        for play in list(self._plays.values()):
            self._leave(play)
        self._release()
        self._ledger.add(self.spent)
        self.spent = Ledger()

    # ---- games come and go

    def _expire(self) -> None:
        """End the games whose time is over."""
        timed = [play for play in (*self._plays.values(), *self._waiting) if play.asked.deadline is not None]
        if not timed:
            return
        now = self._clock()
        late = [play for play in timed if play.asked.deadline is not None and play.asked.deadline <= now]
        for play in late:
            if play.number in self._plays:
                self._stop(play)
            else:
                self._waiting.remove(play)
                self._empty(play)

    def _begin(self) -> None:
        """Forward the prompts of games for which there are places."""
        new: list[P] = []
        while self._waiting and len(self._plays) + len(new) < self._places:
            play = self._waiting.popleft()
            if play.left is not None and play.left < len(play.game.prompt):
                self._empty(play)
            else:
                new.append(play)
        if not new:
            return
        before = self._parts.engine.ledger.copy()
        step = self._parts.engine.prefill([play.game.prompt for play in new])
        self.spent.add(self._parts.engine.ledger.since(before))
        for play, state, logits in zip(new, step.states.tolist(), step.logits, strict=True):
            play.root, play.start = state, logits.clone()
            play.pay(len(play.game.prompt))
            play.game.ledger.prefill_tokens += len(play.game.prompt)
            self._plays[play.number] = play

    def _extend(self, states: Sequence[int], tokens: Sequence[int], values: int = 0) -> Step:
        """Forward a token after each of ``states``; the last ``values`` rows are there to be valued alone."""
        before = self._parts.engine.ledger.copy()
        step = self._parts.engine.extend(np.asarray(states, np.int64), np.asarray(tokens, np.int64))
        spent = self._parts.engine.ledger.since(before)
        spent.decode_tokens -= values
        spent.value_tokens += values
        self.spent.add(spent)
        return step

    def _allowed(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits f32 [L, V] with minus infinity for what is never an answer's next token.

        Raises InputError where the model's output is not a number.
        """
        allowed = logits.masked_fill(self._banned, -torch.inf)
        if not bool(allowed.amax(dim=-1).isfinite().all()):  # NaN spreads, and so does plus infinity
            raise InputError(
                "the model's output is not a number; its weights are damaged or training diverged"
            )
        return allowed

    def _finish(self, play: P, answer: Answer | None, *, cut: bool) -> None:
        """Give a game its answer and hand it out; ``cut`` where its budget ended it."""
        game = play.game
        if self._parts.task.public_verifier:
            game.verdict, game.verified_by = 0.0, "public"
        if answer is not None:
            game.give(answer)
        if cut:
            game.end = "budget"
        game.depth = max((len(found.tokens) for found in game.answers), default=0)
        paid = game.ledger
        game.forwarded = paid.prefill_tokens + paid.decode_tokens + paid.value_tokens
        play.tell(self._kept(answer, play.asked.problem.stop) if answer is not None else [])
        self._over.append((play.number, game))
        self._leave(play)

    def _kept(self, answer: Answer, stop: Sequence[str]) -> list[int]:
        """The tokens of ``answer`` that stand wholly before the stop string that ended it."""
        if answer.end != "stop":
            return answer.tokens
        text_of, kept = self._parts.pieces.text, answer.tokens
        text = before_stop(text_of(kept), stop)
        while len(text_of(kept)) > len(text):
            kept = kept[:-1]
        return kept

    def _empty(self, play: P) -> None:
        """Hand out a game that never began."""
        self._finish(play, None, cut=True)

    def _leave(self, play: P) -> None:
        """Forget a game; its states are released before the session hands control back."""
        self._unheld += self._held(play)
        if play.root >= 0:
            self._unheld.append(play.root)
        self._plays.pop(play.number, None)

    def _release(self) -> None:
        states, self._unheld = self._unheld, []
        if states:
            self._parts.engine.release(np.asarray(states, np.int64))
