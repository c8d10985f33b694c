"""Any procedural data set of the package reasoning-gym, as a task with a gold verifier.

Item i of a data set is drawn from seed + i alone, so splits made with close seeds share items. Here each
split has its own far-away range of seeds, and a question that another split already holds is passed over.

The package is optional (`pip install reasoning-gym`). This file does not decide when an answer is finished:
only the end mark or the length limit does.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.problem import ONGOING, Problem, PublicProblem, Task, Verdict, check_split
from tokenzero.tasks.reasoning_gym_scoring import SCORER_ERRORS, raw_score

# Seeds of one split lie in a block of this size; with the limits below they stay under 2^32, as numpy
# demands.
SEED_BLOCK = 1_000_000
MAX_SEED = 1_400
MAX_SIZE = 40_000
_DRAWS_PER_PROBLEM = 20


@dataclass(frozen=True)
class ReasoningGymConfig:
    """train, validation, test: problems per split (fewer if the data set has too few different questions;
    test and validation are served first). seed: 0 to 1400; different seeds give different items. partial:
    keep partial credit instead of scoring 1.0 or 0.0. settings: passed to the data set's own configuration.
    max_answer_tokens: length limit in characters; 0 takes twice the longest training answer. short: prompts
    without the words with which all training questions begin and end, and with a colon at the end. shuffled:
    demonstrations show the answers of other problems, which teaches how answers are written and no more.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    train: int = 1000
    validation: int = 100
    test: int = 200
    seed: int = 0
    partial: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_answer_tokens: int = 0
    short: bool = False
    shuffled: bool = False

    def __post_init__(self) -> None:
        limits = {"train": MAX_SIZE, "validation": MAX_SIZE, "test": MAX_SIZE, "seed": MAX_SEED}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InputError(f"reasoning-gym {name} is {value}; use 0 to {most}")
        if self.max_answer_tokens < 0:
            raise InputError(f"reasoning-gym max_answer_tokens is {self.max_answer_tokens}; use 0 or more")
        for name in ("seed", "size"):
            if name in self.settings:
                raise InputError(
                    f"reasoning-gym settings hold {name!r}; set the task's own seed and split sizes"
                )


