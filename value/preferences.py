"""Preferences: which of two answers to a prompt is the better one, read from files and written to them.

JSONL, CSV and Parquet, with one pair a row (prompt, chosen, rejected), a ranking a row (prompt, answers,
ranks) or chat messages in place of texts. It does not score anything, and it does not guess: a row that can
be read in two ways is refused with its line.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes, write_text

SUFFIXES = (".jsonl", ".csv", ".parquet")
_FIELDS = ("prompt", "chosen", "rejected", "margin", "answers", "ranks")
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Preference:
    """To ``prompt`` the answer ``chosen`` is better than ``rejected``, by at least ``margin`` (in units of
    the reward; None where nobody said how much).

    Raises InputError when both answers are the same or the margin is not a number of at least 0.
    """

    prompt: str
    chosen: str
    rejected: str
    margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "chosen", "rejected"):
            _check_text(name, getattr(self, name))
        if self.chosen == self.rejected:
            raise InputError("chosen and rejected are the same text; remove the pair")
        if self.margin is not None:
            _check_number("margin", self.margin)
            if self.margin < 0:
                raise InputError(f"margin is {self.margin}; give a number of at least 0")


def read_preferences(path: str | os.PathLike[str]) -> list[Preference]:
    """The pairs of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in its order.

    A row has ``prompt``, ``chosen`` and ``rejected``, with ``margin`` where it is known; or ``prompt``,
    ``answers`` and ``ranks`` (1 is the best, equal ranks say nothing), which gives every pair of differently
    ranked answers. In CSV answers and ranks are JSON lists. Each text may be a list of chat messages
    ({"role", "content"}); messages with which chosen and rejected both begin belong to the prompt, which may
    then be missing. Other columns are not read.

    Raises InputError for a file that cannot be read or holds no pair, and for a row that is not as above; the
    message names the file and the line (the row in Parquet).
    """
    file = Path(path)
    readers = dict(zip(SUFFIXES, (_jsonl_rows, _csv_rows, _parquet_rows), strict=True))
    if file.suffix not in readers:
        raise InputError(f"preferences {file}: unknown kind of file; use one of {', '.join(SUFFIXES)}")
    found: list[Preference] = []
    for place, row in readers[file.suffix](file):
        try:
            found.extend(_pairs(row))
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    if not found:
        raise InputError(f"preferences {file}: no pair in it; give at least one")
    return found


def write_preferences(path: str | os.PathLike[str], preferences: Sequence[Preference]) -> None:
    """Write pairs so that `read_preferences` gives them back; the file appears whole or not at all.

    Raises InputError for an unknown suffix, OutputError when the disk refuses.
    """
    file = Path(path)
    rows = [_as_row(preference) for preference in preferences]
    if file.suffix == ".jsonl":
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif file.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _FIELDS[:4], restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(file, text.getvalue())
    elif file.suffix == ".parquet":
        write_bytes(file, _as_parquet(preferences))
    else:
        raise InputError(f"preferences {file}: unknown kind of file; use one of {', '.join(SUFFIXES)}")


def split_by_prompt(
    preferences: Iterable[Preference], held_out: float, seed: int = 0
) -> tuple[list[Preference], list[Preference]]:
    """(training, held-out) pairs, in order: about a share ``held_out`` of the prompts is held out, each
    prompt with all of its pairs.

    A prompt's side depends on the prompt and ``seed`` alone, so pairs that are added later move none of those
    that were there. Raises InputError for a share outside [0, 1).
    """
    if not 0 <= held_out < 1:
        raise InputError(f"held-out share is {held_out}; give a share from 0 to below 1")
    sides: tuple[list[Preference], list[Preference]] = ([], [])
    for preference in preferences:
        digest = hashlib.sha256(f"{seed}\0{preference.prompt}".encode()).digest()
        sides[int.from_bytes(digest[:8]) < held_out * 2.0**64].append(preference)
    return sides


# ---- rows of files


def _jsonl_rows(file: Path) -> Iterator[tuple[str, _Row]]:
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not one JSON object ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{place}: a {type(row).__name__}, not a JSON object with named fields")
        yield place, row


def _csv_rows(file: Path) -> Iterator[tuple[str, _Row]]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{file}:{reader.reader.line_num}: not CSV ({error})") from error
        place = f"{file}:{reader.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{place}: more or fewer cells than the header has columns; quote the texts")
        yield place, _csv_values(place, row)


def _csv_values(place: str, row: Mapping[str, str]) -> _Row:
    """Cells as values: lists and numbers are written as JSON, an empty margin or list is none."""
    values: dict[str, Any] = dict(row)
    for name in ("margin", "answers", "ranks"):
        cell = values.pop(name, "")
        if cell:
            try:
                values[name] = json.loads(cell)
            except json.JSONDecodeError as error:
                raise InputError(f"{place}: {name} is {cell[:40]!r}, which is not JSON ({error})") from error
    if "answers" in values:  # a file may hold both kinds of row; the other kind's cells are then empty
        values = {name: value for name, value in values.items() if value != "" or name == "prompt"}
    return values


def _parquet_rows(file: Path) -> Iterator[tuple[str, _Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as source:
            wanted = [name for name in source.schema_arrow.names if name in _FIELDS]
            rows = source.read(columns=wanted).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"preferences {file} cannot be read: {reason}") from error
    for number, row in enumerate(rows, 1):
        yield f"{file}: row {number}", {name: value for name, value in row.items() if value is not None}


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"preferences {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"preferences {file}: not UTF-8 ({error}); convert it") from error


def _as_row(preference: Preference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": preference.prompt,
        "chosen": preference.chosen,
        "rejected": preference.rejected,
    }
    if preference.margin is not None:
        row["margin"] = preference.margin
    return row


def _as_parquet(preferences: Sequence[Preference]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [(name, pa.string()) for name in ("prompt", "chosen", "rejected")]
    columns = {name: [getattr(one, name) for one in preferences] for name in _FIELDS[:4]}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema([*texts, ("margin", pa.float64())])), buffer)
    return buffer.getvalue()


# ---- pairs of one row


def _pairs(row: _Row) -> list[Preference]:
    ranked, paired = "answers" in row or "ranks" in row, "chosen" in row or "rejected" in row
    if ranked and paired:
        raise InputError("has chosen or rejected as well as answers or ranks; keep one of the two forms")
    if ranked:
        return _ranked_pairs(row)
    return [_pair(row)]


def _pair(row: _Row) -> Preference:
    chosen, rejected = _required(row, "chosen"), _required(row, "rejected")
    margin = row.get("margin")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return Preference(_flat("prompt", _required(row, "prompt")), chosen, rejected, margin)
    chosen, rejected = _messages("chosen", chosen), _messages("rejected", rejected)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = _shared_prompt(row, chosen[:shared])
    return Preference(prompt, _join(chosen[shared:]), _join(rejected[shared:]), margin)


def _shared_prompt(row: _Row, beginning: list[tuple[str, str]]) -> str:
    """The prompt of two chats that begin with the same messages; one that is given must say the same."""
    if "prompt" not in row:
        if not beginning:
            raise InputError("has no prompt, and chosen and rejected begin with different messages; add it")
        return _join(beginning)
    given = _flat("prompt", row["prompt"])
    if beginning and given not in (_join(beginning), beginning[-1][1]):
        raise InputError("the prompt is not what chosen and rejected begin with; remove one of the two")
    return _join(beginning) if beginning else given


def _ranked_pairs(row: _Row) -> list[Preference]:
    prompt = _flat("prompt", _required(row, "prompt"))
    answers, ranks = _required(row, "answers"), _required(row, "ranks")
    if not isinstance(answers, list) or not isinstance(ranks, list) or len(answers) != len(ranks):
        raise InputError("answers and ranks must be two lists of the same length")
    if row.get("margin") is not None:
        raise InputError("a margin belongs to one pair, not to a ranking; remove it")
    texts = [_flat("answers", answer) for answer in answers]
    for rank in ranks:
        _check_number("ranks", rank)
    pairs = []
    for first, second in combinations(range(len(texts)), 2):
        if ranks[first] != ranks[second]:
            better, worse = (first, second) if ranks[first] < ranks[second] else (second, first)
            pairs.append(Preference(prompt, texts[better], texts[worse]))
    return pairs


def _required(row: _Row, name: str) -> Any:
    if row.get(name) is not None:
        return row[name]
    near = difflib.get_close_matches(name, [str(key) for key in row if key not in _FIELDS], n=1)
    hint = f"; did {near[0]!r} mean it?" if near else f"; fields: {', '.join(map(str, row)) or 'none'}"
    raise InputError(f"has no {name}{hint}")


def _flat(name: str, value: Any) -> str:
    return value if isinstance(value, str) else _join(_messages(name, value))


def _messages(name: str, value: Any) -> list[tuple[str, str]]:
    """(role, content) of each message; a text is one message of the assistant."""
    if isinstance(value, str):
        return [("assistant", value)]
    if not isinstance(value, list) or not value:
        raise InputError(f"{name} is {str(value)[:40]!r}; give a text or a list of chat messages")
    messages = []
    for message in value:
        role, content = (
            (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        )
        if not isinstance(role, str) or not isinstance(content, str):
            raise InputError(f"{name} holds {str(message)[:40]!r}; a message has a role and a content text")
        messages.append((role, content))
    return messages


def _join(messages: Sequence[tuple[str, str]]) -> str:
    """One message is its content; several are told apart by who speaks."""
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in messages)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} is {str(value)[:40]!r}; give a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # lone surrogates, which JSON lets through
        raise InputError(f"{name} is not valid Unicode text ({error.reason})") from error


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} holds {str(value)[:40]!r}; give finite numbers")
