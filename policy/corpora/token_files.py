"""Tokens of each split as one raw file, with where its documents begin, and a manifest that vouches for both.

A directory holds ``SPLIT.tokens`` (little-endian uint16, or uint32 when the vocabulary needs it),
``SPLIT.documents`` (little-endian int64: where each document begins, and the end) and ``manifest.json`` with
counts, sizes and SHA-256 sums. Opening checks every byte and maps the tokens into memory. It does not encode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text
from tokenzero.policy.corpora.encoding import Tokens

MANIFEST_FILE = "manifest.json"
FORMAT = 1
"""Changes when files of an older version can no longer be read."""


@dataclass(frozen=True)
class TokenFile:
    """A split. ``tokens`` u16 or u32 [T], mapped; ``documents`` i64 [D + 1], offsets of its documents in
    ``tokens`` and T at the end; ``characters`` code points of its text.
    """

    tokens: NDArray[Any]
    documents: NDArray[np.int64]
    characters: int


class TokenFileWriter:
    """Writes the two files of a split, piece by piece. Use it as a context; it must be the only one there."""

    def __init__(self, directory: Path, split: str, size: int, end: int | None) -> None:
        """``size`` is above every id; the token ``end`` is put after every document, unless None."""
        self.dtype = dtype_of(size)
        self._end = None if end is None else np.array([end], dtype=self.dtype)
        self._tokens: IO[bytes] = (directory / f"{split}.tokens").open("wb")
        self._documents: IO[bytes] = (directory / f"{split}.documents").open("wb")
        self.count = 0
        self._mark()

    def write(self, tokens: Tokens, last: bool) -> None:
        """Add tokens of the present document; the next ones are another's if these are its ``last``."""
        self._append(tokens)
        if last:
            if self._end is not None:
                self._append(self._end)
            self._mark()

    def __enter__(self) -> TokenFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        self._documents.close()

    def _append(self, tokens: NDArray[Any]) -> None:
        self._tokens.write(tokens.astype(self.dtype).tobytes())
        self.count += len(tokens)

    def _mark(self) -> None:
        self._documents.write(np.array([self.count], dtype="<i8").tobytes())


def dtype_of(size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 (little-endian) that holds every id below ``size``."""
    return np.dtype("<u2" if size <= 2**16 else "<u4")


def write_manifest(
    directory: Path, dtype: np.dtype[Any], characters: Mapping[str, int], said: Mapping[str, Any]
) -> None:
    """Vouch for every file in ``directory`` as it is now. ``characters`` has those of each split; ``said`` is
    kept for people. Raises OutputError.
    """
    files = {
        str(path.relative_to(directory)): _measure(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    content = {
        "format": FORMAT,
        "dtype": dtype.name,
        "splits": {
            name: {
                "characters": count,
                "tokens": files[f"{name}.tokens"]["bytes"] // dtype.itemsize,
                "documents": files[f"{name}.documents"]["bytes"] // 8 - 1,
            }
            for name, count in characters.items()
        },
        "files": files,
        **said,
    }
    text = json.dumps({**content, "sha256": _sum_of(content)}, indent=1)
    write_text(directory / MANIFEST_FILE, text + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest, once every file is found to be as it says. Raises InputError naming the damaged file."""
    path = directory / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(directory, f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != _sum_of(content):
        raise _damaged(directory, f"{path} is not what its own SHA-256 says")
    for name, expected in content["files"].items():
        file = directory / name
        try:
            found = _measure(file)
        except OSError as error:
            raise _damaged(directory, f"{file} cannot be read ({error.strerror or error})") from error
        if found["bytes"] != expected["bytes"]:
            raise _damaged(
                directory, f"{file} has {found['bytes']:,} bytes and was written with {expected['bytes']:,}"
            )
        if found != expected:
            raise _damaged(directory, f"{file} is not what its SHA-256 says")
    return content


def open_token_file(directory: Path, split: str, manifest: Mapping[str, Any]) -> TokenFile:
    """Map the files of a split; `read_manifest` has checked them."""
    dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
    counts = manifest["splits"][split]
    path = directory / f"{split}.tokens"
    # an empty file cannot be mapped
    tokens = np.memmap(path, dtype=dtype, mode="r") if counts["tokens"] else np.zeros(0, dtype=dtype)
    documents = np.fromfile(directory / f"{split}.documents", dtype="<i8").astype(np.int64)
    return TokenFile(tokens, documents, counts["characters"])


def _damaged(directory: Path, what: str) -> InputError:
    return InputError(f"{what}; delete {directory} and run again to make its token files anew")


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sum_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
