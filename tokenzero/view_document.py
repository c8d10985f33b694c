"""Search trees as JSON, checked when read back.

``{"format": "tokenzero-tree", "version": 1, "title", "answer", "searches": [...]}``: one game, with a search
for each move, or a single one. A search holds the fields of ``selfplay.recorded_tree.RecordedTree``; unknown
numbers are null. It draws no pages (see ``view``) and
writes no other formats (see ``view_export``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.recorded_tree import RecordedTree

FORMAT, VERSION = "tokenzero-tree", 1
Document = dict[str, Any]


def document(trees: Sequence[RecordedTree], answer: str = "", title: str = "") -> Document:
    """The JSON object of a game's searches, in the order of its moves."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "title": title,
        "answer": answer,
        "searches": [_search(tree) for tree in trees],
    }


def to_json(found: Document) -> str:
    """The document as strict JSON text: what is not a number is null, and all of it is ASCII."""
    return json.dumps(found, allow_nan=False, separators=(",", ":"))


def read_document(path: Path) -> Document:
    """The document in a file. Raises InputError for a file that is missing, damaged or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as a search tree ({reason}); write it anew") from error
    try:
        check(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dict(found)


def check(found: Any) -> None:
    """Raises InputError, one line, for an object that is no document of this version."""
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise InputError(f'this is no search tree ("format" is not "{FORMAT}"); give what --tree wrote')
    if found.get("version") != VERSION:
        raise InputError(f"version {found.get('version')!r} is unknown; this program reads version {VERSION}")
    searches = found.get("searches")
    if not isinstance(searches, list) or not searches:
        raise InputError("searches is empty or missing; there is nothing to show")
    for name in ("answer", "title"):
        if not isinstance(found.get(name, ""), str):
            raise InputError(f"{name} is no text")
    for number, one in enumerate(searches):
        try:
            recorded(one)
        except InputError as error:
            raise InputError(f"search {number} is damaged: {error}") from error


def trees_of(found: Mapping[str, Any]) -> list[RecordedTree]:
    """The searches of a document. Raises InputError for a damaged one."""
    check(found)
    return [recorded(one) for one in found["searches"]]


@dataclass(frozen=True)
class _Column:
    """A field of one value for each node: ``kind`` of its array; ``low`` the least value allowed."""

    kind: Any
    low: float = -np.inf
    optional: bool = False
    unknown: bool = False  # whether null may stand for a number


COLUMNS = {
    "parent": _Column(np.int32, -1),
    "visits": _Column(np.int32, 0),
    "value": _Column(np.float32, unknown=True),
    "raw_value": _Column(np.float32, unknown=True),
    "prior": _Column(np.float32, 0, unknown=True),
    "terminal": _Column(np.bool_),
    "solved": _Column(np.bool_),
    "exhausted": _Column(np.bool_),
    "weight": _Column(np.float32, 0, optional=True, unknown=True),
    "reward": _Column(np.float32, optional=True),
    "lost": _Column(np.int32, 0, optional=True),
    "judge": _Column(np.int8, -1, optional=True),
}


def _search(tree: RecordedTree) -> Document:
    return {
        "prompt": tree.prompt,
        "before": tree.before,
        "position": tree.position,
        "method": tree.method,
        "settings": {name: _setting(value) for name, value in tree.settings.items()},
        "counted": tree.counted,
        "note": tree.note,
        "discount": tree.discount,
        "actions": tree.actions,
        "text": tree.text,
        **{name: _plain(getattr(tree, name)) for name in COLUMNS},
        "proposers": tree.proposers,
        "shares": None if tree.shares is None else [_plain(row) for row in tree.shares],
        "ended": tree.ended.tolist(),
        "outcome": _plain(tree.outcome),
        "committed": tree.committed,
    }


def _setting(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _plain(array: npt.NDArray[Any] | None) -> list[Any] | None:
    """Plain Python values, floats at the shortest text that reads back as the same f32; NaN is None."""
    if array is None:
        return None
    if array.dtype.kind != "f":
        return list(array.tolist())
    return [float(str(x)) if np.isfinite(x) else None for x in array.astype(np.float32)]


def recorded(one: Any) -> RecordedTree:
    """A search of a document. Raises InputError that names the first field that is wrong."""
    if not isinstance(one, Mapping):
        raise InputError("it is no object")
    parent = _column(one, "parent", None)
    assert parent is not None
    nodes = len(parent)
    if not nodes or parent[0] != -1 or (parent[1:] < 0).any() or (parent >= np.arange(nodes)).any():
        raise InputError("parent does not describe a tree with parents before their children")
    columns = {name: _column(one, name, nodes) for name in COLUMNS if name != "parent"}
    texts = _list(one, "text", lambda x: isinstance(x, str), nodes)
    actions = _list(one, "actions", _is_ids, nodes)
    ended = _list(one, "ended", lambda x: _is_id(x) and 0 <= x < nodes)
    outcome = _list(one, "outcome", _is_number)
    if len(outcome) not in (0, len(ended)):
        raise InputError(f"outcome has {len(outcome)} values for {len(ended)} simulations")
    proposers = _list(one, "proposers", lambda x: isinstance(x, str))
    shares = one.get("shares")
    if shares is not None:
        shares = _list(one, "shares", lambda row: _is_numbers(row, len(proposers)), nodes)
    settings = one.get("settings", {})
    if not isinstance(settings, Mapping):
        raise InputError("settings is no object")
    for name, value in settings.items():
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise InputError(f"setting {name} is no number, text or truth value")
    if one.get("counted", "visits") not in ("visits", "states"):
        raise InputError(f"counted is {one.get('counted')!r}, not visits or states")
    if not _is_id(one.get("position", 0)):
        raise InputError("position is no whole number")
    if not _is_number(one.get("discount", 1.0)):
        raise InputError("discount is no number")
    for name in ("prompt", "before", "method", "note"):
        if not isinstance(one.get(name, ""), str):
            raise InputError(f"{name} is no text")
    return RecordedTree(
        prompt=one.get("prompt", ""),
        before=one.get("before", ""),
        position=one.get("position", 0),
        method=one.get("method", ""),
        note=one.get("note", ""),
        settings=dict(settings),
        counted=one.get("counted", "visits"),
        discount=float(one.get("discount", 1.0)),
        parent=parent,
        text=texts,
        actions=actions,
        proposers=proposers,
        shares=None if shares is None else np.asarray(shares, np.float32),
        ended=np.asarray(ended, np.int32),
        outcome=np.asarray(outcome, np.float32),
        committed=_list(one, "committed", lambda x: _is_id(x) and 0 < x < nodes),
        **columns,  # type: ignore[arg-type]
    )


def _column(one: Mapping[str, Any], name: str, nodes: int | None) -> npt.NDArray[Any] | None:
    rule, values = COLUMNS[name], one.get(name)
    if values is None and rule.optional:
        return None
    kind = np.dtype(rule.kind).kind

    def fits(x: Any) -> bool:
        if kind == "b":
            return isinstance(x, bool)
        if x is None:
            return rule.unknown
        return (_is_number(x) if kind == "f" else _is_id(x)) and x >= rule.low

    return np.asarray(
        [np.nan if value is None else value for value in _list(one, name, fits, nodes)], rule.kind
    )


def _list(
    one: Mapping[str, Any], name: str, fits: Callable[[Any], bool], length: int | None = None
) -> list[Any]:
    values = one.get(name)
    if not isinstance(values, list):
        raise InputError(f"{name} is missing or no list")
    if length is not None and len(values) != length:
        raise InputError(f"{name} has {len(values)} values for {length} nodes")
    for index, value in enumerate(values):
        if not fits(value):
            raise InputError(f"{name}[{index}] is {str(value)[:40]!r}, which does not belong there")
    return values


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 3.5e38


def _is_id(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and abs(x) < 2**31


def _is_ids(x: Any) -> bool:
    return isinstance(x, list) and all(_is_id(token) for token in x)


def _is_numbers(x: Any, count: int) -> bool:
    return isinstance(x, list) and len(x) == count and all(_is_number(share) for share in x)
