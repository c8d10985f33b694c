"""Preferences out of self-play: pairs of texts of which the searches say that one is worth more.

Siblings are two children of one state of a search tree whose values differ; answers are two finished answers
to one prompt whose outcomes differ. The texts are those a judge would be shown. It trains nothing
(``value.reward_training``) and does not judge: where the stored values are wrong, so are the pairs.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.selfplay.episode import Episode, read_episodes
from tokenzero.selfplay.run_directory import finished_rounds, playing_checkpoint, shard_path
from tokenzero.value.preferences import Preference

PROMPT = 0
"""State 0 of an episode: the prompt, before any answer token."""
_Found = dict[tuple[str, str], float]


@dataclass(frozen=True)
class MiningConfig:
    """``gap``: values (in [-1, 1]) or outcomes of a pair differ by at least this much, from above 0 to 2.
    ``per_problem``: most pairs of one prompt, those that differ most first. ``siblings``, ``answers``: which
    of the two kinds are taken. ``seed`` decides among pairs that differ as much.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    gap: float = 1.0
    per_problem: int = 16
    siblings: bool = True
    answers: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.gap <= 2:
            raise InputError(f"mining.gap is {self.gap}; values lie in [-1, 1], give more than 0, at most 2")
        if self.per_problem < 1:
            raise InputError(f"mining.per_problem is {self.per_problem}; give at least 1")
        if not (self.siblings or self.answers):
            raise InputError("mining.siblings and mining.answers are both off; switch one on")


def mine_run(run: Path, config: MiningConfig) -> list[Preference]:
    """The pairs of all games that a run still keeps. Raises InputError where there is no run, a file of it is
    damaged, or its games hold no such pair.
    """
    checkpoint = playing_checkpoint(run)
    kept = [shard_path(run, number) for number in range(1, finished_rounds(run))]
    shards = [shard for shard in kept if shard.is_file()]
    if checkpoint is None or not shards:
        raise InputError(f"run {run} keeps no games yet; let a round end first")
    pieces = Pieces(load_tokenizer(checkpoint))
    found = mine_preferences((one for shard in shards for one in read_episodes(shard)), pieces, config)
    if not found:
        raise InputError(
            f"run {run}: no two siblings or answers differ by {config.gap}; lower the gap, or let it play "
            "with play.targets 'tree', which keeps the values of whole trees"
        )
    return found


def mine_preferences(episodes: Iterable[Episode], pieces: Pieces, config: MiningConfig) -> list[Preference]:
    """Pairs of ``episodes``, whose tokens ``pieces`` reads; sorted by prompt, without doubles.

    The same texts may come from several rounds: the greatest difference counts, and texts that were found in
    both orders are left out. The result does not depend on the order of the episodes.
    """
    found: dict[str, _Found] = defaultdict(dict)
    finished: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for episode in episodes:
        if config.siblings and episode.parents:
            for chosen, rejected, gap in _siblings(episode, pieces, config.gap):
                _add(found[episode.prompt], chosen, rejected, gap)
        if config.answers:
            low, high = finished[episode.prompt].get(episode.answer, (np.inf, -np.inf))
            seen = (min(low, episode.outcome), max(high, episode.outcome))
            finished[episode.prompt][episode.answer] = seen
    for prompt, answers in finished.items():
        for chosen, rejected, gap in _answers(answers, config.gap):
            _add(found[prompt], chosen, rejected, gap)
    return [
        Preference(prompt, chosen, rejected)
        for prompt in sorted(found)
        for chosen, rejected in _strongest(prompt, found[prompt], config)
    ]


def _siblings(episode: Episode, pieces: Pieces, gap: float) -> list[tuple[str, str, float]]:
    """(chosen, rejected, difference) of the children of each state whose values differ by ``gap``."""
    values = episode.root_values
    children: dict[int, list[int]] = defaultdict(list)
    for token, parent in enumerate(episode.parents):
        children[parent].append(token + 1)
    pairs = []
    texts: dict[int, str] = {PROMPT: ""}
    for states in children.values():
        own = [values[state] for state in states]
        if max(own) - min(own) < gap:
            continue
        for first, second in combinations(states, 2):
            difference = values[first] - values[second]
            if abs(difference) >= gap:
                better, worse = (first, second) if difference > 0 else (second, first)
                pair = [_text(episode, pieces, state, texts) for state in (better, worse)]
                pairs.append((pair[0], pair[1], abs(difference)))
    return pairs


def _text(episode: Episode, pieces: Pieces, state: int, texts: dict[int, str]) -> str:
    """The partial answer that a state stands for; ``texts`` remembers those of states above."""
    path = [state]
    while path[-1] != PROMPT:
        path.append(episode.parents[path[-1] - 1] + 1)
    tokens: list[int] = []
    text = ""
    for below in reversed(path[:-1]):
        token = episode.tokens[episode.prompt_len + below - 1]
        text = texts[below] if below in texts else pieces.append(text, tokens, token)
        texts[below] = text
        tokens.append(token)
    return text


def _answers(answers: Mapping[str, tuple[float, float]], gap: float) -> list[tuple[str, str, float]]:
    """Pairs of finished answers, each with its lowest and highest outcome, that differ by ``gap`` even so."""
    pairs = []
    for chosen, (low, _) in answers.items():
        for rejected, (_, high) in answers.items():
            if low - high >= gap:
                pairs.append((chosen, rejected, low - high))
    return pairs


def _add(found: _Found, chosen: str, rejected: str, gap: float) -> None:
    if chosen != rejected:  # an end mark adds no text
        found[chosen, rejected] = max(gap, found.get((chosen, rejected), 0.0))


def _strongest(prompt: str, found: _Found, config: MiningConfig) -> Sequence[tuple[str, str]]:
    certain = [pair for pair in found if pair[::-1] not in found]

    def order(pair: tuple[str, str]) -> tuple[float, bytes]:
        # by hash, for the alphabet would favour some beginnings of answers
        key = "\0".join((str(config.seed), prompt, *pair))
        return -found[pair], hashlib.sha256(key.encode()).digest()

    return sorted(certain, key=order)[: config.per_problem]
