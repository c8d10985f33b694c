"""An episode: one game as it is stored. Parquet that ``datasets.load_dataset("parquet")`` opens.

Knows how to turn games into a table and back. It does not choose which episodes to learn from (see
``replay``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes
from tokenzero.selfplay.game import Game
from tokenzero.tasks import PublicProblem

SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("tokens", pa.list_(pa.int64())),
        ("prompt_len", pa.int32()),
        ("parents", pa.list_(pa.int32())),
        ("positions", pa.list_(pa.int32())),
        ("actions", pa.list_(pa.list_(pa.int64()))),
        ("weights", pa.list_(pa.list_(pa.float32()))),
        ("importance", pa.list_(pa.float32())),
        ("root_values", pa.list_(pa.float32())),
        ("attribution", pa.list_(pa.list_(pa.float32()))),
        ("outcome", pa.float32()),
        ("forwarded_tokens", pa.int64()),
        ("simulations", pa.int64()),
        ("policy_version", pa.int32()),
        ("seed", pa.int64()),
        ("reward_names", pa.list_(pa.string())),
        ("reward_values", pa.list_(pa.float64())),
        ("verdict", pa.int8()),
        ("audit_verdict", pa.int8()),
    ]
)
"""``rewards`` are two lists, since ``datasets`` opens no map."""

ADDED = ("reward_names", "reward_values", "verdict", "audit_verdict")
"""Columns that shards of earlier versions lack: nothing was known of them then."""

EARLIER = pa.schema([column for column in SCHEMA if column.name not in ADDED])


@dataclass(frozen=True)
class Episode:
    """One played problem: a path of states, or a tree of them.

    ``tokens`` prompt and answer ids; ``parents[j]`` which answer token comes before answer token j, -1 for
    the prompt, empty where each follows the one before it. State 0 is the prompt, state j + 1 follows answer
    token j. ``positions[i]`` index of the token after which search i was made; ``actions[i]`` and
    ``weights[i]`` its candidates with visits and their visit distribution; ``importance[i]`` how many
    solutions are below it, empty where each position counts alike; ``attribution[i]`` the chosen action's
    responsibility by proposer (column 0 the student). ``root_values[j]`` in [-1, 1] of state j, positions or
    not; in a tree they are the value targets, since its states end differently. ``outcome`` z in [-1, 1].

    Kept for the audit and never learnt from: ``rewards`` the parts of the answer's score by name, empty where
    there are none; ``verdict`` of the search's judge on the finished answer and ``audit_verdict`` of one that
    search never asks, both in {-1, 0, 1}, 0 where there is none.
    """

    problem: str
    prompt: str
    answer: str
    tokens: list[int]
    prompt_len: int
    positions: list[int]
    actions: list[list[int]]
    weights: list[list[float]]
    root_values: list[float]
    attribution: list[list[float]]
    outcome: float
    forwarded_tokens: int
    simulations: int
    policy_version: int
    seed: int
    parents: list[int] = field(default_factory=list)
    importance: list[float] = field(default_factory=list)
    rewards: dict[str, float] = field(default_factory=dict)
    verdict: int = 0
    audit_verdict: int = 0


def from_game(game: Game, outcome: float, policy_version: int, seed: int) -> Episode:
    """The episode of a finished game with outcome z. Fast searches of playout cap randomisation leave a root
    value and no visit distribution.
    """
    targets = [(index, move) for index, move in enumerate(game.moves) if move.full]
    actions, weights = [], []
    for _, move in targets:
        every, shares = move.actions.tolist(), move.weights.tolist()
        kept = [slot for slot, share in enumerate(shares) if share > 0]  # an empty slot has no share
        actions.append([every[slot] for slot in kept])
        weights.append([shares[slot] for slot in kept])
    return Episode(
        problem=game.problem.id,
        prompt=game.problem.prompt,
        answer=game.text,
        tokens=game.prompt + game.tokens,
        prompt_len=len(game.prompt),
        positions=[len(game.prompt) - 1 + index for index, _ in targets],
        actions=actions,
        weights=weights,
        root_values=[move.value for move in game.moves],
        attribution=[move.responsibility.tolist() for _, move in targets],
        outcome=float(np.float32(outcome)),  # as it is stored: a resumed run reads it back
        forwarded_tokens=game.forwarded,
        simulations=game.simulations,
        policy_version=policy_version,
        seed=seed,
    )


def from_answer(
    problem: PublicProblem,
    prompt: list[int],
    tokens: list[int],
    text: str,
    score: float,
    policy_version: int,
    seed: int,
    forwarded: int,
) -> Episode:
    """The episode of an answer that is to be imitated as it stands, each token weighted by its ``score``
    above 0; ``forwarded`` tokens were spent on its problem.
    """
    return Episode(
        problem=problem.id,
        prompt=problem.prompt,
        answer=text,
        tokens=prompt + tokens,
        prompt_len=len(prompt),
        positions=[len(prompt) - 1 + index for index in range(len(tokens))],
        actions=[[token] for token in tokens],
        weights=[[1.0]] * len(tokens),
        root_values=[],
        attribution=[[1.0]] * len(tokens),
        outcome=float(np.float32(2.0 * score - 1.0)),
        forwarded_tokens=forwarded,
        simulations=0,
        policy_version=policy_version,
        seed=seed,
        importance=[float(np.float32(score))] * len(tokens),
    )


def write_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Write one Parquet shard, whole or not at all. Raises OutputError."""
    plain = [f.name for f in fields(Episode) if f.name != "rewards"]
    columns: dict[str, list[Any]] = {name: [getattr(e, name) for e in episodes] for name in plain}
    columns["reward_names"] = [list(episode.rewards) for episode in episodes]
    columns["reward_values"] = [list(episode.rewards.values()) for episode in episodes]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer, write_page_checksum=True)
    write_bytes(path, buffer.getvalue())


def read_episodes(path: Path) -> list[Episode]:
    """Read a shard back, one of an earlier version too: what that did not record is empty or 0.

    Raises InputError for a missing, corrupt or foreign file, naming it.
    """
    try:
        # ParquetFile, since read_table takes a folder named "a=b" on the way for a column
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        if not (table.schema.equals(SCHEMA) or table.schema.equals(EARLIER)):
            raise InputError(
                f"{path} is not a shard of episodes: its columns are {', '.join(table.schema.names)}"
            )
        rows: list[dict[str, Any]] = table.to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"cannot read the episodes in {path}: {reason}; restore the file, or remove the run's "
            "checkpoints from that round on and --resume plays those rounds again"
        ) from error
    return [_episode(row) for row in rows]


def _episode(row: dict[str, Any]) -> Episode:
    names, values = row.pop("reward_names", ()), row.pop("reward_values", ())
    return Episode(**row, rewards=dict(zip(names, values, strict=True)))
