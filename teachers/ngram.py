"""A counted n-gram table: whole distributions by context, and candidates as a teacher, without a forward.

It looks contexts up, proposes, scores text and saves itself. Counting and smoothing are in
teachers/ngram_table.py, the compiled look-ups in ngram_kernels.py, the file in ngram_file.py. It learns
nothing after `fit`: fit again on more sequences.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, checked_k
from tokenzero.teachers.ngram_file import read_table, write_table
from tokenzero.teachers.ngram_kernels import (
    NONE,
    Floats,
    Ids,
    Table,
    Work,
    deepest,
    likeliest_after,
    log_probs_after,
    log_probs_of_text,
    sound,
)
from tokenzero.teachers.ngram_table import SMOOTHINGS, Text, build_table

_MAX_ORDER = 6
_CHUNK = 1 << 18  # tokens of a running text looked up at once: bounds what lies beside a memory map
_ABOUT = {"format": int, "name": str, "order": int, "smoothing": str, "vocab_size": int}


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """An n-gram table of ``order`` 1 to 6, counted on the demonstrations; or, whatever its order, the one
    saved in the file ``table``.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["ngram"] = "ngram"
    order: int = 3
    table: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= _MAX_ORDER:
            raise InputError(f"teacher order is {self.order}; give 1 to {_MAX_ORDER}")

    @property
    def counted(self) -> bool:
        """Whether demonstrations are needed."""
        return not self.table

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return Path(self.table).stem if self.table else f"{self.order}-gram"


class Contexts(NamedTuple):
    """P places to look up: the tokens before text[ends[p]], of which the last visible[p] may be read.

    text i64 [T]; ends, visible i64 [P].
    """

    text: Ids
    ends: Ids
    visible: Ids


class NgramScore(NamedTuple):
    """How well a table foretells a text: mean nats per token, and the share of tokens it thinks likeliest."""

    nats_per_token: float
    accuracy: float


