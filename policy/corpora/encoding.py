"""Text to token ids in bulk: characters by one table lookup, all else by the tokenizer's own backend.

A long document is encoded in pieces, cut only where that changes no token; where no such place is known it is
encoded whole. Nothing is put before or after a text, and special tokens written out in it are read as
ordinary text. It writes no files.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import SPELT_BYTES

Tokens = NDArray[np.uint32]
_UNKNOWN = -1
_NO_SPACE = frozenset("LNPSM")  # Unicode categories none of whose characters is white space in any version


class TextEncoder(Protocol):
    """Texts to tokens. ``size`` is the smallest number above every id."""

    size: int

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, u32 [T]. Raises InputError for a symbol outside the vocabulary."""
        ...

    def last_cut(self, text: str, first: int) -> int:
        """The last place, ``first`` at least, where ``text`` can be cut in two that give the same tokens as
        the whole; 0 if there is none.
        """
        ...


def text_encoder(tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    """The fastest encoder that gives the tokens of this tokenizer."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if _is_of_characters(state):
        return CharacterEncoder(tokenizer)
    return BackendEncoder(tokenizer, last_cut_before_space if _is_byte_level(state) else _no_cut)


class CharacterEncoder:
    """For `byte_fallback_tokenizer`: a table of all code points."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        vocabulary = tokenizer.get_vocab()
        self.size = max(vocabulary.values()) + 1
        self._table: NDArray[np.int32] = np.full(0x110000, _UNKNOWN, dtype=np.int32)
        for name, token in vocabulary.items():
            if len(name) == 1:
                self._table[ord(name)] = token
        self._bytes = np.array([vocabulary[name] for name in SPELT_BYTES], dtype=np.uint32)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._encode(text) for text in texts]

    def last_cut(self, text: str, first: int) -> int:
        return cut_anywhere(text, first)

    def _encode(self, text: str) -> Tokens:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        found = self._table[points]
        known = found != _UNKNOWN
        if known.all():
            return np.asarray(found, dtype=np.uint32)
        unknown = points[~known]
        lengths = np.ones(len(points), dtype=np.int64)
        lengths[~known] = 1 + sum((unknown >= bound).astype(np.int64) for bound in (0x80, 0x800, 0x10000))
        of_known = np.repeat(known, lengths)
        tokens = np.empty(len(of_known), dtype=np.uint32)
        tokens[of_known] = found[known]
        spelt = unknown.tobytes().decode("utf-32-le").encode("utf-8")
        tokens[~of_known] = self._bytes[np.frombuffer(spelt, dtype=np.uint8)]
        return tokens


class BackendEncoder:
    """For any other fast tokenizer, by a copy of its backend that neither cuts, pads nor reads specials."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, last_cut: Callable[[str, int], int]) -> None:
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._unknown = tokenizer.unk_token_id
        self._last_cut = last_cut
        self.size = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        found = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        for text, tokens in zip(texts, found, strict=True):
            if self._unknown is not None and (tokens == self._unknown).any():
                raise self._stranger(text)
        return found

    def last_cut(self, text: str, first: int) -> int:
        return self._last_cut(text, first)

    def _stranger(self, text: str) -> InputError:
        encoding = self._backend.encode(text, add_special_tokens=False)
        start, stop = encoding.offsets[encoding.ids.index(self._unknown)]
        return InputError(
            f"corpus.tokenizer.load: {text[start:stop]!r} is not among its {self.size} symbols; load a "
            "tokenizer that falls back to bytes, or train one (load: null)"
        )


def cut_pieces(pieces: Iterable[str], last_cut: Callable[[str, int], int]) -> Iterator[tuple[str, bool]]:
    """One document in pieces that may be encoded by themselves, each with whether it is the last."""
    rest = ""
    for piece in pieces:
        seam = len(rest)
        rest += piece
        place = last_cut(rest, max(seam, 1))
        if place > 0:
            yield rest[:place], False
            rest = rest[place:]
    yield rest, True


def cut_anywhere(text: str, first: int) -> int:
    """For characters: before the last one, so that something is left to be the last piece."""
    return len(text) - 1


def last_cut_before_space(text: str, first: int) -> int:
    r"""For byte-level BPE by GPT-2's pattern: the last space or line end after a letter, number or sign.

    No alternative of that pattern goes on from any of these to white space, so it ends a word there; and none
    looks back, so what follows is cut as if it stood alone. Only ``\s+(?!\S)`` looks ahead, by one character
    beyond white space, and none ends before the cut.
    """
    for place in range(len(text) - 1, first - 1, -1):
        if text[place] in " \n" and unicodedata.category(text[place - 1])[0] in _NO_SPACE:
            return place
    return 0


def _no_cut(text: str, first: int) -> int:
    return 0


def _is_of_characters(state: dict[str, Any]) -> bool:
    model = state["model"]
    return bool(
        model["type"] == "BPE"
        and model["merges"] == []
        and model["byte_fallback"]
        and all(name in model["vocab"] for name in SPELT_BYTES)
        and state["normalizer"] is None
        and state["pre_tokenizer"] is None
        and all(added["special"] for added in state["added_tokens"])
        and not any(len(name) != 1 and name not in SPELT_BYTES for name in _ordinary(state))
    )


def _ordinary(state: dict[str, Any]) -> set[str]:
    return set(state["model"]["vocab"]) - {added["content"] for added in state["added_tokens"]}


def _is_byte_level(state: dict[str, Any]) -> bool:
    cutter = state["pre_tokenizer"]
    return bool(
        state["normalizer"] is None
        and cutter is not None
        and cutter["type"] == "ByteLevel"
        and cutter["use_regex"]
        and not cutter["add_prefix_space"]
        and all(added["special"] for added in state["added_tokens"])
    )
