"""What binds the parts: a ``mcts.Evaluator`` made of the student, teachers, value head, judge and public
verdict.

One ``LeafEvaluator`` serves one batch of games. It remembers every state it has seen, so a state is forwarded
once however often searches come back to it (the ledger counts the second time as cached). It sees
``PublicProblem``s only; gold answers can reach it solely through a ``Grader``, which self-play on training
problems passes in and nothing else does. It does not choose moves and does not learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts import Evaluation
from tokenzero.mcts.errors import InputError
from tokenzero.policy.decoding import Sampling, sample
from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.state_table import StateTable
from tokenzero.tasks import PublicProblem, Task
from tokenzero.teachers import Proposal, Teacher, mix
from tokenzero.value import Judge, ValueHead
from tokenzero.value.judge import shift
from tokenzero.value.rollout import Rollout, blend

Grader = Callable[[int, str], float]
"""(game index, finished answer) -> score in [0, 1]; bound to training problems by self-play."""


@dataclass(frozen=True)
class LeafConfig:
    """How a leaf is priced and which actions it offers.

    ``prior_temperature`` divides the student's logits; ``rollout_share`` (rho) blends a sampled play-out's
    outcome into the value; ``judge_eta`` scales the judge's shift; ``teacher_beta`` is the teachers' share of
    the prior.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    prior_temperature: float = 1.0
    rollout_share: float = 0.0
    judge_eta: float = 0.0
    teacher_beta: float = 0.0

    def __post_init__(self) -> None:
        if self.prior_temperature <= 0:
            raise InputError(f"leaf.prior_temperature is {self.prior_temperature}; give a number above 0")
        for name in ("rollout_share", "judge_eta", "teacher_beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"leaf.{name} is {getattr(self, name)}; give a number from 0 to 1")


@dataclass
class Parts:
    """Everything a leaf's evaluation may consult. Absent parts cost nothing."""

    student: Student
    engine: Engine
    task: Task
    value_head: ValueHead | None = None
    teachers: Sequence[Teacher] = ()
    teacher_weights: Sequence[float] = ()
    judge: Judge | None = None
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.student.tokenizer)