class NgramTeacher:
    """An order-n model: the next token given the last n - 1, with back-off to shorter contexts.

    Unseen contexts and tokens outside the vocabulary fall back to what is known of their suffix. Make one
    with `fit` or `load`. Attributes: order, vocab_size, smoothing, name.
    """

    def __init__(self, table: Table, vocab_size: int, smoothing: str, name: str | None = None) -> None:
        self.table = table
        self.order = len(table.discounts)
        self.vocab_size = vocab_size
        self.smoothing = smoothing
        self.name = name if name is not None else f"{self.order}-gram"
        self._unigram = np.full(vocab_size, table.backoff[0] / vocab_size)
        tokens, seen = self._seen(0, 0)
        self._unigram[tokens] += seen
        self._log_unigram = np.log(self._unigram)
        self._common = np.argsort(-self._unigram, kind="stable")

    @classmethod
    def fit(
        cls,
        sequences: Sequence[Sequence[int] | NDArray[Any]],
        order: int,
        vocab_size: int,
        smoothing: str = "witten-bell",
        name: str | None = None,
    ) -> NgramTeacher:
        """Count token sequences. order 1 (no context) to 6; smoothing "witten-bell", "kneser-ney" or
        "modified-kneser-ney". A running text is one sequence; as an array of 16 to 64 bits, memory-mapped or
        not, it is not copied. Raises InputError for a value out of range or sequences without a token.
        """
        if not 1 <= order <= _MAX_ORDER:
            raise InputError(f"n-gram order is {order}: choose 1 to {_MAX_ORDER}")
        if vocab_size < 1:
            raise InputError(f"n-gram vocab_size is {vocab_size}: give the tokenizer's size")
        return cls(build_table(sequences, order, vocab_size, smoothing), vocab_size, smoothing, name)

    @classmethod
    def open(
        cls, config: NgramConfig, vocab_size: int, sequences: Callable[[], Sequence[Sequence[int]]]
    ) -> NgramTeacher:
        """The saved table that ``config`` names, or one counted on ``sequences()``. Raises InputError for a
        table that cannot be read or has another vocabulary.
        """
        if not config.table:
            return cls.fit(sequences(), config.order, vocab_size, name=config.name)
        teacher = cls.load(config.table)
        if teacher.vocab_size != vocab_size:
            raise InputError(
                f"n-gram table {config.table} has a vocabulary of {teacher.vocab_size} tokens and the "
                f"student one of {vocab_size}: count it with the student's tokenizer"
            )
        teacher.name = config.name
        return teacher

    def distribution(self, context: Sequence[int]) -> Floats:
        """f64 [vocab_size], sum 1: the next token after `context` (only its last order - 1 tokens matter).

        One context at a time; the other look-ups give the same numbers for many at once.
        """
        nodes = [0]
        for token in list(context)[: -self.order : -1]:
            first, end = self.table.children[nodes[-1] : nodes[-1] + 2].tolist()
            at = first + int(np.searchsorted(self.table.older[first:end], token))
            if at == end or self.table.older[at] != token:
                break
            nodes.append(at)
        scales = np.cumprod([1.0, *self.table.backoff[nodes[:0:-1]]])[::-1]
        probs: Floats = scales[0] * self._unigram
        for length, node in enumerate(nodes[1:], 1):
            tokens, seen = self._seen(length, node)
            probs[tokens] += scales[length] * seen
        return probs

    def row_log_probs(self, ids: Ids, truth: Ids | None = None, dtype: Any = np.float32) -> NDArray[Any]:
        """[R, W, V] of ``dtype`` f32 or f64: ln P of the token after each position of ``ids`` i64 [R, W],
        given its row up to and with that position.

        ``truth`` i64 [R, W] is the token that came next in the counted text (-1: none): that occurrence is
        left out of the counts, so that the table does not know the answer. Witten-Bell only (InputError).
        """
        rows, width = ids.shape
        ends = np.arange(1, rows * width + 1)
        visible = np.tile(np.arange(1, width + 1), rows)
        contexts = Contexts(np.ascontiguousarray(ids, dtype=np.int64).ravel(), ends, visible)
        return self.log_probs(contexts, truth, dtype).reshape(rows, width, self.vocab_size)

    def next_log_probs(self, sequences: Sequence[Sequence[int]], dtype: Any = np.float32) -> NDArray[Any]:
        """[L, V] of ``dtype`` f32 or f64: ln P of the token after each of L sequences."""
        return self.log_probs(self._tails(sequences), dtype=dtype)

    def log_probs(
        self, contexts: Contexts, truth: Ids | None = None, dtype: Any = np.float32
    ) -> NDArray[Any]:
        """[P, V]: ln P of the token after each of P contexts; ``truth`` i64 as in `row_log_probs`."""
        missing = np.full(len(contexts.ends), NONE, dtype=np.int64)
        if truth is not None:
            self._check_held_out()
            inside = (truth >= 0) & (truth < self.vocab_size)
            missing = np.where(inside, truth, NONE).astype(np.int64).ravel()
        out = np.empty((len(contexts.ends), self.vocab_size), dtype=dtype)
        log_probs_after(self.table, self._unigram, self._log_unigram, *contexts, missing, self._work(), out)
        return out

    def token_log_probs(self, tokens: Text, *, held_out: bool = False) -> Floats:
        """f64 [T]: ln P of each token of a running text given those before it. ``held_out``: this very text
        was counted, and each token is judged without its own occurrence. Witten-Bell only (InputError).

        Raises InputError for a token outside the vocabulary.
        """
        if held_out:
            self._check_held_out()
        out = np.empty(len(tokens), dtype=np.float64)
        nodes = np.empty(self.order, dtype=np.int64)
        for at, before, text in self._chunks(tokens):
            part = out[at : at + len(text) - before]
            log_probs_of_text(self.table, self.vocab_size, text, before, held_out, nodes, part)
        return out

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """Top k of `distribution` for each sequence; no token is forwarded, so `tokens` is 0."""
        actions, probs = self._likeliest(self._tails(sequences), checked_k(k))
        return Proposal(actions, probs, 0)

    def guesses(self, tokens: Text) -> Ids:
        """i64 [T]: the likeliest token at each place of a running text, given those before it."""
        out = np.empty(len(tokens), dtype=np.int64)
        for at, before, text in self._chunks(tokens):
            ends = np.arange(before, len(text))
            nodes = np.empty(len(ends), dtype=np.int64)
            deepest(self.table, text, ends, np.empty(self.order, dtype=np.int64), nodes)
            _, first, index = np.unique(nodes, return_index=True, return_inverse=True)
            distinct = Contexts(text, ends[first], ends[first])
            out[at : at + len(ends)] = self._likeliest(distinct, 1)[0][index, 0]
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; the same table gives the same bytes."""
        about = {"format": 2, "name": self.name, "smoothing": self.smoothing, "vocab_size": self.vocab_size}
        write_table(Path(path), {**about, "order": self.order}, self.table._asdict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NgramTeacher:
        """The table saved at `path`, memory-mapped. The file is read once to check its digest.

        Raises InputError naming a missing, cut or damaged file.
        """
        about, arrays = read_table(Path(path))
        if {key: type(value) for key, value in about.items()} != _ABOUT or about["format"] != 2:
            raise InputError(f"{path} is not an n-gram table of format 2: fit it again with this version")
        if not _consistent(about, arrays):
            raise InputError(
                f"n-gram table {path} is damaged (its arrays contradict each other): fit it again"
            )
        return cls(Table(**arrays), about["vocab_size"], about["smoothing"], about["name"])

    def _seen(self, length: int, node: int) -> tuple[NDArray[np.int32], Floats]:
        """Followers of a context of ``length`` and their own share, without what backs off."""
        span = slice(*self.table.followers[node : node + 2].tolist())
        counts = self.table.counts[span]
        discounts = self.table.discounts[length, np.minimum(counts, 3)]
        return self.table.tokens[span], (counts - discounts) / self.table.total[node]

    def _tails(self, sequences: Sequence[Sequence[int]]) -> Contexts:
        """The ends of the sequences, one after another."""
        reach = self.order - 1
        text = np.full((len(sequences), reach), NONE, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            tail = sequence[max(0, len(sequence) - reach) :]
            text[row, reach - len(tail) :] = tail
        ends = np.arange(1, len(sequences) + 1) * reach
        return Contexts(text.ravel(), ends, np.full(len(sequences), reach))

    def _chunks(self, tokens: Text) -> Iterator[tuple[int, int, Ids]]:
        """(start, n, tokens i64) of parts of a running text, with the n tokens before them that matter."""
        for at in range(0, len(tokens), _CHUNK):
            before = min(at, self.order - 1)
            part = np.asarray(tokens[at - before : at + _CHUNK]).astype(np.int64)
            if part.min() < 0 or part.max() >= self.vocab_size:
                raise InputError(
                    f"a text has tokens from {part.min()} to {part.max()}, outside the vocabulary of the "
                    f"n-gram table ({self.vocab_size}): use the tokenizer it was counted with"
                )
            yield at, before, part

    def _likeliest(self, contexts: Contexts, k: int) -> tuple[Ids, NDArray[np.float32]]:
        actions = np.full((len(contexts.ends), k), NONE, dtype=np.int64)
        probs = np.zeros((len(contexts.ends), k), dtype=np.float32)
        likeliest_after(self.table, self._unigram, self._common, *contexts, self._work(), actions, probs)
        return actions, probs

    def _work(self) -> Work:
        order, size = self.order, self.vocab_size
        nodes, entries = np.empty(order, np.int64), np.empty(order, np.int64)
        return Work(
            nodes, entries, np.empty(order), np.empty(order), np.empty(size), np.zeros(size, np.uint8)
        )

    def _check_held_out(self) -> None:
        if self.smoothing != "witten-bell":
            raise InputError(
                f"leaving an occurrence out of an n-gram table needs witten-bell smoothing, this one has "
                f"{self.smoothing}: fit it again, or ask without"
            )


def evaluate(teacher: NgramTeacher, tokens: Text) -> NgramScore:
    """Score a table on a running text [T] by one pass over all of it. Ties go to the lowest token.

    Raises InputError for a text without tokens, or with one outside the vocabulary.
    """
    if len(tokens) == 0:
        raise InputError("a text without tokens cannot be scored: give one token or more")
    nats = -float(teacher.token_log_probs(tokens).mean())
    return NgramScore(nats, float((teacher.guesses(tokens) == tokens).mean()))


def _consistent(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the kernels may trust the arrays of a file."""
    contexts = (len(arrays["older"]) if "older" in arrays else 0,)
    bounds = (contexts[0] + 1,)
    entries = (len(arrays["tokens"]) if "tokens" in arrays else 0,)
    wanted = Table(
        older=(np.int32, contexts),
        children=(np.int64, bounds),
        followers=(np.int64, bounds),
        tokens=(np.int32, entries),
        counts=(np.int32, entries),
        total=(np.int64, contexts),
        backoff=(np.float64, contexts),
        discounts=(np.float64, (about["order"], 4)),
    )._asdict()
    if {name: (array.dtype, array.shape) for name, array in arrays.items()} != wanted:
        return False
    known = 1 <= about["order"] <= _MAX_ORDER and about["smoothing"] in SMOOTHINGS
    return known and bool(sound(Table(**arrays), about["vocab_size"]))
