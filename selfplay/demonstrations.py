"""A task's weak demonstrations: sequences for the warm start, episodes for the value head's first lesson.

They teach the writing, and what random play is worth. They are made anew from their seed whenever a run
starts or resumes, and never stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenzero.policy.pretrain import Example
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.episode import Episode
from tokenzero.tasks import Problem, PublicProblem, Task


def demonstrate(task: Task, student: Student, count: int, rng: np.random.Generator) -> list[Episode]:
    """``count`` demonstrations on training problems, each position's target being the move that was made.

    The outcome is the public verdict's, or the task's score where only gold can tell.
    """
    pairs = task.demonstrations(count, rng) if count else []
    if not pairs:
        return []
    tokenizer = student.tokenizer
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    prompts = {prompt: encode_prompt(tokenizer, prompt) for prompt, _ in pairs}
    episodes = []
    known: dict[str, Problem] = {}
    for (prompt, answer), tokens in zip(pairs, answers, strict=True):
        score = task.verdict(PublicProblem("", prompt), answer).score
        if score is None:
            known = known or {problem.public.prompt: problem for problem in task.problems("train")}
            score = task.score(known[prompt], answer)
        episodes.append(_episode(prompt, answer, prompts[prompt], tokens, score))
    return episodes


def examples(demonstrations: Sequence[Episode], student: Student) -> list[Example]:
    """The demonstrations as whole sequences, each closed by the end mark."""
    end = [] if student.eos_id is None else [student.eos_id]
    return [Example(episode.tokens + end, episode.prompt_len) for episode in demonstrations]


def _episode(prompt: str, answer: str, head: list[int], tail: list[int], score: float) -> Episode:
    return Episode(
        problem="",
        prompt=prompt,
        answer=answer,
        tokens=head + tail,
        prompt_len=len(head),
        positions=[len(head) - 1 + index for index in range(len(tail))],
        actions=[[token] for token in tail],
        weights=[[1.0]] * len(tail),
        root_values=[0.0] * len(tail),
        attribution=[[1.0]] * len(tail),
        outcome=2.0 * score - 1.0,
        forwarded_tokens=0,
        simulations=0,
        policy_version=0,
        seed=0,
    )
