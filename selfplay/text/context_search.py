"""Search at contexts of a corpus: what a few tokens of looking ahead say the next token should be.

A tree of a few tokens stands over each context, all trees of a chunk in one pool, so that a simulation is one
batched forward. It gives targets to learn from; it learns nothing and picks no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import SearchConfig, SearchPool, SearchResult
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.tree import ROOT
from tokenzero.policy.engine import Engine
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Student
from tokenzero.selfplay.text.config import ContextSearchConfig
from tokenzero.selfplay.text.context_evaluator import ContextEvaluator
from tokenzero.selfplay.text.horizon import Floats, Horizon, Ids
from tokenzero.teachers.referee import Referee
from tokenzero.value.head import ValueHead
from tokenzero.value.text_rewards import TextRewardConfig

PLACES = 2048  # most trees at a time; more make no forward cheaper
MOST_LOGITS = 1 << 26  # of one chunk, 256 MiB
MOST_SLOTS = 1 << 23  # candidates in all trees of a chunk, 50 bytes each
# The Gumbel method multiplies Q by (maxvisit_init + most visits) * value_scale. In float32 no number of
# visits changes this much, and with its inverse in value_scale Q counts as it is.
UNMOVED = 2.0**40


class ContextTargets(NamedTuple):
    """What search says of P contexts. ``cells`` i64 [P], ascending: row * W + position of the last token
    known. ``actions`` i64 [P, K] (-1 pads) and ``weights`` f32 [P, K], rows of sum 1: the target. ``values``
    f32 [P] in nats: the target's mean of the completed Q, that is the faded rewards ahead under the target.
    ``returns`` f32 [P] in [-1, 1]: the same by its place between the least and the greatest there can be, for
    the value head to learn.
    """

    cells: Ids
    actions: Ids
    weights: Floats
    values: Floats
    returns: Floats


class ContextSearch:
    """Searches contexts with the weights that ``student`` has at the moment of asking.

    The value of a path is its rewards, faded by ``config.discount`` a token, and below its last token
    ``config.value_share`` of what ``value_head`` expects; without a head there is nothing below. A state that
    has not been searched further is worth the reward to expect of its next token, which its own forward
    tells, and as much for those that follow up to the full depth (see `Horizon.worth`). The corpus rewards
    its own next token only along its own path and within the row; off it the referee alone judges. There is
    no judge in any of it.

    With ``config.target`` "completed-q" simulations go by sequential halving, and the target is softmax(log
    prior + strength * completed Q), Q in nats as it is (Danihelka et al., ICLR 2022; unvisited candidates
    have its mixed value); with "visits" they go by PUCT on Q rescaled among siblings, and the target is the
    normalised visits. Without random draws: the same student and rows give the same targets.

    ``ledger`` counts all that was forwarded for search: rows (prefill), inner states (decode), states
    forwarded for a learned value alone (value), the referee's (teacher), and what was at hand already
    (cached); the engine's own ledger has its part too.

    Raises InputError for a referee of another vocabulary and for rewards that `Horizon` refuses.
    """

    def __init__(
        self,
        student: Student,
        engine: Engine,
        referee: Referee,
        value_head: ValueHead | None,
        rewards: TextRewardConfig,
        config: ContextSearchConfig,
    ) -> None:
        if referee.vocab_size != student.vocab_size:
            raise InputError(
                f"referee {referee.name} knows {referee.vocab_size} tokens, the student has "
                f"{student.vocab_size}; give one of the student's tokenizer"
            )
        self.ledger = Ledger()
        self._student = student
        self._engine = engine
        self._referee = referee
        self._head = value_head
        self._rewards = rewards
        self._config = config
        learned = value_head is not None and config.value_share > 0
        self._horizon = Horizon(rewards, config, student.vocab_size, learned=learned)
        self._candidates = min(config.candidates, student.vocab_size)
        self._rules = _rules(config, self._candidates)

    def targets(self, ids: Ids, rng: np.random.Generator) -> ContextTargets:
        """Search contexts of rows ``ids`` i64 [R, W + 1], all or ``config.contexts`` of them drawn by
        ``rng``. The token after the last position is only read as the corpus's answer there.

        Raises InputError for rows of another shape, tokens out of the vocabulary, and rows that leave the
        model no positions to search in.
        """
        ids = self._checked(ids)
        width = ids.shape[1] - 1
        count = ids.shape[0] * width
        cells = np.arange(count)
        if self._config.contexts is not None and self._config.contexts < count:
            cells = np.sort(rng.choice(count, self._config.contexts, replace=False))
        parts = [self._search(ids, cells[part]) for part in self._chunks(cells // width)]
        return ContextTargets(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def _checked(self, ids: Ids) -> Ids:
        if ids.ndim != 2 or ids.shape[0] < 1 or ids.shape[1] < 2 or ids.dtype.kind not in "iu":
            raise InputError(f"ids is {ids.dtype} {ids.shape}; give whole numbers [rows, context + 1]")
        if ids.min() < 0 or ids.max() >= self._student.vocab_size:
            worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise InputError(
                f"token {worst} is outside the student's vocabulary of {self._student.vocab_size}; "
                "give windows of a corpus in its tokenizer"
            )
        # An engine wants room for one token after any prompt.
        needed = ids.shape[1] - 1 + max(1, self._config.depth - 1 + self._horizon.learned)
        if needed > self._student.max_length:
            raise InputError(
                f"search needs {needed} positions after contexts of {ids.shape[1] - 1} tokens, the model has "
                f"{self._student.max_length}; raise model.max_position_embeddings or shorten learner.context"
            )
        return ids.astype(np.int64)

    def _chunks(self, rows: Ids) -> Iterator[slice]:
        """Slices of the contexts with ``rows`` i64 [P], ascending, that are searched together. Rows stay
        whole where they can, since a row is forwarded once a chunk.
        """
        slots = (self._config.simulations + 1) * self._candidates
        most = min(PLACES, MOST_LOGITS // self._student.vocab_size, MOST_SLOTS // slots)
        start = 0
        while start < len(rows):
            stop = start + max(1, most)
            if stop < len(rows):
                whole = int(np.searchsorted(rows, rows[stop]))
                stop = whole if whole > start else stop
            yield slice(start, stop)
            start = stop

    def _search(self, ids: Ids, cells: Ids) -> ContextTargets:
        """Targets of contexts ``cells`` of one chunk."""
        width = ids.shape[1] - 1
        first, last = int(cells[0]) // width, int(cells[-1]) // width + 1
        exhaustive = self._exhaustive()
        evaluator = ContextEvaluator(
            self._engine, self._referee, self._head, self._horizon, ids[first:last],
            beta=self._config.beta,
            candidates=self._candidates,
            truth_offered=self._rewards.hard > 0,
            room=len(cells) * (1 if exhaustive else 1 + self._config.simulations),
        )  # fmt: skip
        try:
            root = evaluator.open(cells - first * width)
            if exhaustive:
                found = self._scored(evaluator.logits, evaluator.rewards)
                made = len(cells) * self._candidates
            else:
                pool = SearchPool(len(cells), self._rules)
                places = np.arange(len(cells))
                pool.plant(places, root)
                while pool.step(evaluator):
                    pass
                result = pool.answer(places, uniform=self._no_draw(len(cells)))
                found, made = (result.weights, completed_q(result)), int(result.simulations.sum())
        finally:
            evaluator.close()
            self.ledger.add(evaluator.ledger)
        self.ledger.simulations += made
        weights, q = found
        values = (weights * q).sum(axis=1)
        return ContextTargets(cells, root.actions, weights, values, self._horizon.squashed(values))

    def _exhaustive(self) -> bool:
        """Whether each candidate of a root is visited and nothing lies below: then no tree is needed."""
        config = self._config
        enough = config.simulations >= self._candidates and config.target == "completed-q"
        return config.depth == 1 and not self._horizon.learned and enough

    def _scored(self, logits: Floats, rewards: Floats) -> tuple[Floats, Floats]:
        """The target and Q, f32 [P, K] each, of candidates whose rewards are all there is."""
        scores = logits + np.float32(self._config.strength) * rewards
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True), rewards

    def _no_draw(self, count: int) -> NDArray[np.float64] | None:
        """PUCT wants a number to draw its move by; no move is made here."""
        return np.zeros(count) if self._rules.method == "puct" else None


def completed_q(result: SearchResult) -> Floats:
    """Q f32 [R, K] of the roots' candidates, unvisited ones with the mixed value of Danihelka et al., ICLR
    2022, Appendix D: what `mcts` puts into the Gumbel method's weights.
    """
    raw = result.tree.raw_value[result.places, ROOT]
    prior = result.tree.prior[result.places, ROOT]
    seen = result.visits > 0
    mass = (prior * seen).sum(axis=1)
    total = result.visits.sum(axis=1)
    among = (prior * result.q * seen).sum(axis=1) / np.maximum(mass, np.finfo(np.float32).tiny)
    missing = (raw + total * among) / (total + 1)
    return np.asarray(np.where(seen, result.q, missing[:, None]), np.float32)


def _rules(config: ContextSearchConfig, candidates: int) -> SearchConfig:
    """The same wishes in the words of the tree search."""
    if config.target == "visits":
        return SearchConfig(
            method="puct",
            simulations=config.simulations,
            candidates=candidates,
            max_depth=config.depth,
            discount=config.discount,
            temperature=0.0,
        )
    return SearchConfig(
        method="gumbel",
        simulations=config.simulations,
        candidates=candidates,
        considered=candidates,
        max_depth=config.depth,
        discount=config.discount,
        q_rescale="none",
        maxvisit_init=UNMOVED,
        value_scale=config.strength / UNMOVED,
    )
