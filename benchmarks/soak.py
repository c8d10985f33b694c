"""Thousands of searches through one engine under a memory cap: does anything leak, and is anything
answered wrong?

Prompts that begin alike come and go in a pool of searches that is refilled as they end; committed moves
keep their subtree, siblings are released, and the cap on keys and values is far below what the searches
would like, so that states are evicted and forwarded again. Afterwards the same problems are played in an
engine without a cap, and the games are compared. The table shows resident memory, slots and states over
time.

python benchmarks/soak.py --searches 10000
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from forward_limit import WORDS, random_llama
from report import emit, resident_bytes

from tokenzero.answer_limits import FreeText
from tokenzero.mcts import SearchConfig
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.player import Player
from tokenzero.tasks import PublicProblem
from tokenzero.value import ValueHead

MOVES = 10  # searches in one game
SEARCH = SearchConfig(
    method="puct", simulations=32, candidates=8, leaves=2, reuse_subtree=True, temperature=0.0
)


def problems(count: int, seed: int) -> list[PublicProblem]:
    """Prompts of 8 to 24 words, of which the first 6 are one of three beginnings."""
    rng = np.random.default_rng(seed)
    beginnings = rng.integers(0, WORDS, size=(3, 6))
    found = []
    for index in range(count):
        words = [*rng.choice(beginnings), *rng.integers(0, WORDS, size=rng.integers(2, 19))]
        found.append(PublicProblem(str(index), " ".join(f"w{w}" for w in words)))
    return found


class Digest(NamedTuple):
    """What is kept of a game: hashes, so that memory can stay flat."""

    answer: int
    visits: int
    moves: int
    needed: int


def digest(game: Game) -> Digest:
    """See `Digest`."""
    visits = b"".join(move.visits.tobytes() for move in game.moves)
    return Digest(hash(tuple(game.tokens)), zlib.crc32(visits), len(game.moves), game.forwarded)


def play(student: Student, engine: TreeEngine, given: list[PublicProblem], in_flight: int) -> list[Digest]:
    """The games of one Player."""
    head = ValueHead(student.hidden_size)
    with torch.no_grad():
        head.last.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    parts = Parts(student, engine, FreeText(MOVES), value_head=head)
    games = Player(parts, SEARCH, games_in_flight=in_flight).play(given, np.random.default_rng(0))
    return [digest(game) for game in games]


def opened(student: Student, memory_mb: float | None) -> TreeEngine:
    """A tree engine under a cap; ends the program where the model has none."""
    engine = open_engine(student, EngineConfig(memory_mb=memory_mb, keep_prompts=memory_mb is not None))
    if not isinstance(engine, TreeEngine):
        sys.exit("the tiny model has no tree engine here; run `tokenzero doctor`")
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--searches", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=32, help="games at a time")
    parser.add_argument("--memory-mb", type=float, default=1.5, help="cap on keys and values")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    student = random_llama("tiny")
    engine = opened(student, arguments.memory_mb)
    given = problems(max(1, arguments.searches // MOVES), seed=0)
    rows: list[dict[str, Any]] = []
    games: list[Digest] = []
    started, part = time.perf_counter(), -(-len(given) // 10)
    for start in range(0, len(given), part):
        games += play(student, engine, given[start : start + part], arguments.in_flight)
        rows.append(
            {
                "searches": sum(game.moves for game in games),
                "seconds": time.perf_counter() - started,
                "resident MiB": resident_bytes() / 2**20,
                "keys and values MiB": engine.slots * engine.way.bytes_per_slot / 2**20,
                "slots kept": engine.resident,
                "states kept": engine.known,
                "forwarded": engine.ledger.forwarded_tokens,
                "needed": sum(game.needed for game in games),
            }
        )
    engine.drop_prompts()
    fresh: list[Digest] = []
    for start in range(0, len(given), part):
        fresh += play(student, opened(student, None), given[start : start + part], arguments.in_flight)
    same = sum(a.answer == b.answer for a, b in zip(games, fresh, strict=True))
    visits = sum(a == b for a, b in zip(games, fresh, strict=True))
    emit(
        f"{rows[-1]['searches']:,} searches through one engine, {arguments.in_flight} games at a time",
        rows,
        arguments.json,
        notes=[
            f"Fresh engines without a cap: of {len(given)} games {same} end in the same answer, "
            f"{visits} with the same visits at every move.",
            f"Kept prompts dropped, {engine.resident} slots and {engine.known} states are in use.",
            "Slots and states kept are prompts held for later. Needed: tokens a game needs by itself;",
            "forwarded beyond them is what eviction cost, below them what prompts shared.",
        ],
    )


if __name__ == "__main__":
    main()
