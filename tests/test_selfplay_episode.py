"""Episodes: from games to Parquet and back, exactly; damaged files are named."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Mirror, make_student, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError
from tokenzero.selfplay.episode import ADDED, SCHEMA, Episode, from_game, read_episodes, write_episodes
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.player import Player

FLOATS = st.floats(-1, 1, width=32)
IDS = st.integers(0, 2**40)
VERDICTS = st.integers(-1, 1)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    searched = draw(st.integers(0, 3))
    widths = [draw(st.integers(0, 3)) for _ in range(searched)]
    return Episode(
        problem=draw(st.text(max_size=8)),
        prompt=draw(st.text(max_size=8)),
        answer=draw(st.text(max_size=8)),
        tokens=draw(st.lists(IDS, max_size=6)),
        prompt_len=draw(st.integers(0, 2**31 - 1)),
        positions=[draw(st.integers(0, 2**31 - 1)) for _ in range(searched)],
        actions=[[draw(IDS) for _ in range(width)] for width in widths],
        weights=[[draw(FLOATS) for _ in range(width)] for width in widths],
        root_values=[draw(FLOATS) for _ in range(searched)],
        attribution=[[draw(FLOATS), draw(FLOATS)] for _ in range(searched)],
        outcome=draw(FLOATS),
        forwarded_tokens=draw(IDS),
        simulations=draw(IDS),
        policy_version=draw(st.integers(0, 99)),
        seed=draw(IDS),
        rewards=draw(st.dictionaries(st.text(max_size=4), st.floats(0, 1), max_size=3)),
        verdict=draw(VERDICTS),
        audit_verdict=draw(VERDICTS),
    )


def played(count: int = 6) -> list[Episode]:
    student = make_student()
    parts = Parts(student=student, engine=tree_engine(student), task=Mirror())
    problems = [problem.public for problem in Mirror().problems("train")][:count]
    games = Player(parts, SearchConfig(simulations=16, candidates=6)).play(problems, np.random.default_rng(0))
    return [from_game(game, game.terminal_value or 0.0, 3, 11) for game in games]


@given(st.lists(episodes(), max_size=5))
def test_a_shard_gives_back_exactly_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Episode]
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    write_episodes(path, rows)
    assert read_episodes(path) == rows


def test_played_games_come_back_exactly_and_the_bytes_are_repeatable(tmp_path: Path) -> None:
    rows = played()
    write_episodes(tmp_path / "a.parquet", rows)
    write_episodes(tmp_path / "b.parquet", played())
    assert read_episodes(tmp_path / "a.parquet") == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_episode_says_what_its_game_was() -> None:
    student = make_student()
    parts = Parts(student=student, engine=tree_engine(student), task=Mirror())
    problems = [problem.public for problem in Mirror().problems("train")][:8]
    games = Player(parts, SearchConfig(simulations=16, candidates=6)).play(problems, np.random.default_rng(1))
    for game in games:
        episode = from_game(game, 0.1, 3, 11)
        assert episode.tokens == game.prompt + game.tokens
        assert episode.tokens[: episode.prompt_len] == game.prompt
        assert episode.positions == list(range(len(game.prompt) - 1, len(game.prompt) - 1 + len(game.moves)))
        for index, move in enumerate(game.moves):
            kept = {a: w for a, w in zip(move.actions.tolist(), move.weights.tolist(), strict=True) if w > 0}
            assert dict(zip(episode.actions[index], episode.weights[index], strict=True)) == kept
            assert episode.tokens[episode.positions[index] + 1] == move.chosen
            assert episode.attribution[index] == move.responsibility.tolist()
        assert len(episode.positions) == len(game.moves)
        assert episode.root_values == [move.value for move in game.moves]
        assert (episode.problem, episode.prompt, episode.answer) == (
            game.problem.id,
            game.problem.prompt,
            game.text,
        )
        assert (episode.forwarded_tokens, episode.simulations) == (game.forwarded, game.simulations)
        assert (episode.policy_version, episode.seed) == (3, 11)
        assert episode.outcome == float(np.float32(0.1)), "as it will be read back"


def test_fast_searches_leave_their_value_and_no_target() -> None:
    student = make_student()
    parts = Parts(student=student, engine=tree_engine(student), task=Mirror())
    problems = [problem.public for problem in Mirror().problems("train")]
    player = Player(parts, SearchConfig(simulations=8, candidates=6), fast_simulations=2, full_share=0.5)
    games = player.play(problems, np.random.default_rng(0))
    assert {move.full for game in games for move in game.moves} == {True, False}
    for game in games:
        episode = from_game(game, 1.0, 0, 0)
        full = [index for index, move in enumerate(game.moves) if move.full]
        assert episode.positions == [len(game.prompt) - 1 + index for index in full]
        assert episode.root_values == [move.value for move in game.moves]
        assert len(episode.actions) == len(episode.weights) == len(episode.attribution) == len(full)
        for index, actions, weights in zip(full, episode.actions, episode.weights, strict=True):
            move = game.moves[index]
            assert dict(zip(actions, weights, strict=True)) == {
                a: w for a, w in zip(move.actions.tolist(), move.weights.tolist(), strict=True) if w > 0
            }


def test_datasets_opens_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    first, *others = played()
    rows = [replace(first, rewards={"bleu": 0.25, "exact": 1.0}, verdict=-1, audit_verdict=1), *others]
    write_episodes(tmp_path / "a.parquet", rows)
    files = [os.fspath(tmp_path / "a.parquet")]
    table = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    told = [asdict(row) for row in rows]
    for row in told:
        rewards = row.pop("rewards")
        row |= {"reward_names": list(rewards), "reward_values": list(rewards.values())}
    assert told == table.to_list()


def test_a_shard_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    rows = [replace(row, rewards={"exact": 1.0}, verdict=1, audit_verdict=-1) for row in played(2)]
    path = tmp_path / "a.parquet"
    write_episodes(path, rows)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(list(ADDED)), path)
    assert read_episodes(path) == [replace(row, rewards={}, verdict=0, audit_verdict=0) for row in rows]
    for name in ADDED:  # no version left out only one of them
        pq.write_table(table.drop_columns([name]), path)
        with pytest.raises(InputError, match="not a shard of episodes"):
            read_episodes(path)


def test_a_folder_name_with_an_equals_sign_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    rows = played(2)
    write_episodes(folder / "a.parquet", rows)
    assert read_episodes(folder / "a.parquet") == rows


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "flipped"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "round-0003.parquet"
    if damage != "missing":
        write_episodes(path, played())
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            column = pq.read_metadata(path).row_group(0).column(0)
            start = column.dictionary_page_offset or column.data_page_offset
            content[start + column.total_compressed_size - 1] ^= 0xFF  # the last byte of a page's data
        made = {"empty": b"", "text": b"not parquet", "cut": content[: len(content) // 2], "flipped": content}
        path.write_bytes(bytes(made[damage]))
    with pytest.raises(InputError, match=r"round-0003\.parquet") as caught:
        read_episodes(path)
    assert "\n" not in str(caught.value)


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    rows = played(2)
    path = tmp_path / "a.parquet"
    write_episodes(path, rows)
    content, refused = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(content), size=60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            found = read_episodes(path)
        except InputError:
            refused += 1
        else:
            assert found == rows, "it may hit padding or statistics, never the data"
    assert refused > 20


def test_foreign_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(InputError, match=r"other\.parquet is not a shard of episodes.*text"):
        read_episodes(path)
    pq.write_table(pa.table({name: [] for name in SCHEMA.names}), path)
    with pytest.raises(InputError, match="not a shard"):
        read_episodes(path)


def test_a_full_disk_is_an_output_error_and_leaves_the_old_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    rows = played(2)
    write_episodes(path, rows)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_episodes(path, [replace(row, seed=9) for row in rows])
    assert read_episodes(path) == rows
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]
