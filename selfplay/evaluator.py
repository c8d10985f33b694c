"""What binds the parts: a ``mcts.Evaluator`` made of the student, teachers, value head, judge and public
verdict.

One ``LeafEvaluator`` serves any number of games, some of them at a time. It remembers every state of a game
in play that a search may come back to, so a state is forwarded once (the ledger counts the second time as
cached). It sees ``PublicProblem``s only; gold answers can reach it solely through a ``Grader``, which
self-play on training problems passes in and nothing else does. It does not choose moves and does not learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts import Evaluation, Revision
from tokenzero.mcts.errors import InputError
from tokenzero.policy.candidates import likeliest
from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.consulting import Consulting
from tokenzero.selfplay.edge_rewards import EdgeRewards
from tokenzero.selfplay.outcomes import Grader, Outcomes
from tokenzero.selfplay.play_out import play_out
from tokenzero.selfplay.state_table import StateTable
from tokenzero.tasks import PublicProblem, Task
from tokenzero.teachers import Ensemble
from tokenzero.value import Judge, ValueHead
from tokenzero.value.judge import shift, tokens_of
from tokenzero.value.rollout import Rollout, blend
from tokenzero.value.terminal import CombinedDetector


@dataclass(frozen=True)
class LeafConfig:
    """How a leaf is priced and which actions it offers.

    ``prior_temperature`` divides the student's logits; ``rollout_share`` (rho) blends a sampled play-out's
    outcome into the value; ``judge_eta`` scales the judge's shift, and sinks to nothing in a straight line
    over ``judge_rounds`` rounds of self-play (0: it stays).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    prior_temperature: float = 1.0
    rollout_share: float = 0.0
    judge_eta: float = 0.0
    judge_rounds: int = 0

    def __post_init__(self) -> None:
        if self.prior_temperature <= 0:
            raise InputError(f"leaf.prior_temperature is {self.prior_temperature}; give a number above 0")
        for name in ("rollout_share", "judge_eta"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"leaf.{name} is {getattr(self, name)}; give a number from 0 to 1")
        if self.judge_rounds < 0:
            raise InputError(f"leaf.judge_rounds is {self.judge_rounds}; give at least 0, where 0 keeps eta")

    def in_round(self, round_index: int) -> LeafConfig:
        """The same with the judge's share of that round, counted from 1."""
        if not self.judge_rounds:
            return self
        left = max(0.0, 1.0 - (round_index - 1) / self.judge_rounds)
        return replace(self, judge_eta=left * self.judge_eta)


@dataclass
class Parts:
    """Everything a leaf's evaluation may consult. Absent parts cost nothing."""

    student: Student
    engine: Engine
    task: Task
    value_head: ValueHead | None = None
    ensemble: Ensemble | None = None
    judge: Judge | None = None
    terminal: CombinedDetector | None = None
    edge_rewards: EdgeRewards | None = None
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.student.tokenizer)


