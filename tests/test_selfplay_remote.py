"""Self-play with a remote teacher and a remote judge behind a server that fails half of the time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from completion_server import Asked, Reply, chat, completion, error, old_logprobs, serving
from tiny_run import tiny_config

from tokenzero.policy.completion_client import ServerConfig
from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.episode import read_episodes
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import shard_path
from tokenzero.teachers import EnsembleConfig
from tokenzero.teachers.remote import RemoteTeacherConfig
from tokenzero.value.remote_judge import RemoteJudgeConfig

pytest.importorskip("httpx")


def half_fails(asked: Asked) -> Reply:
    """Which half depends on the request alone, so that every run meets the same failures."""
    digest = hashlib.sha256(str(asked.body).encode()).digest()
    if digest[0] < 128:
        return [error(500), error(400), Reply(b"{"), Reply(b"{}")][digest[1] % 4]
    if "messages" in asked.body:
        return chat("good" if digest[1] < 128 else "bad")
    return completion(asked, lambda prompt: "1", lambda prompt: old_logprobs({" 1": -0.5, " +": -1.5}))


def test_half_of_all_remote_calls_failing_loses_no_game_and_is_reported(tmp_path: Path) -> None:
    with serving(half_fails) as server:
        remote = ServerConfig(
            url=server.url, model="m", retries=0, backoff_s=0.0, timeout_s=20.0, breaker_failures=10_000,
            prompts_per_request=1,
        )  # fmt: skip
        config = tiny_config()
        config = replace(
            config,
            teachers=[RemoteTeacherConfig(server=remote, label="far", bench_after=10_000)],
            ensemble=EnsembleConfig(beta=0.3, visits=2),
            judge=RemoteJudgeConfig(server=remote),
            arena=ArenaConfig(),
            evaluation=replace(config.evaluation, problems=0),
            rounds=2,
        )
        records = Run(config, tmp_path / "run").execute()
    for record in records[1:]:
        games = read_episodes(shard_path(tmp_path / "run", record["round"]))
        assert record["games"] == len(games) == 16
        asked, failed = record["consulted"]["far"]["states"], record["consulted"]["far"]["failures"]
        assert asked > 20
        assert set(failed) == {"server error", "refused", "malformed JSON", "wrong schema"}
        assert record["failures"]["judge"] > 0
        assert record["ledger"]["teacher_tokens"] > 0
        assert record["ledger"]["judge_tokens"] > 0
        assert sum(episode.verdict != 0 for episode in games) > 0
        assert asked - sum(failed.values()) == record["consulted"]["far"]["spoke"]
        assert 0.3 * asked < sum(failed.values()) < 0.7 * asked
