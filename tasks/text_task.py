"""What the tasks on questions in plain language share: splits, prompts with worked examples, demonstrations.

A question belongs to exactly one split. Where validation or test problems have no source of their own they
are cut from the training rows by a hash of the question, so that a question stays where it is when rows are
added or moved; and a question that test (then validation) holds is left out of the splits after it. Worked
examples shown in prompts are taken out of the training problems.

What a row means and how answers are compared is each task's own. The verifier is gold: a verdict says only
that the final answer has been stated.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import ANSWER_FORMATS
from tokenzero.tasks.option_checks import require
from tokenzero.tasks.problem import ONGOING, SPLITS, Problem, PublicProblem, Task, Verdict, check_split
from tokenzero.tasks.prompt_templates import open_template, with_examples
from tokenzero.tasks.text_rows import Paths, Row, as_paths, read_dataset, read_files

STATED = Verdict(True, None)
"""The final answer has been given; only the reference can score it."""

UNKNOWN_LENGTH = 1024
"""Length limit where there are no training answers to measure."""


@dataclass(frozen=True)
class TextConfig:
    """Settings of every task on text.

    train_files, validation_files, test_files: a path or several; JSONL, CSV or Parquet. dataset, subset: a
    data set for the package datasets instead, used when no files are given. validation_share, test_share:
    parts cut from the training rows for splits without a source. train, validation, test: at most so many
    problems of each split; None takes all. template: a name, or a text with {question}. answer_format:
    "hashes", "boxed" or "sentence" ("plain" where the task allows it). examples: worked examples before each
    question. seed: another cut, other examples. max_answer_tokens: length limit; 0 takes the longest training
    answer in characters.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    task: ClassVar[str] = "text task"

    train_files: Paths = ""
    validation_files: Paths = ""
    test_files: Paths = ""
    dataset: str = ""
    subset: str = ""
    validation_share: float = 0.05
    test_share: float = 0.0
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    template: str = "chain-of-thought"
    answer_format: str = "hashes"
    examples: int = 0
    seed: int = 0
    max_answer_tokens: int = 0

    def __post_init__(self) -> None:
        task = self.task
        _check_kinds(self)
        for name in ("examples", "seed", "max_answer_tokens"):
            require(task, self, getattr(self, name) >= 0, name, "use 0 or more")
        for name in SPLITS:
            most = getattr(self, name)
            require(task, self, most is None or most >= 1, name, "use 1 or more, or none for all")
        for name in ("validation_share", "test_share"):
            require(task, self, 0.0 <= getattr(self, name) < 1.0, name, "use 0 up to, but not, 1")
        if self.validation_share + self.test_share >= 1.0:
            raise InputError(
                f"{task} validation_share {self.validation_share} and test_share {self.test_share} leave "
                "nothing to train on; make their sum less than 1"
            )
        way_out = f"use one of {', '.join(ANSWER_FORMATS)}"
        require(task, self, self.answer_format in ANSWER_FORMATS, "answer_format", way_out)
        open_template(self.template, self.answer_format)

    def paths(self, split: str) -> tuple[str, ...]:
        """The files of a split."""
        return as_paths(getattr(self, f"{split}_files"))


def _check_kinds(config: TextConfig) -> None:
    """Raise InputError for a setting of the wrong kind: settings may come unread from a file."""
    for field in fields(config):
        value, default = getattr(config, field.name), field.default
        if field.name.endswith("_files"):
            ok, kind = _are_paths(value), "a path or a list of paths"
        elif default is None:
            ok, kind = value is None or type(value) is int, "a whole number or none"
            if isinstance(value, str) and field.name in SPLITS:
                kind += f"; a file is named in {field.name}_files"
        elif type(default) is float:
            ok, kind = type(value) in (int, float), "a number"
        else:
            ok, kind = type(value) is type(default), f"a value of type {type(default).__name__}"
        require(config.task, config, ok, field.name, f"give {kind}")


def _are_paths(value: object) -> bool:
    several = isinstance(value, list | tuple) and all(isinstance(path, str) and path for path in value)
    return isinstance(value, str) or several


@dataclass(frozen=True, slots=True)
class Question:
    """A row as a task reads it. options: one choice a line, or "". solution: what a demonstration shows;
    it ends by stating the reference. public_reference: a text that anyone may see, or "".
    """

    text: str
    solution: str
    reference: str
    tag: str
    options: str = ""
    public_reference: str = ""

    @property
    def key(self) -> str:
        """What makes two questions the same: their words, whatever the case and the white space."""
        return sha256(" ".join(self.text.casefold().split()).encode()).hexdigest()