class LeafEvaluator:
    """Evaluates leaves for games that come and go in a fixed number of places; implements ``mcts.Evaluator``.

    ``ledger`` counts verifier, judge and teacher work and cache hits; the engine counts its own forwards.
    ``spent`` i64 [places] is the number of tokens forwarded for the game in each place, prompt included; it
    stays until the place is opened again. Nothing about a game depends on which others are in play, the last
    bits of batched forwards apart.

    Life of a game: `open` -> `expand`, after each committed move `keep` -> `shut`.
    """

    def __init__(
        self,
        parts: Parts,
        config: LeafConfig,
        candidates: int,
        places: int,
        grader: Grader | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.spent = np.zeros(places, np.int64)
        self._parts = parts
        self._config = config
        self._candidates = min(candidates, parts.student.vocab_size)
        self._scored = grader is not None or parts.task.public_verifier
        self._mark = parts.engine.ledger.copy()
        self.table = StateTable(
            64 * places, self._candidates, 1 + (len(parts.ensemble.teachers) if parts.ensemble else 0)
        )
        self._banned = banned_tokens(parts.student)
        self._mask = torch.zeros(parts.student.vocab_size, device=parts.student.device)
        self._mask[self._banned] = -torch.inf
        self._root = np.full(places, -1, np.int64)
        self._prompts: list[list[int]] = [[] for _ in range(places)]
        self._rngs: list[np.random.Generator | None] = [None] * places
        self._outcomes = Outcomes(
            parts.student, parts.task, parts.pieces, self.table, places, grader, self.ledger, parts.terminal
        )
        self.judged = parts.judge is not None and config.judge_eta > 0
        self.consulting = None
        if parts.ensemble is not None and parts.ensemble.beta > 0:
            self.consulting = Consulting(
                parts.ensemble,
                self.table,
                self.ledger,
                self.sequence,
                lambda place: len(self._prompts[place]),
                lambda place: self._outcomes.problem(place).tag,
                parts.task.max_answer_tokens,
                frozenset(self._banned),
            )

    def open(
        self,
        places: Ids,
        problems: Sequence[PublicProblem],
        rngs: Sequence[np.random.Generator],
        numbers: Sequence[int],
    ) -> Ids:
        """Forward the prompts and open a game in each of ``places`` i64 [R]; returns the root states, i64
        [R].

        ``rngs`` are the games' own, for play-outs; ``numbers`` are what a grader knows the games by. Raises
        InputError for a place that is taken, and for a prompt that is empty, too long or outside the
        vocabulary.
        """
        parts = self._parts
        if (self._root[places] >= 0).any():
            raise InputError(f"one of the places {places.tolist()} has a game in play; shut it first")
        room = parts.student.max_length - parts.task.max_answer_tokens
        prompts = [encode_prompt(parts.student.tokenizer, problem.prompt, room) for problem in problems]
        step = parts.engine.prefill(prompts)
        roots = self.table.plant(places)
        self.table.slot[roots] = step.states
        self._root[places] = roots
        self.spent[places] = [len(prompt) for prompt in prompts]
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
            score, ended = self._outcomes.read(fresh)
            table.terminal[fresh], table.value[fresh] = ended, 2.0 * score - 1.0
            if self._parts.edge_rewards is not None:
                above = [self.sequence(row) for row in table.parent[fresh].tolist()]
                self._parts.edge_rewards.write(table, fresh, above, self.ledger)
            wanted = fresh[np.isnan(score)]  # without a verdict on an end the student's own value must do
            if wanted.size:
                self._forward(wanted)
        # Every mention of a forwarded state after its first is served without a forward.
        self.ledger.cached_tokens += _forwarded(table, rows) - _forwarded(table, fresh)
        return self.view(rows)

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
        """Forget the games in ``places`` i64 [R]; ``spent`` stays."""
        roots = self._root[places]
        self._root[places] = -1
        self.release(roots[roots >= 0])

    def close(self) -> Ledger:
        """Shut every game and return everything spent since the evaluator was made."""
        self.shut(np.flatnonzero(self._root >= 0))
        ledger = self._parts.engine.ledger.since(self._mark)
        ledger.add(self.ledger)
        return ledger

    def sequence(self, row: int) -> list[int]:
        """Prompt and answer tokens of a state."""
        return self._prompts[int(self.table.game[row])] + self.table.answer(row)

    def text(self, row: int) -> str:
        """The partial answer of a state."""
        return self._outcomes.text(row)

    def prompt(self, place: int) -> list[int]:
        """Prompt tokens of the game in a place."""
        return self._prompts[place]

    def _forward(self, rows: Ids) -> None:
        table = self.table
        step = self._parts.engine.extend(table.slot[table.parent[rows]], table.token[rows])
        table.slot[rows] = step.states
        np.add.at(self.spent, table.game[rows], 1)
        self._fill(rows, step)

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
        if config.rollout_share > 0 and self._scored and going.size:
            pick = torch.from_numpy(going).to(step.logits.device)
            starts = Step(step.states[going], step.logits[pick], step.hidden[pick])
            outcome = Rollout(lambda _: self._play_out(rows[going], starts))(going)
            value[going] = blend(value[going], outcome, config.rollout_share)
        if parts.judge is not None and self.judged:
            prompts = [self._outcomes.problem(place).prompt for place in table.game[rows].tolist()]
            spent = tokens_of(parts.judge)
            verdicts = parts.judge.judge(prompts, [self.text(row) for row in rows.tolist()])
            self.ledger.judge_calls += len(rows)
            self.ledger.judge_tokens += tokens_of(parts.judge) - spent
            table.unjudged[rows] = np.clip(value, -1.0, 1.0)
            value = shift(value, verdicts, config.judge_eta)
        return value

    def _play_out(self, rows: Ids, starts: Step) -> npt.NDArray[np.float32]:
        """Outcome f32 [L] of one sampled continuation of each state; its tokens are paid as value tokens."""
        parts, table, ledger = self._parts, self.table, self._parts.engine.ledger
        places, room = table.game[rows], parts.task.max_answer_tokens - table.length[rows]
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
        forwarded = play_out(parts.engine, starts, self._mask, draw, stop)
        ledger.value_tokens += ledger.decode_tokens - spent
        ledger.decode_tokens = spent
        np.add.at(self.spent, places, forwarded)
        return outcome


def _forwarded(table: StateTable, rows: Ids) -> int:
    return int(np.count_nonzero(table.slot[rows] >= 0))


def banned_tokens(student: Student) -> list[int]:
    """Ids that are never an answer's next token: specials except the end, and rows beyond the tokenizer."""
    tokenizer = student.tokenizer
    specials = {i for i in tokenizer.all_special_ids if i is not None and i != student.eos_id}
    return sorted(specials | set(range(len(tokenizer), student.vocab_size)))
