"""Where text comes from: a file, a directory of files, or a data set of the package datasets.

A source gives its documents one after another, each as pieces of text, so that none has to fit in memory.
Text is taken as it is: no line end, space or Unicode form is changed; only a byte order mark at the beginning
of a file is dropped. It splits nothing and counts no tokens.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.config import CorpusConfig

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
ROW_SUFFIXES = (".jsonl", ".ndjson")
BLOCK = 1 << 20
"""Bytes read at a time."""
_MARK = codecs.BOM_UTF8


@dataclass(frozen=True, slots=True)
class Document:
    """One document: where it stands, for messages, and its text in pieces, to be gone through once."""

    where: str
    pieces: Iterable[str]


class Source(Protocol):
    """Documents in a fixed order. ``size`` is their bytes, None when unknown; ``left_out`` files of other
    kinds.
    """

    size: int | None
    left_out: int

    def fingerprint(self) -> str:
        """What changes when the text changes (hexadecimal)."""
        ...

    def documents(self) -> Iterator[Document]:
        """All documents; each must be gone through before the next. Raises InputError for text that cannot
        be read, naming file and byte, or row."""
        ...


def open_source(config: CorpusConfig) -> Source:
    """The source a config names. Raises InputError when it names none, or one that is not there."""
    if config.dataset:
        return DatasetSource(config)
    if not config.path:
        raise InputError("corpus names no text; give corpus.path (a file or directory) or corpus.dataset")
    return FileSource(Path(config.path), config.text_field)


class FileSource:
    """A file, or the files of a directory and of those below it, in the order of their paths; hidden ones
    are passed over.
    """

    def __init__(self, path: Path, text_field: str) -> None:
        self.path = path
        self.text_field = text_field
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise InputError(f"corpus.path {str(path)!r} is no ordinary file; write the text into one")
        try:
            known = _files_below(path) if path.is_dir() else [path]
            taken = [file for file in known if not path.is_dir() or _suffix(file) in _SUFFIXES]
            self.size: int | None = sum(file.stat().st_size for file in taken)
        except OSError as error:
            raise _unreadable(error.filename or path, error) from error
        self.files = taken
        self.left_out = len(known) - len(taken)
        if not taken:
            raise InputError(
                f"corpus.path {str(path)!r} is a directory without text; put {', '.join(_SUFFIXES)} "
                "files there"
            )

    def fingerprint(self) -> str:
        """SHA-256 of the kinds and contents of the files; their names do not count."""
        return _sum_of_files(self.files, self.text_field)

    def documents(self) -> Iterator[Document]:
        for file in self.files:
            if _suffix(file) in ROW_SUFFIXES:
                yield from _rows(file, self.text_field)
            else:
                yield Document(str(file), _text(file))


class DatasetSource:
    """Rows of a data set, streamed by ``datasets.load_dataset``. Of a data set on the hub the fingerprint is
    its name: a newer version of it is not noticed. Of a directory it is the content of its files.
    """

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        self.size: int | None = None
        self.left_out = 0

    def fingerprint(self) -> str:
        config = self.config
        local = Path(config.dataset)
        content = _sum_of_files(_files_below(local), "") if local.is_dir() else config.dataset
        said = [content, config.subset, config.dataset_split, config.text_field]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def documents(self) -> Iterator[Document]:
        config = self.config
        name = config.dataset
        try:
            package = importlib.import_module("datasets")
        except ImportError as error:
            raise InputError(
                f"corpus.dataset {name!r} needs the package datasets; install tokenzero[data], or give "
                "corpus.path"
            ) from error
        try:
            rows = package.load_dataset(
                name, config.subset or None, split=config.dataset_split, streaming=True
            )
            for number, row in enumerate(rows, 1):
                where = f"{name} {config.dataset_split} row {number}"
                yield Document(where, (_field(row, config.text_field, where),))
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"corpus.dataset {name!r} cannot be read ({reason}); check its name and the network, or give "
                "corpus.path"
            ) from error


_SUFFIXES = (*TEXT_SUFFIXES, *ROW_SUFFIXES)


def _suffix(file: Path) -> str:
    return file.suffix.lower()


def _files_below(directory: Path) -> list[Path]:
    found = [
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(directory).parts)


def _sum_of_files(files: Iterable[Path], text_field: str) -> str:
    total = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(path, error) from error
        kind = f"rows {text_field}" if _suffix(path) in ROW_SUFFIXES else "text"
        total.update(f"{kind} {content}\n".encode())
    return total.hexdigest()


def _text(path: Path) -> Iterator[str]:
    """The text of a file in pieces of at most BLOCK characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    position = 0  # of the first byte that is not decoded yet
    try:
        with path.open("rb") as file:
            while True:
                block = file.read(BLOCK)
                _refuse_zero(block, path, position + len(decoder.getstate()[0]))
                pending = len(decoder.getstate()[0])
                try:
                    piece = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, position + error.start) from error
                if position == 0 and piece:
                    piece = piece.removeprefix("\ufeff")
                position += pending + len(block) - len(decoder.getstate()[0])
                if piece:
                    yield piece
                if not block:
                    return
    except OSError as error:
        raise _unreadable(path, error) from error


def _rows(path: Path, text_field: str) -> Iterator[Document]:
    """The documents of a JSONL file, one line at a time."""
    position = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path} line {number}"
                _refuse_zero(line, path, position)
                start = len(_MARK) if position == 0 and line.startswith(_MARK) else 0
                try:
                    text = line[start:].decode("utf-8")
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, position + start + error.start) from error
                position += len(line)
                if text.strip():
                    yield Document(where, (_field(_object(text, where), text_field, where),))
    except OSError as error:
        raise _unreadable(path, error) from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is no object but {line.strip()[:40]!r}; write one object a line")
    return row


def _field(row: Mapping[str, Any], name: str, where: str) -> str:
    if name not in row:
        known = ", ".join(sorted(map(str, row)))
        raise InputError(f"{where} has no field {name!r}; set corpus.text_field to one of {known}")
    text = row[name]
    if not isinstance(text, str):
        raise InputError(f"{where}: field {name!r} is {str(text)[:40]!r}, not text; set corpus.text_field")
    return text


def _refuse_zero(block: bytes, path: Path, position: int) -> None:
    """English in UTF-16 is valid UTF-8 with a zero after every letter, which nobody wants to learn."""
    zero = block.find(0)
    if zero >= 0:
        raise InputError(
            f"{path} has a zero byte at byte {position + zero}: it is binary or UTF-16; give text in UTF-8"
        )


def _not_utf8(path: Path, byte: int) -> InputError:
    return InputError(f"{path} is not UTF-8 at byte {byte}; save it as UTF-8, or leave it out")


def _unreadable(path: str | bytes | os.PathLike[str], error: OSError) -> InputError:
    return InputError(
        f"{os.fsdecode(path)} cannot be read ({error.strerror or error}); give a file or directory of text"
    )
