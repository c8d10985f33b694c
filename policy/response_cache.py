"""Answers of remote servers on disk, keyed by the request, so that a run that is resumed hears the same
again.

One SQLite file holds them; every write is one transaction, so a killed process loses at most the answer it
was writing. What is damaged is left out, counted and asked for again; it never stops a run. The cache does
not know what a request or an answer is, does not expire anything by age and keeps no keys of servers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from tokenzero.mcts.errors import InputError

__all__ = ["ResponseCache", "request_key"]

FILE_NAME = "responses.sqlite3"
_FORMAT = 1  # part of every key: a new format does not read the old one's entries
_TABLE = """
create table if not exists responses (
  key text primary key, body blob not null, digest blob not null, used integer not null
)
"""
_OLDEST = "select key from responses order by used, key limit 1"


def request_key(url: str, endpoint: str, body: Mapping[str, Any]) -> str:
    """sha256 (hex) of the request in one canonical spelling; the order of its fields does not matter."""
    text = json.dumps(
        [_FORMAT, url, endpoint, body], sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class ResponseCache:
    """JSON objects by key in ``directory``, at most ``max_bytes`` of them; the least recently used leave
    first.

    ``corrupt`` counts entries (or whole files) that could not be read, ``unwritten`` answers that could not
    be kept because the disk refused. Several threads may use one cache, several processes one directory.
    Close it. Raises InputError when the directory cannot be made or opened.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError(f"response cache of {max_bytes} bytes: give at least 1")
        self.path = Path(directory) / FILE_NAME
        self.max_bytes = max_bytes
        self.corrupt = 0
        self.unwritten = 0
        self._lock = Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = _connect(self.path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self.corrupt += 1
                _move_aside(self.path)
                self._connection = _connect(self.path)
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"response cache {self.path} cannot be opened: {error}; name a directory you may write to"
            ) from error
        used, self._bytes = self._connection.execute(
            "select coalesce(max(used), 0), coalesce(sum(length(body)), 0) from responses"
        ).fetchone()
        self._clock = int(used)

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The objects of those keys that are known; they count as used now."""
        found: dict[str, Any] = {}
        with self._lock:
            try:
                with self._connection:
                    for key in keys:
                        value = self._read(key)
                        if value is not None:
                            found[key] = value
            except sqlite3.Error:  # a damaged page, or a disk that refuses the mark of use
                self.corrupt += 1
        return found

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep ``value`` under ``key``. A disk that refuses is counted, not raised."""
        body = json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii")
        if len(body) > self.max_bytes:
            return
        with self._lock:
            try:
                with self._connection:
                    self._forget(key)
                    self._clock += 1
                    row = (key, body, hashlib.sha256(body).digest(), self._clock)
                    self._connection.execute("insert into responses values (?, ?, ?, ?)", row)
                    self._bytes += len(body)
                    self._make_room()
            except sqlite3.Error:
                self.unwritten += 1
                with suppress(sqlite3.Error):  # what was counted above was rolled back
                    self._bytes = self._measured()

    def close(self) -> None:
        """Close the file; the cache is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("select count(*) from responses").fetchone()[0])

    def _read(self, key: str) -> Any:
        row = self._connection.execute("select body, digest from responses where key = ?", (key,)).fetchone()
        if row is None:
            return None
        body, digest = row
        if not isinstance(body, bytes) or hashlib.sha256(body).digest() != digest:
            self.corrupt += 1
            self._forget(key)
            return None
        self._clock += 1
        self._connection.execute("update responses set used = ? where key = ?", (self._clock, key))
        return json.loads(body)

    def _forget(self, key: str) -> None:
        size = self._connection.execute("select length(body) from responses where key = ?", (key,)).fetchone()
        if size is not None:
            self._connection.execute("delete from responses where key = ?", (key,))
            self._bytes -= size[0]

    def _make_room(self) -> None:
        if self._bytes <= self.max_bytes:
            return
        self._bytes = self._measured()  # other processes write too
        # a tenth more than needed, so that a full cache does not measure itself at every answer
        while self._bytes > 0.9 * self.max_bytes:
            self._forget(self._connection.execute(_OLDEST).fetchone()[0])

    def _measured(self) -> int:
        return int(
            self._connection.execute("select coalesce(sum(length(body)), 0) from responses").fetchone()[0]
        )


def _connect(path: Path) -> sqlite3.Connection:
    """Open or make the file. Raises sqlite3.Error, DatabaseError itself when it is no database."""
    connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    try:
        # readers and one writer at a time without a flush per answer; a crash of the machine may lose the
        # last answers, never the file
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.execute(_TABLE)
        connection.execute("create index if not exists by_use on responses (used, key)")
        connection.commit()
        if connection.execute("pragma quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the file is damaged")
    except BaseException:
        connection.close()
        raise
    return connection


def _move_aside(path: Path) -> None:
    """Keep a damaged file for whoever wants to look at it, out of the way."""
    os.replace(path, path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
