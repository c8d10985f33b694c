"""An n-gram table in one safetensors file: written whole or not at all, memory-mapped when opened.

The header carries a digest of all that is said in it and of all numbers, so damage of any kind is seen. It
does not know what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

_KEY = "tokenzero_ngram"
_TYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "I32": np.dtype(np.int32),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}

Arrays = Mapping[str, NDArray[Any]]


def write_table(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Write contiguous i64, f64 and i32 ``arrays`` and what is said ``about`` them; the same ones give the
    same bytes.
    """
    # Wide numbers first: every array then begins at a multiple of its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    entries: dict[str, Any] = {}
    end = 0
    for name in names:
        begin, end = end, end + arrays[name].nbytes
        entries[name] = {
            "dtype": _NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
    told = {**about, "sha256": _digest(about, entries, *(arrays[name] for name in names))}
    header = json.dumps({"__metadata__": {_KEY: json.dumps(told)}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            file.write(arrays[name].data)
    os.replace(partial, path)


def read_table(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What is said about the table, and its arrays as read-only views of the file.

    Raises InputError naming a file that is missing, cut, damaged or something else.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise InputError(f"n-gram table {path} cannot be read: {error}") from error
    data = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(bytes(content[8:data]))
        told = json.loads(header.pop("__metadata__", {}).get(_KEY, "{}"))
        expected = told.pop("sha256", None)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"n-gram table {path} is not a whole safetensors file: fit it again") from error
    if expected is None:
        raise InputError(f"{path} is not an n-gram table that this version knows: fit it again")
    if _digest(told, header, memoryview(content)[data:]) != expected:
        raise InputError(f"n-gram table {path} is damaged (its digest is another): fit it again")
    arrays = {}
    for name, entry in header.items():
        begin, end = (data + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(content, np.uint8)[begin:end].view(_TYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return told, arrays


def _digest(about: Mapping[str, Any], entries: Mapping[str, Any], *data: Any) -> str:
    digest = hashlib.sha256(json.dumps([about, entries], sort_keys=True).encode())
    for part in data:
        digest.update(part)
    return digest.hexdigest()