class LeafEvaluator:
    """Evaluates leaves for a batch of games; implements ``mcts.Evaluator``.

    ``ledger`` counts verifier, judge and teacher work and cache hits; the engine counts its own forwards.
    ``spent[g]`` is the number of tokens forwarded for game g, prompt included.
    """

    def __init__(self, parts: Parts, config: LeafConfig, candidates: int, rng: np.random.Generator) -> None:
        self.ledger = Ledger()
        self._parts = parts
        self._config = config
        self._candidates = min(candidates, parts.student.vocab_size)
        self._rng = rng
        self._grader: Grader | None = None
        self._mark = parts.engine.ledger.copy()
        self.table = StateTable(0, self._candidates, 1 + len(parts.teachers))
        self._children: dict[tuple[int, int], int] = {}
        self._banned = banned_tokens(parts.student)

    def start(self, problems: Sequence[PublicProblem], grader: Grader | None = None) -> Ids:
        """Forward the prompts and open one game for each problem; returns the root states, i64 [G].

        Raises:
            InputError: a prompt that is empty, too long or outside the vocabulary.
        """
        parts = self._parts
        room = parts.student.max_length - parts.task.max_answer_tokens
        self._prompts = [encode_prompt(parts.student.tokenizer, problem.prompt, room) for problem in problems]
        self._problems = list(problems)
        self._grader = grader
        self._mark = parts.engine.ledger.copy()
        self._children.clear()
        self.table = StateTable(len(problems), self._candidates, 1 + len(parts.teachers))
        self.spent = np.asarray([len(prompt) for prompt in self._prompts], np.int64)
        roots = np.asarray([self.table.add(game, -1, -1, "") for game in range(len(problems))], np.int64)
        step = parts.engine.prefill(self._prompts)
        self.table.slot[roots] = step.states
        self._fill(roots, step)
        return roots

    def expand(self, states: Ids, actions: Ids) -> Evaluation:
        """Children of ``states`` by ``actions`` (both i64 [L]); only states never seen before are
        forwarded.
        """
        rows = np.empty(len(states), np.int64)
        fresh: dict[int, None] = {}
        for index, key in enumerate(zip(states.tolist(), actions.tolist(), strict=True)):
            row = self._children.get(key)
            if row is None:
                row = self._children[key] = self._add(*key)
                if not self.table.terminal[row] or np.isnan(self.table.value[row]):
                    fresh[row] = None
            elif self.table.slot[row] >= 0 or row in fresh:
                self.ledger.cached_tokens += 1
            rows[index] = row
        if fresh:
            self._forward(np.asarray(list(fresh), np.int64))
        return self.view(rows)

    def view(self, rows: Ids) -> Evaluation:
        """The stored evaluation of states already expanded."""
        table = self.table
        return Evaluation(
            actions=table.actions[rows],
            logits=table.logits[rows],
            value=table.value[rows],
            reward=np.zeros(len(rows), np.float32),
            terminal=table.terminal[rows],
            states=rows,
        )

    def release(self, states: Ids) -> None:
        """Forget states, with or after everything below them; a later visit forwards them again."""
        for row in states.tolist():
            self._children.pop((int(self.table.parent[row]), int(self.table.token[row])), None)
        slots = self.table.slot[states]
        self._parts.engine.release(slots[slots >= 0])
        self.table.slot[states] = -1

    def close(self) -> Ledger:
        """Free the games' states in the engine and return everything spent since ``start``."""
        slots = self.table.slot[: self.table.size]
        self._parts.engine.release(slots[slots >= 0])
        self.table.slot[:] = -1
        ledger = self._parts.engine.ledger.since(self._mark)
        ledger.add(self.ledger)
        return ledger

    def sequence(self, row: int) -> list[int]:
        """Prompt and answer tokens of a state."""
        return self._prompts[int(self.table.game[row])] + self.table.answer(row)

    def prompt(self, game: int) -> list[int]:
        """Prompt tokens of a game."""
        return self._prompts[game]

    def _add(self, parent: int, token: int) -> int:
        """A new state: its text, whether it ends the answer, and its outcome if that is known without the
        student.
        """
        parts, table = self._parts, self.table
        game = int(table.game[parent])
        before = [] if parts.pieces.independent else table.answer(parent)
        text = parts.pieces.append(table.text[parent], before, token)
        row = table.add(game, parent, token, text)
        full = bool(table.length[row] >= parts.task.max_answer_tokens)
        score, ended = self._verdict(game, text, token, full)
        if ended:
            table.terminal[row] = True
            # Without a verdict the student's own value must do: NaN asks for a forward.
            table.value[row] = np.nan if score is None else 2.0 * score - 1.0
        return row

    def _verdict(self, game: int, text: str, token: int, full: bool) -> tuple[float | None, bool]:
        """Score in [0, 1] of an answer, None if nobody here can tell, and whether ``token`` ended it."""
        task = self._parts.task
        verdict = task.verdict(self._problems[game], text)
        self.ledger.verifier_calls += 1
        if not (verdict.done or full or token == self._parts.student.eos_id):
            return None, False
        score = verdict.score
        if score is None and self._grader is not None:
            score = self._grader(game, text)
            self.ledger.verifier_calls += 1
        if score is None and task.public_verifier:
            score = 0.0
        return score, True

    def _forward(self, rows: Ids) -> None:
        table = self.table
        step = self._parts.engine.extend(table.slot[table.parent[rows]], table.token[rows])
        table.slot[rows] = step.states
        np.add.at(self.spent, table.game[rows], 1)
        self._fill(rows, step)

    @torch.inference_mode()
    def _fill(self, rows: Ids, step: Step) -> None:
        table = self.table
        logits = step.logits.clone()
        logits[:, self._banned] = -torch.inf
        log_prior = torch.log_softmax(logits / self._config.prior_temperature, dim=-1)
        top, actions = (tensor.cpu().numpy() for tensor in log_prior.topk(self._candidates, dim=-1))
        value = self._values(rows, step)
        if np.isnan(top).any() or np.isnan(value).any():
            raise InputError(
                "the model's output is not a number; its weights are damaged or training diverged"
            )
        table.actions[rows] = np.where(np.isfinite(top), actions, -1)
        table.logits[rows] = np.where(np.isfinite(top), top, np.float32(np.finfo(np.float32).min))
        if self._parts.teachers and self._config.teacher_beta > 0:
            self._mix_teachers(rows[~table.terminal[rows]])
        # An end that nobody verified must not pass for a solution, whose value is 1.
        highest = np.where(table.terminal[rows], np.nextafter(np.float32(1), np.float32(0)), np.float32(1))
        table.value[rows] = np.clip(value, np.float32(-1), highest)

    def _values(self, rows: Ids, step: Step) -> npt.NDArray[np.float32]:
        """What the parts think of states just forwarded, f32 [L]: value head, play-outs, judge."""
        parts, table, config = self._parts, self.table, self._config
        value = np.zeros(len(rows), np.float32)
        if parts.value_head is not None:
            raw = parts.value_head(step.hidden.float())
            value = parts.value_head.value(raw).cpu().numpy().astype(np.float32)
        going = np.flatnonzero(~table.terminal[rows])
        scored = self._grader is not None or parts.task.public_verifier
        if config.rollout_share > 0 and scored and going.size:
            pick = torch.from_numpy(going).to(step.logits.device)
            starts = Step(step.states[going], step.logits[pick], step.hidden[pick])
            outcome = Rollout(lambda _, rng: self._play_out(rows[going], starts, rng))(going, self._rng)
            value[going] = blend(value[going], outcome, config.rollout_share)
        if parts.judge is not None and config.judge_eta > 0:
            prompts = [self._problems[game].prompt for game in table.game[rows].tolist()]
            verdicts = parts.judge.judge(prompts, [table.text[row] for row in rows.tolist()])
            self.ledger.judge_calls += len(rows)
            value = shift(value, verdicts, config.judge_eta)
        return value

    def _mix_teachers(self, rows: Ids) -> None:
        parts, table = self._parts, self.table
        if not rows.size:
            return
        sequences = [self.sequence(row) for row in rows.tolist()]
        proposals = [teacher.propose(sequences, self._candidates) for teacher in parts.teachers]
        self.ledger.teacher_tokens += sum(proposal.tokens for proposal in proposals)
        mixture = mix(
            table.actions[rows],
            np.exp(table.logits[rows]),
            [self._allowed(proposal) for proposal in proposals],
            np.asarray(parts.teacher_weights, np.float64),
            self._config.teacher_beta,
            self._candidates,
        )
        table.actions[rows] = mixture.actions
        table.logits[rows] = mixture.logits
        table.responsibility[rows] = mixture.responsibility

    def _allowed(self, proposal: Proposal) -> Proposal:
        """The proposal without tokens that are never an answer's next: a teacher does not know which they
        are.
        """
        kept = (proposal.actions >= 0) & ~np.isin(proposal.actions, self._banned)
        order = np.argsort(~kept, axis=1, kind="stable")  # pads go to the end
        actions = np.where(kept, proposal.actions, -1)
        probs = np.where(kept, proposal.probs, np.float32(0))
        return Proposal(
            np.take_along_axis(actions, order, 1), np.take_along_axis(probs, order, 1), proposal.tokens
        )

    def _play_out(self, rows: Ids, starts: Step, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Outcome f32 [L] of one sampled continuation of each state; its tokens are paid as value tokens."""
        parts, table, ledger = self._parts, self.table, self._parts.engine.ledger
        games = table.game[rows].tolist()
        texts = [table.text[row] for row in rows.tolist()]
        answers = [[] if parts.pieces.independent else table.answer(row) for row in rows.tolist()]
        room = (parts.task.max_answer_tokens - table.length[rows]).tolist()
        outcome = np.full(len(rows), -1.0, np.float32)

        def stop(index: int, tokens: list[int]) -> bool:
            before = [] if parts.pieces.independent else answers[index] + tokens[:-1]
            texts[index] = parts.pieces.append(texts[index], before, tokens[-1])
            game = games[index]
            verdict, ended = self._verdict(game, texts[index], tokens[-1], len(tokens) >= room[index])
            if ended and verdict is not None:
                outcome[index] = 2.0 * verdict - 1.0
            return ended

        spent = ledger.decode_tokens
        limit = parts.task.max_answer_tokens
        tokens, _ = sample(
            parts.engine, starts, Sampling(), rng, stop, banned=self._banned, max_new_tokens=limit
        )
        ledger.value_tokens += ledger.decode_tokens - spent
        ledger.decode_tokens = spent
        np.add.at(self.spent, table.game[rows], [len(answer) - 1 for answer in tokens])
        return outcome


def banned_tokens(student: Student) -> list[int]:
    """Ids that are never an answer's next token: specials except the end, and rows beyond the tokenizer."""
    tokenizer = student.tokenizer
    specials = {i for i in tokenizer.all_special_ids if i is not None and i != student.eos_id}
    return sorted(specials | set(range(len(tokenizer), student.vocab_size)))
