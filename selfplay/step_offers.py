"""What may follow a state, in whole steps: sampled from the student, or named by the task.

Both kinds forward all of a step but its last token, in batches over all states at hand. What the steps after
a state have in common is forwarded once. Both make do with the tokens that there are, and price no states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Step
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.sampling import Row
from tokenzero.policy.student import Student
from tokenzero.selfplay.step_drafts import Draft, Ended, StepWriter
from tokenzero.selfplay.step_table import Offer
from tokenzero.tasks import PublicProblem, Task

Extend = Callable[[Sequence[int], Sequence[int], Sequence[int]], Step]
"""(engine states, tokens, places of their games) -> the states one token on, paid for."""

Spare = Callable[[Sequence[int]], None]
"""Told the place of the game for each token that did not have to be forwarded again."""

Release = Callable[[Sequence[int]], None]
"""Gives engine states back."""

ReadTexts = Callable[[Sequence[int], Sequence[str], Sequence[int], Sequence[bool]], Sequence[Ended]]
"""(places, whole answers, their last tokens, whether there is no room for more) -> how each has ended."""


@dataclass(slots=True)
class Origin:
    """A state that steps are wanted after: the ``answer`` so far as tokens and as ``text``, the game's
    ``place``, the engine's ``state`` and ``logits`` f32 [V] there. ``limit`` is the longest answer.
    """

    problem: PublicProblem
    rng: np.random.Generator
    prompt: list[int]
    answer: list[int]
    text: str
    place: int
    state: int
    logits: torch.Tensor
    limit: int


class Model(NamedTuple):
    """What steps are made with; ``mask`` f32 [V] is minus infinity at tokens that are never written."""

    mask: torch.Tensor
    extend: Extend
    spare: Spare
    release: Release


class Offers(Protocol):
    """A kind of steps."""

    def after(self, origins: Sequence[Origin], room: dict[int, int]) -> list[list[Offer]]:
        """The distinct steps after each of ``origins``.

        ``room`` says how many tokens may still be forwarded for the game in a place; what is forwarded here
        is taken from it.
        """
        ...


Node = tuple[int, tuple[int, ...]]
"""(number of an origin, tokens written after it)."""


class Trie:
    """What was written after each of ``origins``, every beginning forwarded once. ``made`` are its engine
    states, without those of the origins.
    """

    def __init__(self, origins: Sequence[Origin], model: Model) -> None:
        self.made: dict[Node, int] = {}
        self._origins = origins
        self._model = model
        self._row: dict[Node, int] = {(index, ()): index for index in range(len(origins))}
        self._logits = torch.stack([origin.logits for origin in origins])

    def logits(self, nodes: Sequence[Node]) -> torch.Tensor:
        """What follows ``nodes``, which were forwarded last or are origins: f32 [L, V], with minus infinity
        at tokens that are never written.
        """
        rows = torch.tensor([self._row[node] for node in nodes], device=self._logits.device)
        return self._logits[rows].float() + self._model.mask

    def forward(self, nodes: Sequence[Node]) -> None:
        """Forward the last tokens of ``nodes``, some of them perhaps named twice, from those before."""
        fresh = list(dict.fromkeys(nodes))
        step = self._model.extend(
            [self.state((index, tokens[:-1])) for index, tokens in fresh],
            [tokens[-1] for _, tokens in fresh],
            [self._origins[index].place for index, _ in fresh],
        )
        self.made.update(zip(fresh, step.states.tolist(), strict=True))
        self._row = {node: row for row, node in enumerate(fresh)}
        self._logits = step.logits
        again = Counter(nodes) - Counter(fresh)
        self._model.spare([self._origins[index].place for index, _ in again.elements()])

    def state(self, node: Node) -> int:
        """The engine's state of a node."""
        return self.made[node] if node[1] else self._origins[node[0]].state

    def hand_over(self, offers: Sequence[Sequence[Offer]]) -> None:
        """Give each offer the state that its last token is to be forwarded from, and the other states back.
        Of offers that share a state the first owns it.
        """
        owned: set[Node] = set()
        for index, own in enumerate(offers):
            for offer in own:
                node = index, offer.tokens[:-1]
                offer.state = self.state(node)
                offer.own = node in self.made and node not in owned
                owned.add(node)
        self._model.release([state for node, state in self.made.items() if node not in owned])

    def drop(self) -> None:
        """Give all states back: nothing came of it."""
        self._model.release(list(self.made.values()))