class ReasoningGymTask(Task):
    """One data set. Problems are generated when first asked for. Entries with their answers stay inside the
    task, by problem id; `score` reads them only for a `Problem` that carries its reference.

    scorer_failures counts the answers on which the package's scorer raised; they score 0.0.
    """

    public_verifier: ClassVar[bool] = False

    def __init__(self, dataset: str, config: ReasoningGymConfig | None = None) -> None:
        self.dataset = dataset
        self.config = config or ReasoningGymConfig()
        self.name = f"reasoning-gym:{dataset}"
        self.scorer_failures = 0
        self._package = _load_package()
        known = sorted(self._package.factory.DATASETS)
        if dataset not in known:
            near = get_close_matches(dataset, known, n=1)
            way_out = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
            raise InputError(f"reasoning-gym has no data set {dataset!r}; {way_out}")

    @property
    def max_answer_tokens(self) -> int:
        """The configured limit, or twice the longest training answer and one for the end mark."""
        longest = max((len(answer) for _, answer in self._training_answers), default=64)
        return self.config.max_answer_tokens or 2 * longest + 1

    @cached_property
    def _entries(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Split -> problem id -> the package's entry."""
        seen: set[str] = set()
        blocks = enumerate(("test", "validation", "train"))
        return {split: self._draw(block, split, seen) for block, split in blocks}

    def _draw(self, block: int, split: str, seen: set[str]) -> dict[str, Mapping[str, Any]]:
        size = getattr(self.config, split)
        draws = _DRAWS_PER_PROBLEM * size + 100
        source = self._source((3 * self.config.seed + block) * SEED_BLOCK, draws)
        entries: dict[str, Mapping[str, Any]] = {}
        for i in range(draws):
            if len(entries) == size:
                break
            entry = source[i]
            if entry["question"] not in seen:
                seen.add(entry["question"])
                entries[f"{self.name}:{split}:{i}"] = entry
        return entries

    def _source(self, seed: int, size: int) -> Any:
        try:
            return self._package.create_dataset(self.dataset, **self.config.settings, seed=seed, size=size)
        except (AssertionError, TypeError, ValueError) as error:
            raise InputError(
                f"reasoning-gym {self.dataset} refuses settings {dict(self.config.settings)}: {error}"
            ) from error

    @cached_property
    def _scorer(self) -> Any:
        return self._source(0, 1).score_answer

    @cached_property
    def _problems(self) -> dict[str, tuple[Problem, ...]]:
        return {
            split: tuple(
                Problem(PublicProblem(name, self._prompt(entry["question"]), self.name), _reference(entry))
                for name, entry in entries.items()
            )
            for split, entries in self._entries.items()
        }

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """The text with which all training questions begin, and that with which the rest of them ends."""
        questions = [entry["question"] for entry in self._entries["train"].values()]
        begin = _shared_beginning(questions)
        end = _shared_beginning([question[len(begin) :][::-1] for question in questions])[::-1]
        return begin, end

    def _prompt(self, question: str) -> str:
        if not self.config.short:
            return question
        begin, end = self._frame
        return f"{question.removeprefix(begin).removesuffix(end).strip()} :"

    @cached_property
    def _training_answers(self) -> list[tuple[str, str]]:
        return [
            (self._prompt(entry["question"]), entry["answer"])
            for entry in self._entries["train"].values()
            if isinstance(entry["answer"], str)
        ]

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split; references are gold answers, or the metadata as JSON if there is none."""
        return self._problems[check_split(split)]

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Always ongoing: nothing about an answer can be said from the statement alone."""
        return ONGOING

    def score(self, problem: Problem, answer: str) -> float:
        """The data set's own score: 1.0 for full marks, else 0.0; with partial anything in [0, 1].

        Raises InputError for a problem that is not this task's own or comes without its reference.
        """
        entry = next((e[problem.public.id] for e in self._entries.values() if problem.public.id in e), None)
        if entry is None or problem.reference is None or problem.reference != _reference(entry):
            raise InputError(
                f"problem {problem.public.id!r} is not one of {self.name} with its reference; "
                "take it from problems()"
            )
        try:
            raw = raw_score(self.dataset, self._scorer, answer, entry)
        except SCORER_ERRORS:
            self.scorer_failures += 1
            return 0.0
        if self.config.partial:
            return min(1.0, max(0.0, raw))
        return float(raw >= 1.0)

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Training problems, each used once before any is used again, with their reference answers; with
        `shuffled`, each with the reference answer of a random training problem.
        """
        pairs = self._training_answers
        if not pairs:
            raise InputError(f"{self.name} has no training answers to demonstrate; use another data set")
        shown = [pairs[i] for i in np.resize(rng.permutation(len(pairs)), count)]
        if not self.config.shuffled:
            return shown
        others = rng.integers(len(pairs), size=count).tolist()
        return [(prompt, pairs[i][1]) for (prompt, _), i in zip(shown, others, strict=True)]

    def tokenizer_spec(self) -> dict[str, Any]:
        """The characters of the training prompts and answers."""
        seen = {" "}.union(*(answer for _, answer in self._training_answers))
        seen.update(*(problem.public.prompt for problem in self.problems("train")))
        return {"kind": "characters", "alphabet": "".join(sorted(seen))}


def _load_package() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise InputError("reasoning-gym is not installed; run pip install reasoning-gym") from error


def _reference(entry: Mapping[str, Any]) -> str:
    answer = entry["answer"]
    return answer if isinstance(answer, str) else json.dumps(entry["metadata"], default=str, sort_keys=True)


def _shared_beginning(texts: Sequence[str]) -> str:
    """The longest text with which all ``texts`` begin, up to the last white space in it."""
    first, last = min(texts, default=""), max(texts, default="")  # what these two share, all do
    pairs = enumerate(zip(first, last, strict=False))
    shared = first[: next((place for place, (a, b) in pairs if a != b), len(first))]
    return shared[: len(shared) - len(re.split(r"\s", shared)[-1])]
