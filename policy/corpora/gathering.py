"""All text of a corpus in one file on disk, and which parts of it belong to which split.

The source is gone through once; what follows (learning a tokenizer, encoding) reads this file as often as it
likes, a block at a time. It knows no tokens, and removes nothing: the file lies in a temporary directory.
"""

from __future__ import annotations

import codecs
import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.config import CorpusConfig
from tokenzero.policy.corpora.sources import BLOCK, Document, Source

SPLITS = ("train", "validation", "test")
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Gathered:
    """Documents in one UTF-8 file. ``ends`` i64 [D]: the byte at which each ends, where the next begins.
    ``characters`` i64 [D]: code points of each. ``places`` f64 [D], from 0 to below 1: a hash of its text.
    """

    path: Path
    ends: Offsets
    characters: Offsets
    places: NDArray[np.float64]

    def pieces(self, start: int, stop: int, block: int) -> Iterator[str]:
        """The text between two bytes, each the first of a character, in pieces of at most ``block`` bytes."""
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        with self.path.open("rb") as file:
            file.seek(start)
            for position in range(start, stop, block):
                piece = decoder.decode(file.read(min(block, stop - position)))
                if piece:
                    yield piece


@dataclass(frozen=True)
class Passages:
    """The documents of a split (of a single document: its part), as ``starts`` and ``stops`` i64 [D] in
    bytes of the gathered file, with their ``characters`` in all.
    """

    starts: Offsets
    stops: Offsets
    characters: int

    @property
    def bytes(self) -> int:
        return int((self.stops - self.starts).sum())


def gather(source: Source, path: Path, max_documents: int | None, done: Callable[[int], None]) -> Gathered:
    """Write the text of a source to ``path``; ``done`` hears the bytes written so far. Documents without
    text are left out.

    Raises InputError when there is no text at all, or some is no Unicode (lone surrogates, which JSON lets
    through).
    """
    ends, characters, places = array("q"), array("q"), array("d")
    total = 0
    with path.open("wb") as file:
        for document in source.documents():
            digest, count = hashlib.sha256(), 0
            for piece in document.pieces:
                data = _utf8(piece, document)
                digest.update(data)
                file.write(data)
                count += len(piece)
                total += len(data)
                done(total)
            if count:
                ends.append(total)
                characters.append(count)
                places.append(int.from_bytes(digest.digest()[:6]) / 2**48)
            if len(ends) == max_documents:
                break
    if not ends:
        raise InputError("corpus holds no text: every file or row of it is empty; give some text")
    return Gathered(
        path, np.array(ends, dtype=np.int64), np.array(characters, dtype=np.int64), np.array(places)
    )


def divide(gathered: Gathered, config: CorpusConfig) -> dict[str, Passages]:
    """The passages of each of SPLITS.

    Of one document the first characters are for training, the next for validation, the last for the test
    (held-out shares are rounded up, as nanoGPT does). Of several, those whose hash lies below
    ``validation_share`` are for validation and the highest ``test_share`` for the test, so that a document
    stays in its split when others come or go, and equal documents are never on both sides.

    Raises InputError when a split with a share gets nothing.
    """
    if len(gathered.ends) == 1:
        split = _of_one(gathered, config)
    else:
        split = _of_several(gathered, config)
    shares = dict(zip(SPLITS, (1.0, config.validation_share, config.test_share), strict=True))
    for name, passages in split.items():
        if shares[name] > 0 and passages.characters == 0:
            raise InputError(_nothing(name, gathered, config))
    return split


def _of_one(gathered: Gathered, config: CorpusConfig) -> dict[str, Passages]:
    count, end = int(gathered.characters[0]), int(gathered.ends[0])
    test = ceil(count * config.test_share)
    validation = min(ceil(count * config.validation_share), count - test)
    bounds = [0, count - test - validation, count - test, count]
    places = [0, *_byte_places(gathered, bounds[1:3]), end]
    split: dict[str, Passages] = {}
    for i, name in enumerate(SPLITS):
        documents = 1 if bounds[i] < bounds[i + 1] else 0
        start, stop = (np.array(places[j : j + 1][:documents], dtype=np.int64) for j in (i, i + 1))
        split[name] = Passages(start, stop, bounds[i + 1] - bounds[i])
    return split


def _of_several(gathered: Gathered, config: CorpusConfig) -> dict[str, Passages]:
    validation = gathered.places < config.validation_share
    test = gathered.places >= 1 - config.test_share
    starts = np.concatenate([[0], gathered.ends[:-1]])
    chosen = dict(zip(SPLITS, (~validation & ~test, validation, test), strict=True))
    return {
        name: Passages(starts[mask], gathered.ends[mask], int(gathered.characters[mask].sum()))
        for name, mask in chosen.items()
    }


def _byte_places(gathered: Gathered, characters: list[int]) -> list[int]:
    """The byte at which the given characters of the only document begin, in rising order."""
    found: list[int] = []
    wanted = iter(characters)
    target = next(wanted, None)
    count = place = 0
    for piece in gathered.pieces(0, int(gathered.ends[-1]), BLOCK):
        while target is not None and target < count + len(piece):
            found.append(place + len(piece[: target - count].encode()))
            target = next(wanted, None)
        count += len(piece)
        place += len(piece.encode())
    return found + [place] * (len(characters) - len(found))


def _nothing(name: str, gathered: Gathered, config: CorpusConfig) -> str:
    documents = len(gathered.ends)
    if name == "train":
        return (
            f"corpus: its {documents} document(s) leave nothing for training; lower "
            "corpus.validation_share and test_share, or give more text"
        )
    if documents == 1:
        return f"corpus: {int(gathered.characters[0])} characters leave nothing for {name}; give more text"
    nearest = gathered.places.min() if name == "validation" else 1 - gathered.places.max()
    return (
        f"corpus: none of {documents} documents falls to {name} at corpus.{name}_share "
        f"{getattr(config, name + '_share')}; the share would have to be above {nearest:.3f}: raise it, "
        "set it to 0, give more documents, or join them in one file"
    )


def _utf8(piece: str, document: Document) -> bytes:
    try:
        return piece.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{document.where} is not valid Unicode text (a lone surrogate at character {error.start}); mend "
            "it or leave it out"
        ) from error