class SampledSteps:
    """Steps that a writer draws, as many at a state as its rules propose; equal ones are offered once.

    As tokens run short fewer are carried on, so that these can be finished however long they get; where none
    can, they are offered as far as they came.
    """

    def __init__(self, writer: StepWriter, model: Model) -> None:
        self._writer = writer
        self._model = model

    def after(self, origins: Sequence[Origin], room: dict[int, int]) -> list[list[Offer]]:
        """See `Offers`; at least one step each."""
        drafts = [self._begun(origin) for origin in origins]
        trie = Trie(origins, self._model)
        try:
            self._grow([(index, draft) for index, own in enumerate(drafts) for draft in own], trie, room)
        except BaseException:  # nobody else knows these states yet
            trie.drop()
            raise
        offers = [_distinct(own) for own in drafts]
        trie.hand_over(offers)
        return offers

    def _begun(self, origin: Origin) -> list[Draft]:
        rules = self._writer.rules
        row = Row(rules.sampling, origin.rng, origin.prompt, origin.answer)
        return self._writer.begin(
            origin.problem,
            row,
            origin.limit,
            origin.text,
            origin.state,
            origin.logits,
            rules.proposals,
            group=origin.place,
        )

    def _grow(self, live: list[tuple[int, Draft]], trie: Trie, room: dict[int, int]) -> None:
        while live:
            nodes = [(index, tuple(draft.tokens)) for index, draft in live]
            self._writer.draw([draft for _, draft in live], trie.logits(nodes))
            live = self._affordable([one for one in live if one[1].stage == "growing"], room)
            if live:
                trie.forward([(index, tuple(draft.tokens)) for index, draft in live])

    def _affordable(
        self, growing: Sequence[tuple[int, Draft]], room: dict[int, int]
    ) -> list[tuple[int, Draft]]:
        """Those of ``growing`` to carry on by a token, which is paid."""
        before, paid = dict(room), set[Node]()
        kept = []
        for index, draft in growing:
            node, place = (index, tuple(draft.tokens)), draft.group
            if node not in paid:
                longest = min(self._writer.rules.tokens, draft.limit - draft.head)
                most = max(1, before[place] // (longest - len(draft.tokens)))
                if before[place] - room[place] >= min(most, before[place]):
                    continue
                paid.add(node)
                room[place] -= 1
            kept.append((index, draft))
        return kept


def _distinct(drafts: Sequence[Draft]) -> list[Offer]:
    """What one state's drafts offer: those that came to an end, where any did."""
    ended = [draft for draft in drafts if draft.stage != "growing"] or drafts
    found = {tuple(draft.tokens): draft for draft in reversed(ended)}
    return [
        Offer(tokens, draft.text, draft.log_probability, draft.stage == "over", draft.end, draft.score)
        for tokens, draft in reversed(found.items())
    ]


class NamedSteps:
    """The actions that a task names, each with the student's likelihood of its tokens. Where a game cannot
    pay for that, their first tokens are offered.

    ``read`` says which answers end. Raises InputError for a task that names no actions, and for actions
    outside the vocabulary.
    """

    def __init__(self, task: Task, student: Student, pieces: Pieces, model: Model, read: ReadTexts) -> None:
        self._task = task
        self._student = student
        self._pieces = pieces
        self._model = model
        self._read = read

    def after(self, origins: Sequence[Origin], room: dict[int, int]) -> list[list[Offer]]:
        """See `Offers`; none where nothing may be written."""
        named = [_affordable(origin, self._named(origin), room) for origin in origins]
        actions = [(index, tokens) for index, own in enumerate(named) for tokens in own]
        trie = Trie(origins, self._model)
        try:
            shares = _log_probabilities(actions, trie)
            offers = self._offered(origins, named, shares)
        except BaseException:  # nobody else knows these states yet
            trie.drop()
            raise
        trie.hand_over(offers)
        return offers

    def _named(self, origin: Origin) -> list[tuple[int, ...]]:
        """The actions after a state as tokens, cut where the answer is full."""
        texts = self._task.actions(origin.problem, origin.text)
        if texts is None:
            raise InputError(no_actions(self._task))
        if not texts:
            return []
        tokenizer = self._student.tokenizer
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        unknown = tokenizer.unk_token_id
        for text, tokens in zip(texts, ids, strict=True):
            if not tokens or (unknown != self._student.eos_id and unknown in tokens):
                raise InputError(
                    f"action {text!r} of task {self._task.name} is outside this model's vocabulary; use "
                    "granularity token or step"
                )
        most = origin.limit - len(origin.answer)
        return list(dict.fromkeys(tuple(tokens[:most]) for tokens in ids))

    def _offered(
        self,
        origins: Sequence[Origin],
        named: Sequence[Sequence[tuple[int, ...]]],
        shares: dict[Node, float],
    ) -> list[list[Offer]]:
        rows = [(index, tokens) for index, own in enumerate(named) for tokens in own]
        answers = [[*origins[index].answer, *tokens] for index, tokens in rows]
        texts = [self._pieces.text(answer) for answer in answers]
        ended = self._read(
            [origins[index].place for index, _ in rows],
            texts,
            [answer[-1] for answer in answers],
            [len(answer) >= origins[index].limit for (index, _), answer in zip(rows, answers, strict=True)],
        )
        offers: list[list[Offer]] = [[] for _ in origins]
        for (index, tokens), text, how in zip(rows, texts, ended, strict=True):
            offer = Offer(tokens, text, shares[index, tokens])
            if how is not None:
                offer.over, (offer.end, offer.score) = True, how
            offers[index].append(offer)
        return offers


def _affordable(
    origin: Origin, actions: list[tuple[int, ...]], room: dict[int, int]
) -> list[tuple[int, ...]]:
    """The actions, or their first tokens where the game cannot pay for more; what they cost is paid."""
    cost = len({tokens[:length] for tokens in actions for length in range(1, len(tokens))})
    if cost > room[origin.place]:
        return list(dict.fromkeys(tokens[:1] for tokens in actions))
    room[origin.place] -= cost
    return actions


def no_actions(task: Task) -> str:
    """What to say of a task that names no actions."""
    return f"{task.name} names no actions; use granularity token or step"


@torch.inference_mode()
def _log_probabilities(actions: Sequence[Node], trie: Trie) -> dict[Node, float]:
    """Log-probability of each action after its origin; its tokens but the last are forwarded."""
    total = dict.fromkeys(actions, 0.0)
    for depth in range(max((len(tokens) for _, tokens in actions), default=0)):
        longer = [(index, tokens) for index, tokens in actions if len(tokens) > depth]
        shares = trie.logits([(index, tokens[:depth]) for index, tokens in longer]).log_softmax(-1)
        columns = torch.tensor([tokens[depth] for _, tokens in longer], device=shares.device)
        for action, share in zip(longer, shares.gather(1, columns[:, None])[:, 0].tolist(), strict=True):
            total[action] += share
        deeper = [(index, tokens[: depth + 1]) for index, tokens in longer if len(tokens) > depth + 1]
        if deeper:
            trie.forward(list(dict.fromkeys(deeper)))
    return total
