"""Continuations that are texts, as proposals in the student's tokens.

A teacher with another tokenizer, a server or a script says how the text goes on. The student's tokenizer cuts
context and continuation together; what comes after the sequence's own tokens is the continuation, its first
token the candidate. Where the text comes from is not this file's business, nor is weighing teachers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tokenizers import models
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, from_paths

_WINDOW = 32  # tokens of context cut anew with a continuation: no merge reaches further back in practice
_ANCHOR = "\n"  # merges with nothing after it, so what follows is cut as in the middle of a text


class TextContinuation(NamedTuple):
    """A text that follows, its probability, and whether the answer ends with it."""

    text: str
    probability: float
    ends: bool = False


def proposals_from_texts(
    tokenizer: PreTrainedTokenizerFast,
    sequences: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[tuple[str, float] | TextContinuation]],
    k: int,
    tokens: int,
) -> Proposal:
    """The ``k`` best first tokens after each of L ``sequences`` of student tokens, with whole continuations.

    ``continuations[i]`` are texts that follow the text of sequence i, with probabilities that sum to 1 or
    less; ``tokens`` is passed on. Probabilities of texts that begin with the same token, or come to the same
    tokens, add up. A `TextContinuation` with ``ends``, and the empty text, end the answer: the student's end
    token closes the one and is the other. A special token spelt out in the text is read as what it is: the
    end token ends the continuation, any other cuts it off, as does a symbol that the student does not know.
    What leaves no token, or is no Unicode text, proposes nothing; its probability is lost to the row, as is
    that of first tokens beyond the best ``k``.

    Where the student's tokenizer would cut the context itself otherwise once the text follows (a merge across
    the boundary), the context keeps its tokens: the text is cut alone, then behind a line break, then
    character by character, and the first cut that decodes to the same text is taken. Words of a word
    vocabulary are closed, so there the text is always cut alone.

    Raises InputError for rows that do not match, k below 1, and probabilities that are negative, not finite
    or sum to more than 1.
    """
    if len(continuations) != len(sequences):
        raise InputError(f"{len(continuations)} rows of continuations for {len(sequences)} sequences")
    rows = [[TextContinuation(*one) for one in row] for row in continuations]
    return from_paths(list(_Cutter(tokenizer).rows(sequences, rows)), k, tokens)


class _Cutter:
    """Cuts texts into the tokens that follow a sequence."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._eos = tokenizer.eos_token_id
        self._specials = {token for token in tokenizer.all_special_ids if token is not None}
        self._closed = isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)

    def rows(
        self, sequences: Sequence[Sequence[int]], continuations: Sequence[Sequence[TextContinuation]]
    ) -> Iterator[dict[tuple[int, ...], float]]:
        """For each row the tokens of its continuations with their probabilities."""
        windows = [[] if self._closed else self._window(sequence) for sequence in sequences]
        contexts = [self._text(window) for window in windows]
        texts = dict.fromkeys(
            context + one.text
            for context, row in zip(contexts, continuations, strict=True)
            for one in row
            if _is_text(one.text)
        )
        encoded = dict(zip(texts, self._encode(list(texts)), strict=True))
        for window, context, row in zip(windows, contexts, continuations, strict=True):
            _check(row)
            found: dict[tuple[int, ...], float] = {}
            for one in row:
                path = self._ended(self._after(window, context, one.text, encoded), one)
                if path:
                    found[path] = found.get(path, 0.0) + one.probability
            yield found

    def _after(
        self, window: list[int], context: str, text: str, encoded: dict[str, list[int]]
    ) -> Sequence[int]:
        together = encoded.get(context + text) if text else None
        if together is None:
            return ()
        if together[: len(window)] == window:
            return together[len(window) :]
        return self._apart(window, context + text, text)

    def _apart(self, window: list[int], wanted: str, text: str) -> Sequence[int]:
        """Tokens of ``text`` that leave ``window`` as it is and decode to the ``wanted`` text with it."""
        (alone,) = self._encode([text])
        anchor, anchored = self._encode([_ANCHOR, _ANCHOR + text])
        options = [alone]
        if anchored[: len(anchor)] == anchor:
            options.append(anchored[len(anchor) :])
        options.append([token for piece in self._encode(list(text)) for token in piece])
        for option in options:
            if self._text([*window, *option]) == wanted or self._specials.intersection(option):
                return option
        return ()

    def _ended(self, path: Sequence[int], one: TextContinuation) -> tuple[int, ...]:
        """``path`` up to the first special token, which stays only if it is the end."""
        for index, token in enumerate(path):
            if token == self._eos:
                return tuple(path[: index + 1])
            if token in self._specials:
                return tuple(path[:index])
        ends = (one.ends or not one.text) and self._eos is not None
        if one.text and not path:
            return ()
        return (*path, self._eos) if ends else tuple(path)

    def _window(self, sequence: Sequence[int]) -> list[int]:
        """The last tokens of a sequence, none before its last special token."""
        window = list(sequence[max(0, len(sequence) - _WINDOW) :])
        for index in range(len(window) - 1, -1, -1):
            if window[index] in self._specials:
                return window[index + 1 :]
        return window

    def _text(self, tokens: Sequence[int]) -> str:
        if not tokens:
            return ""
        decoded = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(decoded)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: Any = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [list(row) for row in ids]


def _is_text(text: str) -> bool:
    """Whether there is a text that a tokenizer takes: JSON lets halves of characters through."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _check(row: Sequence[TextContinuation]) -> None:
    total = 0.0
    for one in row:
        if not (math.isfinite(one.probability) and one.probability >= 0):
            raise InputError(f"continuation {one.text[:20]!r} has probability {one.probability}: give 0 to 1")
        total += one.probability
    if total > 1 + 1e-3:
        raise InputError(f"the continuations of a row have probability {total:g} in all: give at most 1")
