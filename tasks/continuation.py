"""Text to go on with: the beginning of a window of a corpus is the prompt, and what follows it there the
reference.

No program can say whether a text is good, so no answer is ever finished before its length limit and nothing
can be verified at test time. Without a corpus there are no problems, and any prompt may still be continued.
How likely and how repetitive texts are is measured elsewhere (``value.text_quality``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig, TokenizerConfig
from tokenzero.tasks.option_checks import require
from tokenzero.tasks.problem import (
    ONGOING,
    SPLITS,
    Automaton,
    Ids,
    Problem,
    PublicProblem,
    Task,
    Verdict,
    Verdicts,
    check_split,
)

if TYPE_CHECKING:
    from tokenzero.policy.corpora import Corpus


@dataclass(frozen=True)
class ContinuationConfig:
    """Windows of ``prompt_tokens`` + ``tokens`` tokens of ``corpus``, side by side and in an order drawn with
    ``seed``; None of ``windows`` takes all of a split. ``tokens`` is also the length limit of answers.

    ``corpus`` may be given as a mapping of its fields, as settings files have it; one with neither path nor
    dataset stands for no corpus.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    task: ClassVar[str] = "continuation"

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    prompt_tokens: int = 32
    tokens: int = 96
    windows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", _corpus_config(self.corpus))
        for name in ("prompt_tokens", "tokens"):
            value = getattr(self, name)
            require(self.task, self, type(value) is int and value >= 1, name, "use a whole number from 1 on")
        few = self.windows is None or (type(self.windows) is int and self.windows >= 1)
        require(self.task, self, few, "windows", "use 1 or more, or none for all")
        require(self.task, self, type(self.seed) is int and self.seed >= 0, "seed", "use 0 or more")


def _corpus_config(given: CorpusConfig | Mapping[str, Any]) -> CorpusConfig:
    """The record, or the record of a mapping's fields. Raises InputError for fields that it does not have."""
    if isinstance(given, CorpusConfig):
        return given
    try:
        options = dict(given)
        if isinstance(options.get("tokenizer"), Mapping):
            options["tokenizer"] = TokenizerConfig(**options["tokenizer"])
        return CorpusConfig(**options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        known = ", ".join(one.name for one in fields(CorpusConfig))
        raise InputError(f"continuation corpus is {given!r}; give a mapping with any of {known}") from error


class _GoesOn:
    """Says of every answer that it may go on."""

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        nothing = np.zeros(len(problems), np.int64)
        return nothing, nothing

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        return states, Verdicts(np.zeros(len(states), np.bool_), np.full(len(states), np.nan))


class ContinuationTask(Task):
    """Windows of a corpus to be continued. The corpus is opened when problems are first asked for, unless an
    open one is given."""

    public_verifier: ClassVar[bool] = False
    likelier_is_better: ClassVar[bool] = True

    def __init__(
        self,
        config: ContinuationConfig | None = None,
        name: str = "continuation",
        corpus: Corpus | None = None,
    ) -> None:
        self.config = config or ContinuationConfig()
        self.name = name
        self._given = corpus

    @property
    def max_answer_tokens(self) -> int:
        """``tokens`` of the config: an answer is as long as the window goes on."""
        return self.config.tokens

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus that windows are cut from. Raises InputError where the config names none."""
        if self._given is not None:
            return self._given
        if not (self.config.corpus.path or self.config.corpus.dataset):
            raise InputError(
                f"{self.name} has no corpus, so there are no problems; set corpus.path or corpus.dataset, or "
                "give prompts of your own"
            )
        from tokenzero.policy.corpora import open_corpus  # tokenizers are slow to import

        return open_corpus(self.config.corpus)

    def problems(self, split: str) -> Sequence[Problem]:
        """The windows of a split, decoded when they are looked at. Raises InputError without a corpus, and
        for a split that has no document as long as a window.
        """
        windows = self._windows[check_split(split)]
        len(windows)  # a split without any is refused here, not where the first one is looked at
        return windows

    def automaton(self, pieces: Sequence[str]) -> Automaton:
        """No text has to be read to see that it may go on."""
        return _GoesOn()

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Always ongoing."""
        return ONGOING

    def score(self, problem: Problem, answer: str) -> float:
        """The share of the reference's characters that were written before the first difference, white space
        at both ends left out: how far the very text was found, which says little of how good another is.
        """
        wanted, given = (problem.reference or "").strip(), answer.strip()
        same = next(
            (i for i, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b),
            min(len(wanted), len(given)),
        )
        return same / len(wanted) if wanted else 0.0

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Windows anywhere in the training documents: (prompt, continuation)."""
        windows = self._windows["train"]
        pairs = [windows[int(i)] for i in rng.integers(0, len(windows), count)]
        return [(problem.public.prompt, problem.reference or "") for problem in pairs]

    def tokenizer_spec(self) -> dict[str, Any]:
        """The characters that the corpus's tokenizer has tokens of their own for. Raises InputError for
        other tokenizers: such a model should load the corpus's."""
        if self.config.corpus.tokenizer.kind != "characters" or self.config.corpus.tokenizer.load:
            raise InputError(
                f"{self.name} has a corpus whose tokenizer is not of characters; load a model with its "
                "tokenizer"
            )
        letters = sorted(piece for piece in self.corpus.tokenizer.get_vocab() if len(piece) == 1)
        return {"kind": "characters", "alphabet": "".join(letters)}

    @cached_property
    def _windows(self) -> Mapping[str, _Windows]:
        return {split: _Windows(self, split) for split in SPLITS}


class _Window(NamedTuple):
    """Texts of one window."""

    prompt: str
    continuation: str


class _Windows(Sequence[Problem]):
    """The problems of one split, cut when they are looked at."""

    def __init__(self, task: ContinuationTask, split: str) -> None:
        self._task, self._split = task, split

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where windows begin, i64 [windows], none of them over the end of a document."""
        task, config = self._task, self._task.config
        edges = np.asarray(task.corpus.documents(self._split), np.int64)
        width = config.prompt_tokens + config.tokens
        room = np.diff(edges) // width
        starts = np.concatenate(
            [np.zeros(0, np.int64)]
            + [
                edge + width * np.arange(n)
                for edge, n in zip(edges[:-1].tolist(), room.tolist(), strict=True)
            ]
        )
        if not starts.size:
            held_out = f"set corpus.{self._split}_share higher, or " if self._split != "train" else ""
            raise InputError(
                f"{task.name} finds no document of {width} tokens in the {self._split} split; {held_out}"
                "lower prompt_tokens or tokens"
            )
        rng = np.random.default_rng([config.seed, SPLITS.index(self._split)])
        return rng.permutation(starts)[: config.windows]

    def _cut(self, start: int) -> _Window:
        config, corpus = self._task.config, self._task.corpus
        tokens = np.asarray(corpus.tokens(self._split)[start : start + config.prompt_tokens + config.tokens])
        parts = tokens[: config.prompt_tokens], tokens[config.prompt_tokens :]
        # A window may begin or end within the bytes of a character that is no token of its own.
        texts = [
            str(corpus.tokenizer.decode(part, skip_special_tokens=True)).strip("\ufffd") for part in parts
        ]
        return _Window(*texts)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = int(self._starts[index])
        window = self._cut(start)
        public = PublicProblem(f"{self._task.name}:{self._split}:{start}", window.prompt, self._task.name)
        return Problem(public, window.continuation)
