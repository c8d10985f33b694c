"""Tokens as text: one by one for log-probabilities, and as an answer that grows.

What is sent of a growing answer never has to be taken back: unfinished UTF-8 and what may become a stop
string wait until they are certain.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.teachers.token_bytes import joins_words, token_bytes

_BROKEN = "\ufffd"


class Spelling:
    """How a tokenizer's ids read."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.pieces = Pieces(tokenizer)
        self.joint = " " if joins_words(tokenizer) else ""
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._names = [name or "" for name in names]
        try:
            self._bytes = token_bytes(tokenizer)
        except InputError:  # a vocabulary whose tokens depend on their neighbours: their names must do
            self._bytes = [name.encode() for name in self._names]

    def bytes(self, token: int, first: bool) -> bytes:
        """Bytes a token adds to a text; special tokens by their names, ids beyond the vocabulary none.
        ``first``: nothing stands before it.
        """
        spelt = self._bytes[token] if token < len(self._bytes) else b""
        if not spelt:
            return self._names[token].encode() if token < len(self._names) else b""
        if self.joint:
            return spelt.rstrip(b" ") if first else b" " + spelt.rstrip(b" ")
        return spelt

    def name(self, token: int, first: bool) -> str:
        """The text of one token, ``bytes:\\x..`` where it is no text by itself."""
        spelt = self.bytes(token, first)
        try:
            return spelt.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)

    def offsets(self, tokens: Sequence[int], start: int, first: bool) -> list[int]:
        """Characters before each token, beginning at ``start``."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found: list[int] = []
        for index, token in enumerate(tokens):
            found.append(start)
            start += len(decoder.decode(self.bytes(token, first and index == 0)))
        return found

    def text(self, tokens: Sequence[int], stops: Sequence[str] = ()) -> str:
        """The text of an answer: without special tokens, up to the first stop string."""
        text = self.pieces.text(tokens)
        text = text.removesuffix(self.joint) if self.joint else text
        return cut(text, stops)


def cut(text: str, stops: Sequence[str]) -> str:
    """``text`` before the first stop string in it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


class Growing:
    """An answer as it grows, and how much of it was sent."""

    def __init__(self, spelling: Spelling, stops: Sequence[str]) -> None:
        self.tokens: list[int] = []
        self._spelling = spelling
        self._stops = stops
        self._text = ""
        self._sent = 0

    def add(self, tokens: Sequence[int]) -> None:
        """The answer's next tokens."""
        for token in tokens:
            self._text = self._spelling.pieces.append(self._text, self.tokens, token)
            self.tokens.append(token)

    def take(self) -> str:
        """What is certain and was not sent yet."""
        text = self._text.removesuffix(self._spelling.joint) if self._spelling.joint else self._text
        certain = cut(text, self._stops)
        if len(certain) == len(text):
            certain = certain.rstrip(_BROKEN)
            certain = certain[: len(certain) - self._pending(certain)]
        return self._send(certain)

    def rest(self, text: str) -> str:
        """What is still to be sent of the finished answer ``text``."""
        return self._send(text)

    def _pending(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _send(self, text: str) -> str:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return new
