"""A game that a run has played, as a document to look at.

Runs keep episodes, which know less than a live tree; what they lack is said on the page.
"""

from __future__ import annotations

from pathlib import Path

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.run_records import read_run
from tokenzero.selfplay.episode import read_episodes
from tokenzero.selfplay.episode_tree import from_episode
from tokenzero.selfplay.run_directory import checkpoint_path, shard_path
from tokenzero.view_document import Document, document


def played_game(run: Path, number: int) -> Document:
    """Game ``number`` of the newest round whose games are kept. Raises InputError where there is none."""
    config, records = read_run(run)
    kept = [r["round"] for r in records if r["round"] and shard_path(run, r["round"]).is_file()]
    if not kept:
        raise InputError(
            f"{run} keeps no games yet; let a round of play end, or write a tree with generate --tree"
        )
    episodes = read_episodes(shard_path(run, kept[-1]))
    if not 0 <= number < len(episodes):
        raise InputError(f"--game is {number}; round {kept[-1]} has games 0 to {len(episodes) - 1}")
    tokenizer = load_tokenizer(checkpoint_path(run, 0))
    episode = episodes[number]
    search = config.get("play", {}).get("search", {})
    tree = from_episode(
        episode,
        lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True)),
        str(search.get("method", "search")),
    )
    tree.settings = {"round": kept[-1], "game": number, **tree.settings}
    return document([tree], episode.answer)
