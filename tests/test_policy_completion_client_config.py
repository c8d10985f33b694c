"""Server settings and keys: mistakes are one line each, and no line holds a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client_config import ServerConfig, api_key, base_url, is_loopback

URL = "http://127.0.0.1:8000"
KEY = "sk-abc123"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        (URL, f"{URL}/v1"),
        (f"{URL}/", f"{URL}/v1"),
        (f"{URL}/v1/", f"{URL}/v1"),
        (f"{URL}/v1/chat/completions", f"{URL}/v1"),
        (f"{URL}/v1/completions", f"{URL}/v1"),
        ("https://host.example/api/v1", "https://host.example/api/v1"),
    ],
)
def test_addresses_are_brought_to_one_spelling(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://", "localhost"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="give an address"):
        base_url(url)


@pytest.mark.parametrize("url", [f"https://me:{KEY}@x/v1", f"https://x/v1?key={KEY}", f"https://x/v1#{KEY}"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InputError, match="bare address") as caught:
        ServerConfig(url=url, model="m")
    assert KEY not in str(caught.value)


def test_this_machine_is_known() -> None:
    assert is_loopback("http://localhost:1")
    assert is_loopback("http://[::1]:1/v1")
    assert not is_loopback("http://localhost.example:1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model is empty"),
        ({"key_env": "A", "key_file": "b"}, "give one of them"),
        ({"concurrency": 0}, "server.concurrency is 0"),
        ({"prompts_per_request": 0}, "prompts_per_request"),
        ({"breaker_failures": 0}, "breaker_failures"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"breaker_cooldown_s": float("inf")}, "breaker_cooldown_s"),
        ({"cache_mb": -1.0}, "cache_mb"),
        ({"retries": -1}, "retries"),
        ({"backoff_s": -0.1}, "backoff_s"),
        ({"longest_wait_s": -1.0}, "longest_wait_s"),
        ({"requests_per_minute": 0.0}, "requests_per_minute"),
        ({"tokens_per_minute": -5.0}, "tokens_per_minute"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServerConfig(**{"url": URL, "model": "m", **settings})


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServerConfig(url=URL, model="m", key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    assert api_key(config) == KEY
    assert KEY not in repr(config)
    monkeypatch.setenv("SOME_KEY", " ")
    with pytest.raises(InputError, match="SOME_KEY is not set"):
        api_key(config)
    monkeypatch.setenv("SOME_KEY", f"{KEY} {KEY}")
    with pytest.raises(InputError, match="does not hold one key") as caught:
        api_key(config)
    assert KEY not in str(caught.value)
    assert api_key(ServerConfig(url=URL, model="m")) is None


def test_a_key_file_is_read_only_when_it_is_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    config = ServerConfig(url=URL, model="m", key_file=str(path))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        api_key(config)
    path.write_text(KEY + "\n")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(
            InputError, match=rf"may be read by others \(mode {mode:o}\); run chmod 600"
        ) as caught:
            api_key(config)
        assert KEY not in str(caught.value)
    path.chmod(0o600)
    assert api_key(config) == KEY
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        api_key(config)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        api_key(config)
