"""Rows of questions out of JSONL, CSV and Parquet files, or out of a data set of the package datasets.

Every row remembers where it stands, so that a mistake in the data is reported by file, line and field. What
the fields mean is left to the tasks. Nothing is downloaded unless a data set is asked for by name.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
Paths = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its fields by name, and where it stands, for example "train.jsonl line 7"."""

    fields: Mapping[str, Any]
    where: str

    def text(self, field: str, empty: bool = False) -> str:
        """A field as text, stripped; numbers as they are written. Raises InputError if it is missing, of
        another kind, or has nothing in it, unless it may be ``empty``.
        """
        if self.fields.get(field) is None:
            known = ", ".join(sorted(str(name) for name in self.fields if name is not None))
            raise InputError(f"{self.where}: field {field!r} is missing; the fields here are {known}")
        value = self.fields[field]
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not number and not isinstance(value, str):
            raise InputError(f"{self.where}: field {field!r} is {value!r}; give text or a number")
        text = str(value).strip()
        if not text and not empty:
            raise InputError(f"{self.where}: field {field!r} is empty; fill it in or leave the row out")
        return text

    def texts(self, field: str) -> list[str]:
        """A field that is a list of texts. Raises InputError if it is anything else."""
        value = self.fields.get(field)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise InputError(f"{self.where}: field {field!r} is {value!r}; give a list of texts")
        if not value or not all(isinstance(item, str) and item.strip() for item in value):
            raise InputError(f"{self.where}: field {field!r} is {value!r}; give texts that are not empty")
        return [item.strip() for item in value]


def as_paths(paths: Paths) -> tuple[str, ...]:
    """One path, several, or none ("") as a tuple."""
    if isinstance(paths, str):
        return (paths,) if paths else ()
    return tuple(paths)


def read_files(paths: Iterable[str], option: str) -> list[Row]:
    """The rows of files, in order. ``option`` names the setting that holds the paths, for messages.

    Raises InputError for a file that is missing, of another kind, or broken.
    """
    return [row for path in paths for row in _read_file(Path(path), option)]


def _read_file(path: Path, option: str) -> Iterator[Row]:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {str(path)!r} is of no known kind; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(
            f"{option} {str(path)!r} does not exist; give the path of a {', '.join(SUFFIXES)} file"
        )
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    try:
        yield from readers.get(path.suffix.lower(), _read_jsonl)(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                fields = json.loads(line, parse_int=str, parse_float=str)  # every digit as written
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not JSON ({error}); write one object a line") from error
            if not isinstance(fields, dict):
                raise InputError(f"{where} is no object but {line.strip()[:40]!r}; write one object a line")
            yield Row(fields, where)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{path} line {reader.reader.line_num} is not CSV ({error}); quote its fields"
                ) from error
            if fields is None:
                return
            where = f"{path} line {reader.line_num}"
            if None in fields:
                raise InputError(f"{where} has more fields than the heading; quote fields that hold commas")
            yield Row(fields, where)


def _read_parquet(path: Path) -> Iterator[Row]:
    parquet, arrow = importlib.import_module("pyarrow.parquet"), importlib.import_module("pyarrow")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path} is not Parquet ({reason}); write it anew") from error
    for number, fields in enumerate(table.to_pylist(), 1):
        yield Row(fields, f"{path} row {number}")


def read_dataset(name: str, subset: str) -> dict[str, list[Row]]:
    """The rows of every split of a data set, by `datasets.load_dataset` (it may download).

    Raises InputError when the package is missing or the data set cannot be opened.
    """
    try:
        package = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"dataset {name!r} needs the package datasets; run pip install datasets, or give files"
        ) from error
    try:
        splits = package.load_dataset(name, subset or None)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"dataset {name!r} cannot be opened ({reason}); give files instead") from error
    return {
        split: [Row(fields, f"{name} {split} row {number}") for number, fields in enumerate(rows, 1)]
        for split, rows in splits.items()
    }
