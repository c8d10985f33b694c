"""States that lie whole steps apart: what `LeafEvaluator` is for tokens.

A state offers steps that the student was seen to write after it, or actions that the task names there. Its
value is that of the state after the step's last token, which is forwarded only when a search goes there. A
search knows no difference: states and actions are numbers. Teachers and edge rewards speak of tokens and are
refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.outcomes import ENDS, Grader, Scores
from tokenzero.selfplay.parts import LeafConfig, Parts
from tokenzero.selfplay.stand_in import StandIn
from tokenzero.selfplay.state_table import StateTable
from tokenzero.selfplay.step_drafts import Draft, Ended, StepRules, StepWriter
from tokenzero.selfplay.step_offers import Model, NamedSteps, Offers, Origin, SampledSteps, no_actions
from tokenzero.selfplay.step_table import Offer, StepTable
from tokenzero.tasks import PublicProblem


class StepEvaluator(LeafEvaluator):
    """Evaluates states that lie whole steps apart: steps sampled by ``rules``, or, where they are None, named
    by the task; see `LeafEvaluator` for the rest. Bound to its rules it is a ``player.EvaluatorFactory``.

    The prior of a step is the student's likelihood of it, over that of all that is offered with it: steps end
    at the same marks, so none is the beginning of another, and likelihoods of long and short ones compare. It
    is what shares of samples come to with many samples, without their noise. Of more steps than
    ``candidates`` the likeliest are offered. Where one is a verified answer nothing else is offered, and the
    state is worth 1. Steps are proposed within a game's budget of tokens.

    Raises InputError for parts with teachers that speak or with edge rewards.
    """

    table: StepTable

    def __init__(
        self,
        rules: StepRules | None,
        parts: Parts,
        config: LeafConfig,
        candidates: int,
        places: int,
        grader: Grader | None = None,
        stand_in: StandIn | None = None,
    ) -> None:
        if parts.edge_rewards is not None or (parts.ensemble is not None and parts.ensemble.beta > 0):
            raise InputError("teachers and edge rewards speak of tokens; use granularity token with them")
        self._width = candidates
        self._named = rules is None
        super().__init__(parts, config, candidates, places, grader, stand_in)
        self._candidates = candidates
        model = Model(self._mask, self._extend, self._spare, self._give_back)
        self._offers: Offers
        if rules is None:
            self._offers = NamedSteps(parts.task, parts.student, parts.pieces, model, self._ends)
        else:
            writer = StepWriter(parts.task, parts.pieces, rules, self._drafts_end)
            self._offers = SampledSteps(writer, model)

    def read(self, problem: PublicProblem) -> list[int]:
        """As in `LeafEvaluator`; raises InputError, too, for a task that names no actions where they are
        wanted.
        """
        prompt = super().read(problem)
        if self._named and self._parts.task.actions(problem, "") is None:
            raise InputError(no_actions(self._parts.task))
        return prompt

    def moves(self, rows: Ids) -> Ids:
        """As in `LeafEvaluator`, if all were as long as those that are offered now."""
        left = super().moves(rows)
        lengths = [[len(offer.tokens) for offer in self.table.offers(row).values()] for row in rows.tolist()]
        mean = np.asarray([np.mean(own) if own else 1.0 for own in lengths])
        return np.asarray(np.maximum(1, np.ceil(left / mean)), np.int64)

    def dearest(self, places: Ids) -> Ids:
        """Tokens that one new state has to have: one for itself, and one for the first step after it, which
        gets by with what there is."""
        own: Ids = super().dearest(places) + 1
        return own

    def steps(self, place: int) -> dict[int, tuple[int, ...]]:
        """See `Game.steps`."""
        return self.table.steps(place)

    def _new_table(self, rows: int, proposers: int) -> StateTable:
        return StepTable(rows, self._width, proposers)

    def _read_ends(self, fresh: Ids) -> Scores:
        table = self.table
        taken = [table.taken(row) for row in fresh.tolist()]
        table.length[fresh] = table.length[table.parent[fresh]] + [len(offer.tokens) for offer in taken]
        table.end[fresh] = [ENDS.index(offer.end) for offer in taken]
        table.write(fresh, [offer.text for offer in taken])
        return np.asarray([offer.score for offer in taken]), np.asarray([offer.over for offer in taken])

    def _forward(self, rows: Ids) -> None:
        taken = [self.table.taken(row) for row in rows.tolist()]
        step = self._extend(
            [offer.state for offer in taken],
            [offer.tokens[-1] for offer in taken],
            self.table.game[rows].tolist(),
        )
        self.table.slot[rows] = step.states
        self._fill(rows, step)

    @torch.inference_mode()
    def _fill(self, rows: Ids, step: Step) -> None:
        table = self.table
        value = self._values(rows, step)
        actions = np.full((len(rows), self._candidates), -1, np.int64)
        priors = np.full((len(rows), self._candidates), -np.inf, np.float32)
        going = np.flatnonzero(~table.terminal[rows]).tolist()
        for index, offers in zip(going, self._proposed(rows, going, step), strict=True):
            row = int(rows[index])
            if self._scored and any(offer.score == 1.0 for offer in offers):
                value[index] = 1.0
            if not offers:  # nothing may be written any more
                table.terminal[row] = True
                value[index] = -1.0 if self._scored else value[index]
            count = len(offers)
            actions[index, :count] = table.offer(row, offers)
            priors[index, :count] = self._priors(offers)
        if not table.fill(rows, actions, priors, value):
            raise InputError(
                "the model's output is not a number; its weights are damaged or training diverged"
            )

    def _proposed(self, rows: Ids, going: Sequence[int], step: Step) -> list[list[Offer]]:
        """What to offer at those of ``rows`` i64 [L] that ``going`` counts, which were just forwarded."""
        if not going:
            return []
        origins = [self._origin(int(rows[index]), step, index) for index in going]
        places = np.unique(self.table.game[rows])
        room = dict(zip(places.tolist(), self.costs.left(places).tolist(), strict=True))
        return [self._kept(offers) for offers in self._offers.after(origins, room)]

    def _kept(self, offers: list[Offer]) -> list[Offer]:
        """The offers to keep: verified answers alone where there are any, and the likeliest."""
        ordered = sorted(
            offers, key=lambda offer: (self._scored and offer.score == 1.0, offer.log_probability)
        )
        ordered = ordered[::-1]
        solved = sum(self._scored and offer.score == 1.0 for offer in offers)
        kept = ordered[: min(solved or len(offers), self._candidates)]
        # A state that several offers share stays with one of them.
        for offer in ordered[len(kept) :]:
            heir = next((one for one in kept if offer.own and one.state == offer.state), None)
            if heir is not None:
                heir.own = True
            elif offer.own:
                self._give_back([offer.state])
        return kept

    def _priors(self, offers: Sequence[Offer]) -> npt.NDArray[np.float64]:
        scores = np.asarray([offer.log_probability for offer in offers], np.float64)
        scores /= self._config.prior_temperature
        return scores - np.logaddexp.reduce(scores) if len(scores) else scores

    def _origin(self, row: int, step: Step, index: int) -> Origin:
        place = int(self.table.game[row])
        rng = self._rngs[place]
        assert rng is not None
        return Origin(
            problem=self._outcomes.problem(place),
            rng=rng,
            prompt=self._prompts[place],
            answer=self.table.answer(row),
            text=self.text(row),
            place=place,
            state=int(step.states[index]),
            logits=step.logits[index],
            limit=int(self._outcomes.limit[place]),
        )

    def _extend(self, states: Sequence[int], tokens: Sequence[int], places: Sequence[int]) -> Step:
        """Forward a token after each of L engine states, for the games in ``places``."""
        engine = self._parts.engine
        before = engine.ledger.decode_tokens
        step = engine.extend(np.asarray(states, np.int64), np.asarray(tokens, np.int64))
        spent = engine.ledger.decode_tokens - before
        self.costs.pay("decode_tokens", np.asarray(places, np.int64), 1, spent)
        return step

    def _spare(self, places: Sequence[int]) -> None:
        self.costs.pay("cached_tokens", np.asarray(places, np.int64))

    def _give_back(self, states: Sequence[int]) -> None:
        self._parts.engine.release(np.asarray(states, np.int64))

    def _drafts_end(self, drafts: Sequence[Draft]) -> Sequence[Ended]:
        return self._ends(
            [draft.group for draft in drafts],
            [draft.text for draft in drafts],
            [draft.row.answer[-1] for draft in drafts],
            [len(draft.row.answer) >= draft.limit for draft in drafts],
        )

    def _ends(
        self, places: Sequence[int], texts: Sequence[str], tokens: Sequence[int], full: Sequence[bool]
    ) -> Sequence[Ended]:
        score, ended, end = self._outcomes.read_ends(
            np.asarray(places, np.int64), texts, np.asarray(tokens, np.int64), np.asarray(full, np.bool_)
        )
        rows = zip(score.tolist(), ended.tolist(), end.tolist(), strict=True)
        return [(ENDS[how], worth) if over else None for worth, over, how in rows]