class TextTask(Task):
    """Questions in plain language. Files are read when problems are first asked for."""

    public_verifier: ClassVar[bool] = False

    def __init__(self, config: TextConfig, name: str) -> None:
        self.config = config
        self.name = name
        self._template = open_template(config.template, config.answer_format)

    @abstractmethod
    def _read(self, row: Row) -> Question:
        """What a row says. Raises InputError naming its place and field."""

    @abstractmethod
    def _states_answer(self, answer: str) -> bool:
        """Whether an answer that may be unfinished has stated its result, so that nothing need follow."""

    @abstractmethod
    def _is_right(self, answer: str, reference: str) -> bool:
        """Whether a complete answer states the reference."""

    # ---- splits

    def _sources(self) -> dict[str, list[Row]]:
        """Rows by split, for the splits that have a source."""
        config = self.config
        files = {split: config.paths(split) for split in SPLITS}
        if any(files.values()):
            return {s: read_files(paths, f"{self.name} {s}_files") for s, paths in files.items() if paths}
        if config.dataset:
            rows = read_dataset(config.dataset, config.subset)
            return {split: rows[split] for split in SPLITS if split in rows}
        raise InputError(
            f"{self.name} has no questions; set train_files, validation_files or test_files, or dataset"
        )

    @cached_property
    def _questions(self) -> dict[str, dict[str, Question]]:
        """Split -> key -> question, before examples are taken out and sizes are limited."""
        rows = self._sources()
        pools = {split: [self._read(row) for row in rows[split]] for split in rows}
        drawn = self._cut(pools.pop("train", []), set(pools))
        seen: set[str] = set()
        splits: dict[str, dict[str, Question]] = {}
        for split in ("test", "validation", "train"):
            own = {}
            for question in pools.get(split, drawn[split]):
                if question.key not in seen:
                    seen.add(question.key)
                    own[question.key] = question
            splits[split] = own
        return splits

    def _cut(self, rows: Sequence[Question], sourced: set[str]) -> dict[str, list[Question]]:
        """Training rows by the split that the hash of their question puts them in."""
        test = 0.0 if "test" in sourced else self.config.test_share
        held_out = test + (0.0 if "validation" in sourced else self.config.validation_share)
        cut: dict[str, list[Question]] = {split: [] for split in SPLITS}
        for question in rows:
            place = self._draw("cut", question.key)
            cut["test" if place < test else "validation" if place < held_out else "train"].append(question)
        if held_out > test and not cut["validation"] and len(cut["train"]) > 1:
            # So few rows that the share caught none: the nearest one, or nothing could be held out at all.
            nearest = min(cut["train"], key=lambda question: self._draw("cut", question.key))
            cut["train"].remove(nearest)
            cut["validation"].append(nearest)
        return cut

    def _draw(self, purpose: str, key: str) -> float:
        """A number in [0, 1) that depends on the seed, the purpose and the question alone."""
        digest = sha256(f"{purpose}:{self.config.seed}:{key}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    @cached_property
    def _shown(self) -> tuple[Question, ...]:
        """The training questions that stand in prompts as worked examples."""
        pool, count = self._questions["train"], self.config.examples
        if count and len(pool) <= count:
            raise InputError(
                f"{self.name} examples is {count} and there are {len(pool)} training questions; "
                "set train_files with more, or fewer examples"
            )
        return tuple(pool[key] for key in sorted(pool, key=lambda key: self._draw("example", key))[:count])

    @cached_property
    def _training(self) -> tuple[Question, ...]:
        return self._own("train")

    def _own(self, split: str) -> tuple[Question, ...]:
        shown = {question.key for question in self._shown}
        own = [question for key, question in self._questions[split].items() if key not in shown]
        return tuple(own[: getattr(self.config, split)])

    @cached_property
    def _problems(self) -> dict[str, tuple[Problem, ...]]:
        return {split: tuple(self._problem(question) for question in self._own(split)) for split in SPLITS}

    def _problem(self, question: Question) -> Problem:
        public = PublicProblem(f"{self.name}:{question.key[:16]}", self._prompt(question), question.tag)
        return Problem(public, question.reference)

    def _prompt(self, question: Question) -> str:
        return with_examples(self._template.render(question.text, question.options), self._worked)

    @cached_property
    def _worked(self) -> list[tuple[str, str]]:
        return [(self._template.render(q.text, q.options), q.solution) for q in self._shown]

    # ---- the task

    @property
    def max_answer_tokens(self) -> int:
        """The configured limit, or the longest training answer in characters and one for the end mark."""
        if self.config.max_answer_tokens:
            return self.config.max_answer_tokens
        return max((len(question.solution) for question in self._training), default=UNKNOWN_LENGTH) + 1

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, in the order of their source. Raises InputError for an empty split."""
        problems = self._problems[check_split(split)]
        if not problems:
            share = "" if split == "train" else f" or raise {split}_share"
            raise InputError(f"{self.name} has no {split} problems; set {split}_files{share}")
        return problems

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Finished, and never scored, once the answer states its result and ends that line; else ongoing."""
        return STATED if self._states_answer(answer) else ONGOING

    def score(self, problem: Problem, answer: str) -> float:
        """1.0 if the answer's final statement is the reference, else 0.0. Raises InputError for a problem
        without its reference.
        """
        if problem.reference is None:
            raise InputError(
                f"problem {problem.public.id!r} comes without its reference; take it from problems()"
            )
        return float(self._is_right(answer, problem.reference))

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Training problems with their solutions, each used once before any is used again."""
        problems = self.problems("train")
        chosen = np.resize(rng.permutation(len(problems)), count).tolist()
        return [(problems[i].public.prompt, self._training[i].solution) for i in chosen]

    def tokenizer_spec(self) -> dict[str, Any]:
        """The characters of all prompts and of the training solutions, for a small student from scratch;
        a pretrained one brings its own tokenizer.
        """
        seen = set(" \n").union(*(question.solution for question in self._training))
        seen.update(*(problem.public.prompt for own in self._problems.values() for problem in own))
        return {"kind": "characters", "alphabet": "".join(sorted(seen))}
