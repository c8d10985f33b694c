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
import torch

from tokenzero.mcts import Evaluation
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Student
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.state_table import StateTable
from tokenzero.tasks import PublicProblem, Task
from tokenzero.teachers import Teacher, mix
from tokenzero.value import Judge, ValueHead
from tokenzero.value.judge import shift
from tokenzero.value.rollout import blend

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
        self.table = StateTable(len(problems), self._candidates, 1 + len(parts.teachers))
        self.spent = np.asarray([len(prompt) for prompt in self._prompts], np.int64)
        roots = np.asarray([self.table.add(game, -1, -1, "") for game in range(len(problems))], np.int64)
        step = parts.engine.prefill(self._prompts)
        self.table.slot[roots] = step.states
        self._fill(roots, step.logits, step.hidden)
        return roots

    def expand(self, states: Ids, actions: Ids) -> Evaluation:
        """Children of ``states`` by ``actions`` (both i64 [L]); only states never seen before are
        forwarded.
        """
        rows = np.empty(len(states), np.int64)
        fresh: list[int] = []
        for index, key in enumerate(zip(states.tolist(), actions.tolist(), strict=True)):
            row = self._children.get(key)
            if row is None:
                row = self._children[key] = self._add(*key)
                if not self.table.terminal[row] or np.isnan(self.table.value[row]):
                    fresh.append(row)
            elif self.table.slot[row] >= 0:
                self.ledger.cached_tokens += 1
            rows[index] = row
        if fresh:
            self._forward(np.asarray(fresh, np.int64))
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
        """Forget states; a later visit would forward them again."""
        for row in states.tolist():
            self._children.pop((int(self.table.parent[row]), int(self.table.token[row])), None)
        slots = self.table.slot[states]
        self._parts.engine.release(slots[slots >= 0])
        self.table.slot[states] = -1

    def close(self) -> Ledger:
        """Free the games' states in the engine and return everything spent since ``start``."""
        slots = self.table.slot[: self.table.size]
        self._parts.engine.release(slots[slots >= 0])
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
        text = parts.pieces.append(table.text[parent], table.answer(parent), token)
        row = table.add(game, parent, token, text)
        verdict = parts.task.verdict(self._problems[game], text)
        self.ledger.verifier_calls += 1
        ended = (
            verdict.done or token == parts.student.eos_id or table.length[row] >= parts.task.max_answer_tokens
        )
        if not ended:
            return row
        table.terminal[row] = True
        score = verdict.score
        if score is None and self._grader is not None:
            score = self._grader(game, text)
            self.ledger.verifier_calls += 1
        if score is None and parts.task.public_verifier:
            score = 0.0
        # Without a verdict the student's own value must do: NaN asks for a forward.
        table.value[row] = np.nan if score is None else 2.0 * score - 1.0
        return row

    def _forward(self, rows: Ids) -> None:
        table = self.table
        step = self._parts.engine.extend(table.slot[table.parent[rows]], table.token[rows])
        table.slot[rows] = step.states
        np.add.at(self.spent, table.game[rows], 1)
        self._fill(rows, step.logits, step.hidden)

    @torch.inference_mode()
    def _fill(self, rows: Ids, logits: torch.Tensor, hidden: torch.Tensor) -> None:
        parts, table, config = self._parts, self.table, self._config
        logits = logits.clone()
        logits[:, self._banned] = -torch.inf
        log_prior = torch.log_softmax(logits / config.prior_temperature, dim=-1)
        top, actions = (tensor.cpu().numpy() for tensor in log_prior.topk(self._candidates, dim=-1))
        table.actions[rows] = np.where(np.isfinite(top), actions, -1)
        table.logits[rows] = np.where(np.isfinite(top), top, np.float32(np.finfo(np.float32).min))
        if parts.teachers and config.teacher_beta > 0:
            self._mix_teachers(rows)
        value = np.zeros(len(rows), np.float32)
        if parts.value_head is not None:
            value = parts.value_head.value(parts.value_head(hidden.float())).cpu().numpy().astype(np.float32)
        if config.rollout_share > 0:
            outcome = self._rollout(rows, logits)
            value = blend(value, outcome, config.rollout_share).astype(np.float32)
        if parts.judge is not None and config.judge_eta > 0:
            prompts = [self._problems[g].prompt for g in table.game[rows].tolist()]
            verdicts = parts.judge.judge(prompts, [table.text[row] for row in rows.tolist()])
            self.ledger.judge_calls += len(rows)
            value = shift(value, verdicts, config.judge_eta).astype(np.float32)
        table.value[rows] = np.clip(value, -1.0, 1.0)

    def _mix_teachers(self, rows: Ids) -> None:
        parts, table = self._parts, self.table
        sequences = [self.sequence(row) for row in rows.tolist()]
        proposals = [teacher.propose(sequences, self._candidates) for teacher in parts.teachers]
        self.ledger.teacher_tokens += sum(proposal.tokens for proposal in proposals)
        mixture = mix(
            table.actions[rows],
            np.exp(table.logits[rows]),
            proposals,
            np.asarray(parts.teacher_weights, np.float64),
            self._config.teacher_beta,
            self._candidates,
        )
        table.actions[rows] = mixture.actions
        table.logits[rows] = mixture.logits
        table.responsibility[rows] = mixture.responsibility

    def _rollout(self, rows: Ids, logits: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Play each state to its end by sampling the student; outcomes f32 [L]. Paid as value tokens."""
        parts, table = self._parts, self.table
        engine = parts.engine
        before = engine.ledger.decode_tokens
        outcome = np.zeros(len(rows), np.float32)
        live = np.flatnonzero(~table.terminal[rows])
        slots, made = table.slot[rows].copy(), []
        texts = [table.text[row] for row in rows.tolist()]
        answers = [table.answer(row) for row in rows.tolist()]
        games = table.game[rows]
        while live.size:
            noise = torch.from_numpy(self._rng.gumbel(size=(len(live), logits.shape[1])).astype(np.float32))
            tokens = (logits.cpu() + noise).argmax(dim=-1).numpy().astype(np.int64)
            going: list[int] = []
            for index, token in zip(live.tolist(), tokens.tolist(), strict=True):
                texts[index] = parts.pieces.append(texts[index], answers[index], token)
                answers[index].append(token)
                verdict = parts.task.verdict(self._problems[int(games[index])], texts[index])
                self.ledger.verifier_calls += 1
                if verdict.done and verdict.score is not None:
                    outcome[index] = 2.0 * verdict.score - 1.0
                elif (
                    verdict.done
                    or token == parts.student.eos_id
                    or len(answers[index]) >= parts.task.max_answer_tokens
                ):
                    if self._grader is not None:
                        outcome[index] = 2.0 * self._grader(int(games[index]), texts[index]) - 1.0
                    elif parts.task.public_verifier:
                        outcome[index] = -1.0
                else:
                    going.append(index)
            keep = np.isin(live, going)
            live = live[keep]
            if live.size:
                step = engine.extend(slots[live], tokens[keep])
                np.add.at(self.spent, games[live], 1)
                slots[live] = step.states
                made.append(step.states)
                logits = step.logits.clone()
                logits[:, self._banned] = -torch.inf
        for states in reversed(made):
            engine.release(states)
        forwarded = engine.ledger.decode_tokens - before
        engine.ledger.decode_tokens -= forwarded
        engine.ledger.value_tokens += forwarded
        return outcome


def banned_tokens(student: Student) -> list[int]:
    """Ids that are never an answer's next token: specials except the end, and rows beyond the tokenizer."""
    tokenizer = student.tokenizer
    specials = {i for i in tokenizer.all_special_ids if i is not None and i != student.eos_id}
    return sorted(specials | set(range(len(tokenizer), student.vocab_size)))
