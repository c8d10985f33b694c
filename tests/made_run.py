"""A run directory made by hand: records, games whose truth is known, and a tokenizer; no model, no play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.selfplay.episode import Episode, write_episodes
from tokenzero.selfplay.manifest import Manifest, Round, sums
from tokenzero.selfplay.run_directory import RECORD_FILE, checkpoint_path, shard_path

TOKENIZER = character_tokenizer("abcdefghijklmnopqrstuvwxyz ")


def make_answer(
    answer: str, outcome: float = 1.0, *, problem: str = "p", prompt: str = "ab", **changes: Any
) -> Episode:
    """A played answer, a token a character, every token the student's own."""
    head = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    tail = TOKENIZER(answer, add_special_tokens=False)["input_ids"]
    count = len(tail)
    values: dict[str, Any] = {
        "problem": problem,
        "prompt": prompt,
        "answer": answer,
        "tokens": [*head, *tail],
        "prompt_len": len(head),
        "positions": [len(head) - 1 + index for index in range(count)],
        "actions": [[token] for token in tail],
        "weights": [[1.0]] * count,
        "root_values": [0.0] * (count + 1),
        "attribution": [[1.0]] * count,
        "outcome": outcome,
        "forwarded_tokens": count,
        "simulations": count,
        "policy_version": 0,
        "seed": 0,
    }
    return Episode(**{**values, **changes})


def make_run(
    directory: Path,
    games: Sequence[Sequence[Episode] | None],
    records: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """A finished run whose round i + 1 played ``games[i]`` (None: no longer kept), with ``records[i]`` added
    to its record.
    """
    rounds = []
    for number in range(len(games) + 1):
        played = games[number - 1] if number else None
        record = {"round": number, **(records[number - 1] if number and records else {})}
        checkpoint = checkpoint_path(directory, number)
        checkpoint.mkdir(parents=True)
        (checkpoint / RECORD_FILE).write_text("{}")
        if number == 0:
            TOKENIZER.save_pretrained(checkpoint)
        if played is not None:
            shard_path(directory, number).parent.mkdir(exist_ok=True)
            write_episodes(shard_path(directory, number), played)
        rounds.append(Round(record, sums(directory, checkpoint)))
    Manifest({}, rounds).write(directory)
    return directory
