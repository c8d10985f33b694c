"""The bytes each token of a vocabulary stands for, so that tokenizers can be compared byte by byte.

Byte-level and SentencePiece-like BPE, unigram, word and character vocabularies are known. It cuts no texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tokenzero.mcts.errors import InputError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece spells a byte that it has no symbol for
_SPACE = "\u2581"  # and a space
_BYTES: dict[str, int] = {letter: byte for byte, letter in bytes_to_unicode().items()}


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    """Bytes of every id; empty for special tokens and unused ids. Words of a closed vocabulary end with a
    space. Raises InputError for WordPiece, whose tokens mean other bytes at the beginning of a text.
    """
    backend = tokenizer.backend_tokenizer
    if isinstance(backend.model, models.WordPiece):
        raise InputError("a WordPiece tokenizer cannot be bridged; use a model with BPE, unigram or words")
    vocabulary = tokenizer.get_vocab()
    names = [""] * (max(vocabulary.values(), default=-1) + 1)
    for name, index in vocabulary.items():
        names[index] = name
    special = set(tokenizer.all_special_ids)
    special.update(i for i, added in tokenizer.added_tokens_decoder.items() if added.special)
    if joins_words(tokenizer):
        spelt = [f"{name} ".encode() for name in names]
    elif isinstance(backend.decoder, decoders.ByteLevel):
        spelt = [_of_letters(name) for name in names]
    elif isinstance(backend.model, models.WordLevel):
        spelt = [name.encode() for name in names]
    else:
        # Where the decoder does not know the mark, it is a character like any other.
        space = " " if _SPACE in json.dumps(_decoder(backend), ensure_ascii=False) else _SPACE
        spelt = [_of_pieces(name, space) for name in names]
    return [b"" if index in special or not names[index] else found for index, found in enumerate(spelt)]


def joins_words(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer puts a space between any two tokens."""
    return tokenizer.backend_tokenizer.decoder is None


def spell(table: Sequence[bytes], tokens: Sequence[int]) -> bytes:
    """Bytes of a sequence; ids beyond the vocabulary add none."""
    return b"".join([table[token] for token in tokens if token < len(table)])


def _decoder(backend: Tokenizer) -> object:
    return json.loads(backend.to_str())["decoder"]


def _of_letters(name: str) -> bytes:
    if all(letter in _BYTES for letter in name):
        return bytes(_BYTES[letter] for letter in name)
    return name.encode()  # added tokens stand outside the byte alphabet


def _of_pieces(name: str, space: str) -> bytes:
    byte = _BYTE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace(_SPACE, space).encode()
