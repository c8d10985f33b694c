"""Where an OpenAI-compatible server is, how it is asked, and where its key comes from.

A configuration names an environment variable or a file; the key itself is in no config, no message and no
record of a run. This file sends nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tokenzero.mcts.errors import InputError

__all__ = ["ServerConfig", "api_key", "base_url", "is_loopback"]


@dataclass(frozen=True)
class ServerConfig:
    """One model of one server.

    ``url``: the address, with or without ``/v1``; ``model``: its name there. ``key_env`` or ``key_file`` say
    where the key is; a local server needs neither.

    ``timeout_s``: most seconds one answer may take, from sending to its last byte. ``concurrency``: requests
    in flight. ``prompts_per_request``: prompts put into one request of /v1/completions, where the server
    takes them. ``retries``: further attempts after a fault that may pass; the n-th waits ``backoff_s`` times
    2^n, less up to half of it by chance, or what the server asks for. Nobody waits longer than
    ``longest_wait_s``: a server that asks for more has failed.

    ``requests_per_minute`` and ``tokens_per_minute``: limits kept on this side, null for none.
    ``breaker_failures`` requests in a row that failed for good stop the traffic for
    ``breaker_cooldown_s`` seconds, then one request tries again; each failed trial doubles the pause.

    ``cache_dir``: keeps answers in this directory, at most ``cache_mb`` MiB of them; null for no cache.
    ``extra``: fields put into every request as they are; null takes a field out (``max_tokens: null,
    max_completion_tokens: 8`` for servers that know only the newer name). ``seed`` fixes the chance in the
    waits.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    url: str
    model: str
    key_env: str | None = None
    key_file: str | None = None
    timeout_s: float = 60.0
    concurrency: int = 8
    prompts_per_request: int = 8
    retries: int = 3
    backoff_s: float = 0.5
    longest_wait_s: float = 60.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    breaker_failures: int = 8
    breaker_cooldown_s: float = 5.0
    cache_dir: str | None = None
    cache_mb: float = 256.0
    extra: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        base_url(self.url)
        if not self.model:
            raise InputError("server.model is empty; give the name the server lists under /v1/models")
        if self.key_env is not None and self.key_file is not None:
            raise InputError("server has both key_env and key_file; give one of them")
        at_least_one = ("concurrency", "prompts_per_request", "breaker_failures")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise InputError(f"server.{name} is {getattr(self, name)}; give at least 1")
        for name in ("timeout_s", "breaker_cooldown_s", "cache_mb"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"server.{name} is {getattr(self, name)}; give a number above 0")
        for name in ("retries", "backoff_s", "longest_wait_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"server.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < float("inf"):
                raise InputError(f"server.{name} is {limit}; give a number above 0, or null for no limit")


def base_url(url: str) -> str:
    """The address that ``/completions`` and ``/chat/completions`` are put behind.

    A bare host gets ``/v1``; an address of one of the two endpoints loses it. Raises InputError when it is
    not an http address, or holds a password, a query or a fragment.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        # the text is not repeated here: it may hold a key
        raise InputError(
            "server.url holds a name, password, query or fragment; give the bare address, "
            "and the key by key_env or key_file"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"server.url is {url!r}; give an address such as http://127.0.0.1:8000/v1")
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/completions"):
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def is_loopback(url: str) -> bool:
    """Whether the address is this machine, which no proxy can reach for us."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def api_key(config: ServerConfig, environment: Mapping[str, str] | None = None) -> str | None:
    """The key, or None when the config names none.

    Raises InputError when the variable or file is missing or empty, the file may be read by others than its
    owner, or the key cannot stand in an HTTP header. No message holds the key.
    """
    if config.key_env is not None:
        key = (os.environ if environment is None else environment).get(config.key_env, "").strip()
        if not key:
            raise InputError(
                f"environment variable {config.key_env} is not set; export it with the server's key"
            )
        where = f"environment variable {config.key_env}"
    elif config.key_file is not None:
        key = _read_key(Path(config.key_file).expanduser())
        where = f"key file {config.key_file}"
    else:
        return None
    if not all("!" <= letter <= "~" for letter in key):
        raise InputError(f"{where} does not hold one key: white space or letters outside ASCII are in it")
    return key


def _read_key(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError(
                f"key file {path} may be read by others (mode {stat.S_IMODE(mode):o}); run chmod 600 on it"
            )
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(
            f"key file {path} cannot be read: {reason}; name a file that holds the key"
        ) from error
    if not key:
        raise InputError(f"key file {path} is empty; put the server's key in it")
    return key
