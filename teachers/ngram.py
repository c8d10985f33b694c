"""A counted n-gram table as a teacher: cheap, deterministic and free of forwarded tokens.

It looks contexts up, proposes and saves itself (safetensors, never pickle). Counting and smoothing are in
teachers/ngram_table.py. It learns nothing after `fit`: fit again on more sequences.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, checked_k
from tokenzero.teachers.ngram_table import Floats, Ints, Level, consistent, count_levels, smooth

_FIELDS = Level._fields
_METADATA_KEY = "tokenzero_ngram"
_ABOUT_KEYS = {"format", "name", "order", "smoothing", "vocab_size"}
_MAX_ORDER = 6
_CHUNK_ENTRIES = 2_000_000  # candidates gathered at once in propose: bounds its memory to about 200 MB


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """An n-gram table of ``order`` 1 to 6, counted on the demonstrations."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["ngram"] = "ngram"
    order: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.order <= _MAX_ORDER:
            raise InputError(f"teacher order is {self.order}; give 1 to {_MAX_ORDER}")

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return f"{self.order}-gram"


class NgramTeacher:
    """An order-n model: the next token given the last n - 1, with back-off to shorter contexts.

    Unseen contexts and tokens outside the vocabulary fall back to what is known of their suffix. Make one
    with `fit` or `load`. Attributes: order, vocab_size, smoothing, name.
    """

    def __init__(
        self, levels: Sequence[Level], vocab_size: int, smoothing: str, name: str | None = None
    ) -> None:
        self.levels = tuple(levels)
        self.order = len(levels)
        self.vocab_size = vocab_size
        self.smoothing = smoothing
        self.name = name if name is not None else f"{self.order}-gram"
        self._weights = smooth(self.levels, vocab_size, smoothing)
        self._unigram = np.full(vocab_size, self._weights[0].backoff[0] / vocab_size)
        self._unigram[self.levels[0].tokens] += self._weights[0].seen
        self._common = np.argsort(-self._unigram, kind="stable")

    @classmethod
    def fit(
        cls,
        sequences: Sequence[Sequence[int]],
        order: int,
        vocab_size: int,
        smoothing: str = "witten-bell",
        name: str | None = None,
    ) -> NgramTeacher:
        """Count token sequences. order 1 (no context) to 6; smoothing "witten-bell", "kneser-ney" or
        "modified-kneser-ney". Raises InputError for a value out of range or sequences without a token.
        """
        if not 1 <= order <= _MAX_ORDER:
            raise InputError(f"n-gram order is {order}: choose 1 to {_MAX_ORDER}")
        if vocab_size < 1:
            raise InputError(f"n-gram vocab_size is {vocab_size}: give the tokenizer's size")
        return cls(count_levels(sequences, order, vocab_size), vocab_size, smoothing, name)

    def distribution(self, context: Sequence[int]) -> Floats:
        """f64 [vocab_size], sum 1: the next token after `context` (only its last order - 1 tokens matter)."""
        nodes = self._nodes([context])
        scale = self._scales(nodes)
        probs: Floats = scale[0, 0] * self._unigram
        for length in range(1, self.order):
            node = nodes[0, length]
            if node >= 0:
                level = self.levels[length]
                span = slice(level.offsets[node], level.offsets[node + 1])
                probs[level.tokens[span]] += scale[0, length] * self._weights[length].seen[span]
        return probs

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """Top k of `distribution` for each sequence; no token is forwarded, so `tokens` is 0."""
        actions = np.full((len(sequences), checked_k(k)), -1, dtype=np.int64)
        probs = np.zeros((len(sequences), k), dtype=np.float32)
        if len(sequences) > 0:
            nodes = self._nodes(sequences)
            for part in self._chunks(nodes, k):
                self._fill(nodes[part], actions[part], probs[part])
        return Proposal(actions, probs, 0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; the same table gives the same bytes."""
        target = Path(path)
        about = {"format": 1, "name": self.name, "smoothing": self.smoothing, "vocab_size": self.vocab_size}
        metadata = {_METADATA_KEY: json.dumps({**about, "order": self.order}, sort_keys=True)}
        tensors = {f"{f}.{c}": getattr(level, f) for c, level in enumerate(self.levels) for f in _FIELDS}
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(save_tensors(tensors, metadata))
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NgramTeacher:
        """The table saved at `path`. Raises InputError naming a missing, cut or damaged file."""
        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        except OSError as error:
            raise InputError(f"n-gram table {path} cannot be read: {error}") from error
        except (SafetensorError, json.JSONDecodeError) as error:
            raise InputError(
                f"n-gram table {path} is not a whole safetensors file ({error}): fit it again"
            ) from error
        known = isinstance(about, dict) and set(about) == _ABOUT_KEYS and about["format"] == 1
        if (
            not known
            or about["order"] not in range(1, _MAX_ORDER + 1)
            or not isinstance(about["vocab_size"], int)
        ):
            raise InputError(f"{path} is not an n-gram table of format 1: fit it again with this version")
        wanted = [f"{f}.{c}" for c in range(about["order"]) for f in _FIELDS]
        if sorted(wanted) != sorted(tensors) or any(
            t.dtype != np.int64 or t.ndim != 1 for t in tensors.values()
        ):
            raise InputError(
                f"n-gram table {path} does not hold the arrays of order {about['order']}: fit it again"
            )
        levels = [Level(*(tensors[f"{f}.{c}"] for f in _FIELDS)) for c in range(about["order"])]
        if not consistent(levels, about["vocab_size"]):
            raise InputError(
                f"n-gram table {path} is damaged (its arrays contradict each other): fit it again"
            )
        return cls(levels, about["vocab_size"], about["smoothing"], about["name"])

    def _nodes(self, sequences: Sequence[Sequence[int]]) -> Ints:
        """[L, order] context ids by length, -1 from the first unknown one on; column 0 is no context."""
        reach = self.order - 1
        recent = np.full((len(sequences), reach), -1, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            tail = np.asarray(sequence[max(0, len(sequence) - reach) :], dtype=np.int64)[::-1]
            recent[row, : len(tail)] = tail
        nodes = np.full((len(sequences), self.order), -1, dtype=np.int64)
        nodes[:, 0] = 0
        for length in range(1, self.order):
            keys, parent, token = self.levels[length].keys, nodes[:, length - 1], recent[:, length - 1]
            if len(keys) == 0:
                break
            wanted = parent * self.vocab_size + token
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = (parent >= 0) & (token >= 0) & (token < self.vocab_size) & (keys[at] == wanted)
            nodes[:, length] = np.where(known, at, -1)
        return nodes

    def _scales(self, nodes: Ints) -> Floats:
        """[L, order] product of the back-offs of all longer known contexts, for each level."""
        scale = np.ones(nodes.shape, dtype=np.float64)
        for length in range(self.order - 1, 0, -1):
            node = nodes[:, length]
            known = node >= 0
            factor = np.ones(len(nodes), dtype=np.float64)
            factor[known] = self._weights[length].backoff[node[known]]
            scale[:, length - 1] = scale[:, length] * factor
        return scale

    def _chunks(self, nodes: Ints, k: int) -> Iterator[slice]:
        """Row slices whose gathered candidates stay near _CHUNK_ENTRIES."""
        work = np.full(len(nodes), min(k, self.vocab_size), dtype=np.int64)
        for length in range(1, self.order):
            known = nodes[:, length] >= 0
            work[known] += np.diff(self.levels[length].offsets)[nodes[known, length]]
        bucket = np.cumsum(work) // _CHUNK_ENTRIES
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(nodes)]
        return (slice(a, b) for a, b in pairwise(edges))

    def _fill(self, nodes: Ints, actions: Ints, probs: NDArray[np.float32]) -> None:
        """Write the top k of these rows into actions and probs [rows, k].

        Followers of the known contexts plus the k commonest tokens suffice: a token that followed none of
        them has its unigram probability times one constant, so only the k commonest of those can be among the
        best k.
        """
        rows, k = actions.shape
        scale = self._scales(nodes)
        common = self._common[:k]
        keys = [(np.arange(rows)[:, None] * self.vocab_size + common).ravel()]
        mass = [np.zeros(rows * len(common))]
        for length in range(1, self.order):
            row, entry = _entries(self.levels[length].offsets, nodes[:, length])
            keys.append(row * self.vocab_size + self.levels[length].tokens[entry])
            mass.append(scale[row, length] * self._weights[length].seen[entry])
        distinct, index = np.unique(np.concatenate(keys), return_inverse=True)
        row, token = distinct // self.vocab_size, distinct % self.vocab_size
        base = scale[row, 0] * self._unigram[token]
        # The base comes first and the levels follow in order, as in `distribution`: the same bits.
        index = np.concatenate([np.arange(len(distinct)), index])
        total = np.bincount(index, weights=np.concatenate([base, *mass])).astype(np.float32)
        order = np.lexsort((token, -total, row))
        row, token, total = row[order], token[order], total[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        best = rank < k
        actions[row[best], rank[best]] = token[best]
        probs[row[best], rank[best]] = total[best]


def _entries(offsets: Ints, nodes: Ints) -> tuple[Ints, Ints]:
    """(row, entry) of every follower of the known contexts among nodes [L] (-1: unknown)."""
    known = np.flatnonzero(nodes >= 0)
    first = offsets[nodes[known]]
    length = offsets[nodes[known] + 1] - first
    ends = np.cumsum(length)
    inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - length, length)
    return np.repeat(known, length), np.repeat(first, length) + inside
