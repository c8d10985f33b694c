"""Makes the files of a corpus: gathers the text, divides it, learns a tokenizer, encodes every split.

It goes through the source once and holds no more of it in memory than a few blocks, save for long documents
of loaded tokenizers, which may have to be encoded whole. It does not decide where the files go and does not
open them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory
from tokenzero.policy.corpora.config import CorpusConfig
from tokenzero.policy.corpora.encoding import (
    TextEncoder,
    cut_anywhere,
    cut_pieces,
    last_cut_before_space,
    text_encoder,
)
from tokenzero.policy.corpora.gathering import Gathered, Passages, divide, gather
from tokenzero.policy.corpora.sources import BLOCK, Source
from tokenzero.policy.corpora.token_files import TokenFileWriter, dtype_of, write_manifest
from tokenzero.policy.tokenizers import byte_fallback_tokenizer, train_bpe

Listener = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]
"""Called with what is being done ("reading", "learning the tokenizer", "encoding"), bytes of text done, and
bytes in all (None: unknown)."""
TOKENIZER = "tokenizer"
_PIECE = 1 << 16  # bytes; trainer and encoder share the pieces of a batch out to the cores


class Making:
    """One corpus on its way to disk. ``loaded`` is the tokenizer to use; None: learn the config's."""

    def __init__(
        self,
        config: CorpusConfig,
        source: Source,
        loaded: PreTrainedTokenizerFast | None,
        listener: Listener,
        progress: Progress,
    ) -> None:
        self.config = config
        self.name = config.dataset or config.path
        self.source = source
        self.loaded = loaded
        self.tell = listener
        self.progress = progress

    def make(self, directory: Path, fingerprint: str) -> None:
        """Make ``directory``, whole or not at all, from the text that had this ``fingerprint``.

        Raises InputError for text that cannot be read, changed meanwhile, or leaves a split empty, and
        OutputError.
        """
        with replace_directory(directory) as temporary:
            text = temporary / "text"
            gathered = self._gather(text)
            if self.source.fingerprint() != fingerprint:
                raise InputError(f"corpus {self.name!r} changed while it was read; run again")
            split = divide(gathered, self.config)
            tokenizer = self._tokenizer(gathered, split["train"])
            dtype = self._encode(gathered, split, tokenizer, temporary)
            text.unlink()
            if self.loaded is None:
                tokenizer.save_pretrained(temporary / TOKENIZER)
            characters = {name: passages.characters for name, passages in split.items()}
            said = {"source": self.name, "tokenizer": tokenizer_fingerprint(tokenizer)}
            write_manifest(temporary, dtype, characters, said)
        self.tell(f"token files are in {directory}")

    def _gather(self, text: Path) -> Gathered:
        left_out = self.source.left_out
        note = f" ({left_out} files of other kinds left out)" if left_out else ""
        self.tell(f"reading {self.name}{note}")
        return gather(
            self.source,
            text,
            self.config.max_documents,
            lambda done: self.progress("reading", done, self.source.size),
        )

    def _tokenizer(self, gathered: Gathered, train: Passages) -> PreTrainedTokenizerFast:
        if self.loaded is not None:
            return self.loaded
        config = self.config.tokenizer
        self.tell(f"learning a tokenizer of {config.kind} from {train.bytes:,} bytes")
        pieces = self._training_pieces(gathered, train)
        if config.kind == "bpe":
            return train_bpe(pieces, config.vocab_size, running_text=True)
        alphabet: set[str] = set()
        for piece in pieces:
            alphabet.update(piece)
        return byte_fallback_tokenizer("".join(sorted(alphabet)))

    def _training_pieces(self, gathered: Gathered, train: Passages) -> Iterator[str]:
        last_cut = last_cut_before_space if self.config.tokenizer.kind == "bpe" else cut_anywhere
        done = 0
        for start, stop in zip(train.starts.tolist(), train.stops.tolist(), strict=True):
            pieces = gathered.pieces(start, stop, _PIECE)
            for piece, _ in cut_pieces(pieces, last_cut):
                yield piece
                done += len(piece.encode())
                self.progress("learning the tokenizer", done, train.bytes)

    def _encode(
        self,
        gathered: Gathered,
        split: dict[str, Passages],
        tokenizer: PreTrainedTokenizerFast,
        directory: Path,
    ) -> np.dtype[Any]:
        encoder = text_encoder(tokenizer)
        end = None
        if len(gathered.ends) > 1:
            end = tokenizer.eos_token_id
            if end is None:
                raise InputError(
                    f"corpus.tokenizer.load {self.config.tokenizer.load!r} has no end token, which parts "
                    "documents; load another"
                )
        total, before = int(gathered.ends[-1]), 0
        for name, passages in split.items():
            self.tell(f"encoding {passages.characters:,} characters for {name}")
            with TokenFileWriter(directory, name, encoder.size, end) as writer:
                for texts, last in _batches(gathered, passages, encoder):
                    for tokens, ends in zip(encoder.encode(texts), last, strict=True):
                        writer.write(tokens, ends)
                    before += sum(len(text.encode()) for text in texts)
                    self.progress("encoding", before, total)
            if writer.count == 0 and passages.characters:
                raise InputError(f"corpus: the tokenizer makes no token of the text for {name}; load another")
        return dtype_of(encoder.size)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of all that decides which tokens a text has."""
    said = [tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _batches(
    gathered: Gathered, passages: Passages, encoder: TextEncoder
) -> Iterator[tuple[list[str], list[bool]]]:
    """Pieces of about BLOCK characters together, each with whether it is the last of its document."""
    texts: list[str] = []
    last: list[bool] = []
    size = 0
    for start, stop in zip(passages.starts.tolist(), passages.stops.tolist(), strict=True):
        for piece, ends in cut_pieces(gathered.pieces(start, stop, _PIECE), encoder.last_cut):
            texts.append(piece)
            last.append(ends)
            size += len(piece)
            if size >= BLOCK:
                yield texts, last
                texts, last, size = [], [], 0
    if texts:
        yield texts, last
