"""Text that grows with its tokens: one list lookup per token instead of decoding the whole answer again.

Search imagines each answer one token at a time and shows every partial text to verifiers and judges, so this
is called hundreds of thousands of times a minute. It does not encode, and it keeps no state between calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

__all__ = ["SPELT_BYTES", "Pieces"]

_BYTE_FALLBACK = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
SPELT_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""How SentencePiece spells the 256 single bytes in a vocabulary that falls back to them."""
_BROKEN = "\ufffd"  # what an incomplete UTF-8 sequence decodes to


class Pieces:
    """Incremental decoder of one tokenizer, special tokens left out.

    `text(tokens)` and a chain of `append` calls from `""` give the same string, which is
    `tokenizer.decode(tokens, skip_special_tokens=True)`, with one difference: a tokenizer whose decoder joins
    words with spaces ends every word with one (`"4 * 7 "`), so that a finished word can be told from one that
    may still grow.

    `append` costs one lookup for word, character and byte-level tokenizers; any other decodes the token list
    each time (where characters fall back to bytes, only for a byte). `independent` is True when no token's
    text depends on its neighbours; `append` then never reads `tokens` and `()` will do. Ids above the
    tokenizer's vocabulary (models pad theirs to a round size) add no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._table: list[str | None] = []  # None: this token's text depends on its neighbours
        self._bytes: list[bytes] | None = None
        names = _names(tokenizer)
        decoder = tokenizer.backend_tokenizer.decoder
        if decoder is None:
            self._table = [name + " " if name else "" for name in names]
        elif isinstance(decoder, decoders.Fuse):
            self._table = list(names)
        elif isinstance(decoder, decoders.ByteLevel) and isinstance(
            tokenizer.backend_tokenizer.model, models.BPE
        ):
            self._bytes = [_token_bytes(name) for name in names]
            self._table = [_whole(piece) for piece in self._bytes]
        elif isinstance(decoder, decoders.Sequence) and json.loads(decoder.__getstate__()) == _BYTE_FALLBACK:
            bytes_alone = frozenset(SPELT_BYTES)
            self._table = [None if name in bytes_alone else name for name in names]
        else:
            self._table = [None] * len(names)
        self.independent = None not in self._table

    def append(self, text: str, tokens: Sequence[int], token: int) -> str:
        """Text of `tokens` followed by `token`, given `text`, the text of `tokens`.

        `tokens` (ids of the answer so far, without `token`) is read only when the new token's text depends on
        them.
        """
        try:
            piece = self._table[token]
        except IndexError:
            return text
        if piece is not None:
            return text + piece
        if self._bytes is not None and not text.endswith(_BROKEN):
            return text + self._bytes[token].decode(
                "utf-8", "replace"
            )  # nothing is pending before this token
        return self.text((*tokens, token))

    def text(self, tokens: Sequence[int]) -> str:
        """Text of a whole answer, `tokens` being its ids in order."""
        known = [token for token in tokens if token < len(self._table)]
        if self._bytes is not None:
            return b"".join([self._bytes[token] for token in known]).decode("utf-8", "replace")
        pieces = [self._table[token] for token in known]
        if None in pieces:
            decoded = self._tokenizer.decode(known, skip_special_tokens=True)
            assert isinstance(decoded, str)
            return decoded
        return "".join([piece for piece in pieces if piece is not None])


def _names(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Vocabulary strings by id; empty for special tokens and unused ids."""
    names = [""] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    for name, index in tokenizer.get_vocab().items():
        names[index] = name
    for index, added in tokenizer.added_tokens_decoder.items():
        if added.special:
            names[index] = ""
    return names


def _byte_of_character() -> dict[str, int]:
    """Inverse of the byte-to-letter table of byte-level BPE (Radford et al. 2019, GPT-2).

    Printable Latin-1 bytes stand for themselves; the others, in order, are U+0100 onwards.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(hidden)
    }


_BYTES = _byte_of_character()


def _token_bytes(name: str) -> bytes:
    if all(character in _BYTES for character in name):
        return bytes(_BYTES[character] for character in name)
    return name.encode("utf-8")  # an added token spelt in plain text


def _whole(piece: bytes) -> str | None:
    """The piece as text when it is complete UTF-8 by itself, else None."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None
