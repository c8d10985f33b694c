"""Tiny tasks whose answers are written in steps, and parts to play them, for tests of step-level methods."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
import torch
from tiny import Mirror, make_student, tree_engine

from tokenzero.selfplay.evaluator import Parts
from tokenzero.tasks import PublicProblem, Task, Verdict
from tokenzero.value import ValueHead

LETTERS = "ab;"
PROMPTS = ("ab", "ba", "a;b", "bba", "aab", "b")
PROBLEMS = [PublicProblem(prompt, prompt) for prompt in PROMPTS]


class Lines(Mirror):
    """Steps of letters that end with a semicolon. Only the end mark and lack of room end an answer."""

    public_verifier: ClassVar[bool] = False
    name = "lines"

    @property
    def max_answer_tokens(self) -> int:
        return 9

    def steps(self, answer: str) -> int:
        return answer.count(";")

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        return Verdict(False, None)

    def tokenizer_spec(self) -> dict[str, Any]:
        return {"kind": "characters", "alphabet": LETTERS}


class Balanced(Lines):
    """Anyone can check an answer: it is right as soon as it is two steps with as many of each letter, none of
    them empty, and wrong as soon as that cannot be any more.
    """

    public_verifier: ClassVar[bool] = True
    name = "balanced"

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if answer.startswith(";") or ";;" in answer or answer.count(";") > 2:
            return Verdict(True, 0.0)
        if answer.count(";") < 2:
            return Verdict(False, None)
        return Verdict(True, float(answer.count("a") == answer.count("b")))


def make_head(width: int, seed: int = 5) -> ValueHead:
    """A value head with an opinion."""
    head = ValueHead(width)
    head.last.weight.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(seed))
    return head


def make_parts(task: Task | None = None, **others: Any) -> Parts:
    task = task or Lines()
    student = make_student(spec=task.tokenizer_spec())
    head = others.pop("value_head", make_head(student.hidden_size))
    return Parts(student=student, engine=tree_engine(student), task=task, value_head=head, **others)


def watched(parts: Parts) -> Counter[int]:
    """How often each state of the engine is held, from now on; giving back what nobody holds is an error."""
    held: Counter[int] = Counter()
    engine: Any = parts.engine

    def taking(forward: Any) -> Any:
        def taken(*arguments: Any) -> Any:
            step = forward(*arguments)
            held.update(step.states.tolist())
            return step

        return taken

    def release(states: np.ndarray[Any, Any], give_back: Any = engine.release) -> None:
        held.subtract(states.tolist())
        assert min(held.values(), default=0) >= 0
        give_back(states)

    engine.prefill, engine.extend, engine.release = taking(engine.prefill), taking(engine.extend), release
    return held
