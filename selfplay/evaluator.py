"""What binds the parts: a ``mcts.Evaluator`` made of the student, teachers, value head, judge and public
verdict.

One ``LeafEvaluator`` serves any number of games, some of them at a time. It remembers every state of a game
in play that a search may come back to, so a state is forwarded once (the ledger counts the second time as
cached). It sees ``PublicProblem``s only; gold answers can reach it solely through a ``Grader``, which
self-play on training problems passes in and nothing else does. It does not choose moves and does not learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts import Evaluation, Revision
from tokenzero.mcts.errors import InputError
from tokenzero.policy.candidates import likeliest
from tokenzero.policy.engine import Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Student
from tokenzero.selfplay.consulting import Consulting
from tokenzero.selfplay.game import End
from tokenzero.selfplay.outcomes import ENDS, Grader, Outcomes, Scores, longest_answer
from tokenzero.selfplay.parts import LeafConfig, Parts
from tokenzero.selfplay.place_costs import PlaceCosts
from tokenzero.selfplay.play_out import play_out
from tokenzero.selfplay.prompt_tokens import prompt_tokens
from tokenzero.selfplay.stand_in import StandIn
from tokenzero.selfplay.state_table import BELOW_ONE, StateTable
from tokenzero.tasks import PublicProblem
from tokenzero.value import Judge
from tokenzero.value.judge import shift, tokens_of
from tokenzero.value.rollout import Rollout, blend

__all__ = ["LeafConfig", "LeafEvaluator", "Parts", "banned_tokens"]


class LeafEvaluator:
    """Evaluates leaves for games that come and go in a fixed number of places; implements ``mcts.Evaluator``.

    ``costs`` counts all that is spent, for each game and together; a game's stay until its place is opened
    again. Nothing about a game depends on which others are in play, the last bits of batched forwards apart,
    and its share of a teacher's or judge's tokens.

    Where nobody can verify a finished answer, ``stand_in`` may: what it accepts is worth 1, other ends -1;
    ``best_end`` i64 [places] is then the state of the finished answer that it thought most of, -1 for none.

    Life of a game: `read` -> `open` -> `expand`, after each committed move `keep` -> `shut`.
    """

    def __init__(
        self,
        parts: Parts,
        config: LeafConfig,
        candidates: int,
        places: int,
        grader: Grader | None = None,
        stand_in: StandIn | None = None,
    ) -> None:
        self.costs = PlaceCosts(places)
        self.best_end = np.full(places, -1, np.int64)
        self._best = np.full(places, -np.inf)
        self._parts = parts
        self._config = config
        self._candidates = min(candidates, parts.student.vocab_size)
        self._scored = grader is not None or parts.task.public_verifier
        self._rolls = config.rollout_share > 0 and self._scored
        self._stand_in = None if self._scored else stand_in
        self.table = self._new_table(64 * places, 1 + (len(parts.ensemble.teachers) if parts.ensemble else 0))
        self._banned = banned_tokens(parts.student)
        self._mask = torch.zeros(parts.student.vocab_size, device=parts.student.device)
        self._mask[self._banned] = -torch.inf
        self._root = np.full(places, -1, np.int64)
        self._prompts: list[list[int]] = [[] for _ in range(places)]
        self._rngs: list[np.random.Generator | None] = [None] * places
        self._outcomes = Outcomes(
            parts.student, parts.task, parts.pieces, self.table, places, grader, self.costs, parts.terminal
        )
        self.judged = parts.judge is not None and config.judge_eta > 0
        self.consulting = None
        if parts.ensemble is not None and parts.ensemble.beta > 0:
            self.consulting = Consulting(
                parts.ensemble,
                self.table,
                lambda asked, tokens: self.costs.divide("teacher_tokens", asked, tokens),
                self.sequence,
                lambda place: len(self._prompts[place]),
                lambda place: self._outcomes.problem(place).tag,
                parts.task.max_answer_tokens,
                frozenset(self._banned),
            )

    def _new_table(self, rows: int, proposers: int) -> StateTable:
        return StateTable(rows, self._candidates, proposers)

    @property
    def ledger(self) -> Ledger:
        """Everything spent since the evaluator was made."""
        return self.costs.total

    @property
    def spent(self) -> Ids:
        """Tokens that the student forwarded for the game in each place, prompt included, i64 [places]."""
        return self.costs.spent

    @property
    def paid_ends(self) -> bool:
        """Whether an end is forwarded to be priced, like any other state."""
        return not self._scored and (self._stand_in is None or self._stand_in.judge is None)

    def dearest(self, places: Ids) -> Ids:
        """Most tokens that one new state of the games in ``places`` i64 [R] may cost, i64 [R]."""
        return 1 + self._outcomes.limit[places] * int(self._rolls)

    def entry(self, problem: PublicProblem, prompt: Sequence[int]) -> int:
        """Most tokens that it may cost to open a game."""
        return len(prompt) + longest_answer(self._parts.task, problem) * int(self._rolls)

    def moves(self, rows: Ids) -> Ids:
        """How many moves may still come after the states ``rows`` i64 [R], at least 1, i64 [R]."""
        left: Ids = np.maximum(1, self._outcomes.limit[self.table.game[rows]] - self.table.length[rows])
        return left

    def steps(self, place: int) -> dict[int, tuple[int, ...]]:
        """See `Game.steps`: of the game in ``place``."""
        return {}

    def limits(self, places: Ids) -> Ids:
        """Longest answers of the games in ``places`` i64 [R], in tokens, i64 [R]."""
        return self._outcomes.limit[places]

    def read(self, problem: PublicProblem) -> list[int]:
        """The prompt's tokens. Raises InputError for a prompt that is empty, too long, outside the vocabulary
        or not the task's, and for a limit or a stop string that allows no answer."""
        parts = self._parts
        room = parts.student.max_length - longest_answer(parts.task, problem)
        prompt = prompt_tokens(parts.student, problem, room)
        self._outcomes.check(problem)
        return prompt

    def open(
        self,
        places: Ids,
        problems: Sequence[PublicProblem],
        rngs: Sequence[np.random.Generator],
        numbers: Sequence[int],
        prompts: Sequence[list[int]] | None = None,
        tokens: Sequence[int | None] | None = None,
    ) -> Ids:
        """Forward the prompts and open a game in each of ``places`` i64 [R]; returns the root states, i64
        [R].

        ``rngs`` are the games' own, for play-outs; ``numbers`` are what a grader knows the games by;
        ``prompts`` what `read` made of the problems, None to have it done here; ``tokens`` what each game
        may forward, None where there is no limit. Raises InputError for a place that is taken, and as `read`
        does.
        """
        if (self._root[places] >= 0).any():
            raise InputError(f"one of the places {places.tolist()} has a game in play; shut it first")
        if prompts is None:
            prompts = [self.read(problem) for problem in problems]
        self.costs.clear(places, tokens)
        self.best_end[places], self._best[places] = -1, -np.inf
        step = self._prefilled(places, prompts)
        roots = self.table.plant(places)
        self.table.slot[roots] = step.states
        self._root[places] = roots
        for place, prompt, rng in zip(places.tolist(), prompts, rngs, strict=True):
            self._prompts[place], self._rngs[place] = prompt, rng
        self._outcomes.open(places, roots, problems, numbers)
        self._fill(roots, step)
        return roots

    def expand(self, states: Ids, actions: Ids) -> Evaluation:
        """Children of ``states`` by ``actions`` (both i64 [L]); only states never seen before are
        forwarded.

        Raises InputError for a state that was released and for an action that it does not offer.
        """
        table = self.table
        rows, fresh = table.children(states, actions)
        if fresh.size:
            score, ended = self._read_ends(fresh)
            table.terminal[fresh], table.value[fresh] = ended, 2.0 * score - 1.0
            if self._parts.edge_rewards is not None:
                above = [self.sequence(row) for row in table.parent[fresh].tolist()]
                asked = Ledger()
                self._parts.edge_rewards.write(table, fresh, above, asked)
                self.costs.divide("judge_tokens", table.game[fresh], asked.judge_tokens)
            wanted = np.isnan(score)  # without a verdict on an end the student's own value must do
            if not self.paid_ends:
                wanted &= ~ended
            if wanted.any():
                self._forward(fresh[wanted])
            unsure = fresh[ended & np.isnan(score)]
            if self._stand_in is not None and unsure.size:
                self._settle(unsure, self._stand_in)
        # Every mention of a forwarded state after its first is served without a forward.
        again, first = rows[table.slot[rows] >= 0], fresh[table.slot[fresh] >= 0]
        self.costs.pay("cached_tokens", table.game[again])
        self.costs.pay("cached_tokens", table.game[first], -1)
        return self.view(rows)

    def append(self, states: Ids, actions: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """The children of ``states`` by ``actions`` (both i64 [L]) without a forward, i64 [L], and whether
        each was known before, bool [L]. What was not can only be an answer's last state: it is terminal where
        the answer ends there, and worth what the state above it is where nobody verifies it."""
        table = self.table
        rows, fresh = table.children(states, actions)
        if fresh.size:
            score, ended = self._read_ends(fresh)
            above = np.minimum(table.value[table.parent[fresh]], BELOW_ONE)
            table.terminal[fresh] = ended
            table.value[fresh] = np.where(np.isnan(score), above, 2.0 * score - 1.0)
        return rows, ~np.isin(rows, fresh)

    def end(self, row: int) -> End:
        """What ended the answer of a terminal state."""
        return ENDS[int(self.table.end[row])]

    def revise(self, states: Ids) -> Revision:
        """Candidates of ``states`` i64 [L] after the teachers were asked about them; what was expanded keeps
        its slot."""
        if self.consulting is None:
            return Revision(self.table.actions[states], self.table.logits[states])
        return self.consulting.again(states)

    def roots(self, rows: Ids) -> Evaluation:
        """The evaluation of states ``rows`` i64 [R] that searches begin at, teachers heard on each."""
        if self.consulting is not None:
            self.consulting.again(rows)
        return self.view(rows)

    def view(self, rows: Ids) -> Evaluation:
        """The stored evaluation of states already expanded."""
        table = self.table
        return Evaluation(
            actions=table.actions[rows],
            logits=table.logits[rows],
            value=table.value[rows],
            reward=table.reward[rows],
            terminal=table.terminal[rows],
            states=rows,
        )

    def keep(self, rows: Ids) -> None:
        """Forget what lies beside the states ``rows`` i64 [R], to which a move was committed."""
        self._parts.engine.release(self.table.free_siblings(rows))

    def release(self, states: Ids) -> None:
        """Forget states and everything below them; a later visit forwards them again. Their handles are given
        out anew.
        """
        self._parts.engine.release(self.table.free_subtrees(states))

    def shut(self, places: Ids) -> None:
        """Forget the games in ``places`` i64 [R]; their costs stay."""
        roots = self._root[places]
        self._root[places] = -1
        self.release(roots[roots >= 0])

    def close(self) -> Ledger:
        """Shut every game and return everything spent since the evaluator was made."""
        self.shut(np.flatnonzero(self._root >= 0))
        return self.ledger.copy()

    def sequence(self, row: int) -> list[int]:
        """Prompt and answer tokens of a state."""
        return self._prompts[int(self.table.game[row])] + self.table.answer(row)

    def text(self, row: int) -> str:
        """The partial answer of a state."""
        return self._outcomes.text(row)

    def prompt(self, place: int) -> list[int]:
        """Prompt tokens of the game in a place."""
        return self._prompts[place]

    def _read_ends(self, fresh: Ids) -> Scores:
        """Scores and ends of new states ``fresh`` i64 [L]."""
        return self._outcomes.read(fresh)

    def _prefilled(self, places: Ids, prompts: Sequence[list[int]]) -> Step:
        engine, own = self._parts.engine, np.asarray([len(prompt) for prompt in prompts])
        forwarded, cached = engine.ledger.prefill_tokens, engine.ledger.cached_tokens
        step = engine.prefill(prompts)
        self.costs.pay("prefill_tokens", places, own, engine.ledger.prefill_tokens - forwarded)
        self.costs.total.cached_tokens += engine.ledger.cached_tokens - cached
        return step

    def _forward(self, rows: Ids) -> None:
        table, engine = self.table, self._parts.engine
        before = engine.ledger.decode_tokens
        step = engine.extend(table.slot[table.parent[rows]], table.token[rows])
        self.costs.pay("decode_tokens", table.game[rows], 1, engine.ledger.decode_tokens - before)
        table.slot[rows] = step.states
        self._fill(rows, step)

    def _settle(self, rows: Ids, stand_in: StandIn) -> None:
        """Have the stand-in say which of the finished answers ``rows`` i64 [L] will do."""
        table, places = self.table, self.table.game[rows]
        opinion = table.value[rows].astype(np.float64)
        if stand_in.judge is not None:
            opinion = self._judged(stand_in.judge, rows).astype(np.float64)
            accepted = opinion > 0
        else:
            assert stand_in.threshold is not None
            accepted = opinion >= stand_in.threshold
        table.value[rows] = np.where(accepted, 1.0, -1.0)
        for row, place, worth in zip(rows.tolist(), places.tolist(), opinion.tolist(), strict=True):
            if worth > self._best[place]:
                self.best_end[place], self._best[place] = row, worth

    def _judged(self, judge: Judge, rows: Ids) -> npt.NDArray[np.int8]:
        """The judge's verdicts on the answers of ``rows`` i64 [L], and what they cost."""
        places = self.table.game[rows]
        prompts = [self._outcomes.problem(place).prompt for place in places.tolist()]
        spent = tokens_of(judge)
        verdicts = judge.judge(prompts, [self.text(row) for row in rows.tolist()])
        self.costs.pay("judge_calls", places)
        self.costs.divide("judge_tokens", places, tokens_of(judge) - spent)
        return verdicts

    @torch.inference_mode()
    def _fill(self, rows: Ids, step: Step) -> None:
        table = self.table
        temperature = self._config.prior_temperature
        actions, top = likeliest(step.logits, self._mask, self._candidates, temperature)
        value = self._values(rows, step)
        if not table.fill(rows, actions, top, value):
            raise InputError(
                "the model's output is not a number; its weights are damaged or training diverged"
            )
        if self.consulting is not None:
            self.consulting.met(rows[~table.terminal[rows]])

    def _values(self, rows: Ids, step: Step) -> npt.NDArray[np.float32]:
        """What the parts think of states just forwarded, f32 [L]: value head, play-outs, judge."""
        parts, table, config = self._parts, self.table, self._config
        value = np.zeros(len(rows), np.float32)
        if parts.value_head is not None:
            value = parts.value_head.evaluate(step.hidden)
        going = np.flatnonzero(~table.terminal[rows])
        if self._rolls and going.size:
            pick = torch.from_numpy(going).to(step.logits.device)
            starts = Step(step.states[going], step.logits[pick], step.hidden[pick])
            outcome = Rollout(lambda _: self._play_out(rows[going], starts))(going)
            value[going] = blend(value[going], outcome, config.rollout_share)
        if parts.judge is not None and self.judged:
            verdicts = self._judged(parts.judge, rows)
            table.unjudged[rows] = np.clip(value, -1.0, 1.0)
            value = shift(value, verdicts, config.judge_eta)
        return value

    def _play_out(self, rows: Ids, starts: Step) -> npt.NDArray[np.float32]:
        """Outcome f32 [L] of one sampled continuation of each state; its tokens are paid as value tokens."""
        parts, table, ledger = self._parts, self.table, self._parts.engine.ledger
        places = table.game[rows]
        room = self._outcomes.limit[places] - table.length[rows]
        texts = [self.text(row) for row in rows.tolist()]
        answers = [[] if parts.pieces.independent else table.answer(row) for row in rows.tolist()]
        outcome = np.full(len(rows), -1.0, np.float32)

        def stop(live: Ids, tokens: Ids) -> npt.NDArray[np.bool_]:
            room[live] -= 1
            for index, token in zip(live.tolist(), tokens.tolist(), strict=True):
                texts[index] = parts.pieces.append(texts[index], answers[index], token)
                answers[index].append(token)
            now = [texts[index] for index in live.tolist()]
            score, ended = self._outcomes.read_texts(places[live], now, tokens, room[live] <= 0)
            known = ended & ~np.isnan(score)
            outcome[live[known]] = 2.0 * score[known] - 1.0
            return ended

        def draw(live: Ids) -> npt.NDArray[np.float32]:
            rngs = [self._rngs[place] for place in places[live].tolist()]
            width = parts.student.vocab_size
            return np.asarray([rng.gumbel(size=width) for rng in rngs if rng is not None], np.float32)

        spent = ledger.decode_tokens
        forwarded = np.zeros(len(rows), np.int64)
        try:
            forwarded = play_out(parts.engine, starts, self._mask, draw, stop)
        finally:  # also when a verifier fails: what was spent stays counted
            cost, ledger.decode_tokens = ledger.decode_tokens - spent, spent
            ledger.value_tokens += cost
            self.costs.pay("value_tokens", places, forwarded, cost)
        return outcome


def banned_tokens(student: Student) -> list[int]:
    """Ids that are never an answer's next token: specials except the end, and rows beyond the tokenizer."""
    tokenizer = student.tokenizer
    specials = {i for i in tokenizer.all_special_ids if i is not None and i != student.eos_id}
    return sorted(specials | set(range(len(tokenizer), student.vocab_size)))
