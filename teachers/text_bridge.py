"""A Hugging Face model with another tokenizer as a teacher: its distribution, carried over as text.

A student's state may end in the middle of what the teacher would make one token. So the last tokens of the
teacher's own cut are dropped, and all ways to spell the dropped bytes again are followed: those that end with
them and those whose last token goes beyond (token healing; as a sum over all spellings, Vieira et al. 2024,
"From Language Models over Tokens to Language Models over Characters", arXiv 2412.03719, cut off at a few
tokens and unlikely spellings). What goes beyond is the continuation. It is never trained here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.teachers.base import Proposal, checked_k, top_k
from tokenzero.teachers.distribution import Distribution, Floats, ModelDistribution, check_options
from tokenzero.teachers.local_model import check_load, label_of
from tokenzero.teachers.prefix_states import DEFAULT_STATES
from tokenzero.teachers.text_proposals import TextContinuation, proposals_from_texts
from tokenzero.teachers.token_bytes import joins_words, spell, token_bytes

_UNLIKELY = 0.01  # spellings that cannot bring more than this share of a row's mass are not followed
_SPELLINGS = 8  # followed at once for a row
_NUMBERS = 1 << 25  # probabilities in memory at once


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """A model to ``load`` (a directory or hub name) with a tokenizer of its own.

    label, temperature, memory_mb, states, device: as for kind "model". heal: teacher tokens dropped from the
    end of a text before it is asked how to go on: as many as a longer text may merge with what follows.
    width: continuations kept of a state. ahead: teacher tokens by which the likeliest continuation is
    prolonged, greedily.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["bridge"] = "bridge"
    load: str
    label: str | None = None
    temperature: float = 1.0
    memory_mb: float | None = None
    states: int = DEFAULT_STATES
    device: str = "cpu"
    heal: int = 2
    width: int = 64
    ahead: int = 0

    def __post_init__(self) -> None:
        check_load("bridge", self.load)
        check_options(f"teacher {self.load}", self.temperature, self.memory_mb, self.states)
        for name, least in (("heal", 0), ("width", 1), ("ahead", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"teacher {self.load} has {name} {getattr(self, name)}; give at least {least}"
                )

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or label_of(self.load)


class _Spelling(NamedTuple):
    """Teacher tokens that spell a row's text but for its last bytes, which are still ``left`` to spell."""

    row: int
    tokens: tuple[int, ...]
    left: bytes
    weight: float


@dataclass
class _Found:
    """What may follow one row's text: its mass by (text, whether it ends the answer); the mass of all that
    fits, what was left out included; the likeliest way on with its mass, tokens, and new bytes.
    """

    mass: dict[tuple[str, bool], float] = field(default_factory=dict)
    total: float = 0.0
    best: tuple[float, tuple[int, ...], bytes] = (0.0, (), b"")


class BridgeTeacher:
    """Proposes what a model with ``theirs`` as tokenizer writes next, in tokens of ``ours``, the student's.

    The mass of each teacher token goes to the student's first token after the sequence, its whole text is a
    continuation; the teacher's end token is the student's. heal, width, ahead: see `BridgeConfig`.

    A row gets no proposal when its text is empty and the teacher needs some, ends within a character, holds
    symbols that the teacher does not know, or leaves it no room. Special tokens of the student are no text.
    Students with a closed vocabulary of words are served well only by teachers that write whole words: a
    token that ends within a word is taken for a word.
    """

    def __init__(
        self,
        name: str,
        ours: PreTrainedTokenizerFast,
        theirs: PreTrainedTokenizerFast,
        distribution: Distribution,
        *,
        heal: int = 2,
        width: int = 64,
        ahead: int = 0,
    ) -> None:
        if joins_words(theirs):
            raise InputError(f"teacher {name} has a vocabulary of words, which end nowhere; use one with BPE")
        self.name = name
        self._ours, self._theirs = ours, theirs
        self._distribution = distribution
        self._heal, self._width, self._ahead = heal, width, ahead
        self._words = joins_words(ours)
        self._bytes, self._table = token_bytes(ours), token_bytes(theirs)
        spelt = sorted((text, token) for token, text in enumerate(self._table) if text)
        self._texts = [text for text, _ in spelt]
        self._ids = np.asarray([token for _, token in spelt], np.int64)
        self._end = theirs.eos_token_id
        self._opening = _opening(theirs)

    @classmethod
    def open(cls, config: BridgeConfig, tokenizer: PreTrainedTokenizerFast) -> BridgeTeacher:
        """Load the model for a student with ``tokenizer``. Raises InputError when it cannot be loaded, and
        for a tokenizer that cannot be bridged.
        """
        model = Student.load(config.load, device=config.device)
        distribution = ModelDistribution.open(model, config.temperature, config.memory_mb, config.states)
        options = {"heal": config.heal, "width": config.width, "ahead": config.ahead}
        return cls(config.name, tokenizer, model.tokenizer, distribution, **options)

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """Top ``k`` first tokens and whole continuations; ``tokens`` is what the teacher forwarded."""
        checked_k(k)
        before = self._distribution.forwarded
        texts: list[list[TextContinuation]] = []
        rows = max(1, _NUMBERS // (_SPELLINGS * self._distribution.vocab_size))
        for start in range(0, len(sequences), rows):
            texts += self._continuations(sequences[start : start + rows])
        tokens = self._distribution.forwarded - before
        return proposals_from_texts(self._ours, sequences, texts, k, tokens)

    def close(self) -> None:
        """Let go of every state the teacher's engine holds."""
        self._distribution.close()

    def _continuations(self, sequences: Sequence[Sequence[int]]) -> list[list[TextContinuation]]:
        found = [_Found() for _ in sequences]
        spellings = list(self._begin(sequences))
        while spellings:
            probs = self._ask([spelling.tokens for spelling in spellings])
            longer: list[_Spelling] = []
            for spelling, given in zip(spellings, probs, strict=True):
                self._beyond(found[spelling.row], spelling, given)
                longer += self._within(spelling, given)
            spellings = _likely(longer, found)
        ahead = self._prolonged(found) if self._ahead else {}
        rows = []
        for row, one in enumerate(found):
            best = sorted(one.mass.items(), key=lambda item: (-item[1], item[0]))[: self._width]
            texts = [TextContinuation(text, mass / one.total, ends) for (text, ends), mass in best]
            rows.append(_split(texts, *ahead[row]) if row in ahead else texts)
        return rows

    def _begin(self, sequences: Sequence[Sequence[int]]) -> Iterator[_Spelling]:
        """Each row's text in teacher tokens, without the last few."""
        spelt = [spell(self._bytes, sequence) for sequence in sequences]
        spelt = [text.rstrip(b" ") if self._words else text for text in spelt]
        texts = [_whole(text) for text in spelt]
        encoded: Any = self._theirs([text or "" for text in texts], add_special_tokens=False)["input_ids"]
        for row, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
            if text is None or self._theirs.unk_token_id in tokens:
                continue
            dropped = min(self._heal, len(tokens) - (not self._opening))
            while dropped > 0 and not spelt[row].endswith(spell(self._table, tokens[-dropped:])):
                dropped -= 1  # the tokenizer changed the text (a normaliser, a space in front)
            kept = tuple(self._opening + tokens[: len(tokens) - max(0, dropped)])
            if kept and len(self._opening) + len(tokens) + self._ahead + 1 < self._distribution.max_length:
                left = spell(self._table, tokens[-dropped:]) if dropped > 0 else b""
                yield _Spelling(row, kept, left, 1.0)

    def _ask(self, sequences: Sequence[tuple[int, ...]]) -> list[Floats]:
        """Probabilities [V] after each; equal ones are asked once."""
        distinct = dict.fromkeys(sequences)
        probs = self._distribution(list(distinct))
        of = dict(zip(distinct, probs, strict=True))
        return [of[sequence] for sequence in sequences]

    def _beyond(self, found: _Found, spelling: _Spelling, probs: Floats) -> None:
        """Note every token that spells more than what is left."""
        left = spelling.left
        start = bisect_left(self._texts, left + b"\0") if left else 0
        stop = bisect_left(self._texts, _after(left)) if left else len(self._texts)
        ids = self._ids[start:stop]
        mass = probs[ids].astype(np.float64) * spelling.weight
        found.total += float(mass.sum())
        places = np.arange(len(ids)) if len(ids) <= self._width else top_k(mass[None], self._width)[0][0]
        for token, share in zip(ids[places].tolist(), mass[places].tolist(), strict=True):
            beyond = self._table[token][len(left) :]
            text = beyond.decode("utf-8", "ignore")  # a character that is not whole yet is left out
            if share > 0 and text and self._may_follow(spelling, text):
                found.mass[text, False] = found.mass.get((text, False), 0.0) + share
                if share > found.best[0]:
                    found.best = (share, (*spelling.tokens, token), beyond)
        if not left and self._end is not None:
            ends = float(probs[self._end]) * spelling.weight
            found.total += ends
            if ends > 0:
                found.mass["", True] = found.mass.get(("", True), 0.0) + ends

    def _may_follow(self, spelling: _Spelling, text: str) -> bool:
        """Whether a student with closed words can go on with ``text``: not by lengthening a word."""
        return not self._words or text[0].isspace() or len(spelling.tokens) == len(self._opening)

    def _within(self, spelling: _Spelling, probs: Floats) -> Iterator[_Spelling]:
        """The spelling, longer by a token that spells no more than what is left."""
        left = spelling.left
        if len(spelling.tokens) + 1 >= self._distribution.max_length:
            return
        for length in range(1, len(left) + 1):
            place = bisect_left(self._texts, left[:length])
            while place < len(self._texts) and self._texts[place] == left[:length]:
                token = int(self._ids[place])
                weight = spelling.weight * float(probs[token])
                yield _Spelling(spelling.row, (*spelling.tokens, token), left[length:], weight)
                place += 1

    def _prolonged(self, found: Sequence[_Found]) -> dict[int, tuple[str, str, float, bool]]:
        """For rows with a likeliest continuation: its text, the longer text, the probability of the longer
        given the shorter, and whether the answer ends there.
        """
        paths = {row: one.best[1] for row, one in enumerate(found) if one.best[1]}
        text = {row: found[row].best[2] for row in paths}
        share, ended, growing = dict.fromkeys(paths, 1.0), set[int](), list(paths)
        for _ in range(self._ahead):
            growing = [row for row in growing if len(paths[row]) < self._distribution.max_length]
            if not growing:
                break
            for row, probs in zip(growing, self._ask([paths[row] for row in growing]), strict=True):
                token = int(probs.argmax())
                more = self._table[token] if token < len(self._table) else b""
                if token == self._end:
                    ended.add(row)
                if token == self._end or more:
                    share[row] *= float(probs[token])
                    paths[row] = (*paths[row], token)
                    text[row] += more
            growing = [row for row in growing if row not in ended]
        return {
            row: (
                found[row].best[2].decode("utf-8", "ignore"),
                text[row].decode("utf-8", "ignore"),
                share[row],
                row in ended,
            )
            for row in paths
        }


def _likely(spellings: Sequence[_Spelling], found: Sequence[_Found]) -> list[_Spelling]:
    """Those that matter, in the order of rows: none can bring more mass than it has itself, and what is spelt
    in full brings all of it.
    """
    sure = [one.total for one in found]
    for spelling in spellings:
        sure[spelling.row] += 0.0 if spelling.left else spelling.weight
    kept: list[_Spelling] = []
    taken = [0] * len(found)
    for spelling in sorted(spellings, key=lambda one: (one.row, len(one.left) > 0, -one.weight, one.tokens)):
        if spelling.weight > _UNLIKELY * sure[spelling.row] and taken[spelling.row] < _SPELLINGS:
            taken[spelling.row] += 1
            kept.append(spelling)
    return kept


def _split(
    texts: list[TextContinuation], short: str, long: str, share: float, ends: bool
) -> list[TextContinuation]:
    """``texts`` with the part ``share`` of ``short`` given to ``long``."""
    split: list[TextContinuation] = []
    for one in texts:
        if one.text == short and not one.ends and (long != short or ends):
            split.append(TextContinuation(long, one.probability * share, ends))
            one = TextContinuation(short, one.probability * (1 - share))
        split.append(one)
    return split


def _after(text: bytes) -> bytes:
    """The least bytes that are greater than all that begin with ``text``."""
    head = text.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\xff" * (len(text) + 64)


def _whole(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _opening(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The token that the tokenizer's own template opens a sequence with, if any."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer("")["input_ids"][:1]) == [bos] else []
