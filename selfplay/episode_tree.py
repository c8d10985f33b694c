"""What a stored episode still knows of its search, as a tree to look at.

Episodes keep what is learnt from. Visits, priors, raw values and failed ends are not in them, and nothing
here makes them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tokenzero.mcts import NONE, ROOT
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.recorded_tree import F32, I32, RecordedTree, added_texts


def from_episode(episode: Episode, text: Callable[[Sequence[int]], str], method: str) -> RecordedTree:
    """What a stored game still knows of its search: its states, their values, and where policy was taught the
    shares of the candidates. Each state counts once, where search counted visits; priors and raw values were
    not stored. ``text(tokens)`` decodes an answer.
    """
    answer = episode.tokens[episode.prompt_len :]
    parents = episode.parents or list(range(-1, len(answer) - 1))  # of answer tokens; states are one further
    parent = np.asarray([NONE, *(before + 1 for before in parents)], np.int32)
    nodes = len(parent)
    paths: list[list[int]] = [[]]
    for token, before in zip(answer, parent[1:].tolist(), strict=True):
        paths.append([*paths[before], token])
    visits = np.ones(nodes, np.int32)
    for node in range(nodes - 1, ROOT, -1):
        visits[parent[node]] += visits[node]
    value = np.full(nodes, np.nan, np.float32)
    value[: len(episode.root_values)] = episode.root_values[:nodes]
    inner = np.isin(np.arange(nodes), parent)
    branching = bool(episode.parents)
    won = np.zeros(nodes, np.bool_) if branching else ~inner & (episode.outcome >= 1.0)
    if branching:
        won = ~inner & (value >= 1.0)
    texts = [text(path) for path in paths]
    whole = "a tree" if branching else "the played path"
    return RecordedTree(
        prompt=episode.prompt,
        method=method,
        settings={"outcome": episode.outcome, "simulations": episode.simulations, "seed": episode.seed},
        parent=parent,
        actions=[[], *([token] for token in answer)],
        text=added_texts(parent, texts),
        visits=visits,
        value=value,
        raw_value=np.full(nodes, np.nan, np.float32),
        prior=np.full(nodes, np.nan, np.float32),
        terminal=won | (~inner & (not branching)),
        solved=won,
        exhausted=(value <= -1.0) & ~won,
        weight=_taught(episode, paths),
        ended=np.arange(nodes, dtype=np.int32),
        committed=_path(parent, _state_of(texts, episode.answer)),
        counted="states",
        note=f"A stored game keeps {whole} with the values that were learnt from. Visits, priors, raw values "
        "and ends that failed were not stored: a node's size counts the stored states at or below it.",
    )


def _taught(episode: Episode, paths: Sequence[Sequence[int]]) -> F32 | None:
    """Share of the improved policy of each node, where its parent was taught."""
    number = {tuple(path): node for node, path in enumerate(paths)}
    weight = np.full(len(paths), np.nan, np.float32)
    for position, actions, weights in zip(episode.positions, episode.actions, episode.weights, strict=True):
        above = paths[position - episode.prompt_len + 1]
        for action, share in zip(actions, weights, strict=True):
            node = number.get((*above, action))
            if node is not None:
                weight[node] = share
    return None if np.isnan(weight).all() else weight


def _state_of(texts: Sequence[str], answer: str) -> int:
    """The node at which the answer stands, else the last one before it that is there."""
    known = [node for node, text in enumerate(texts) if answer.strip().startswith(text.strip())]
    return max(known, key=lambda node: (len(texts[node].strip()), -node))


def _path(parent: I32, node: int) -> list[int]:
    path: list[int] = []
    while node != ROOT:
        path.append(node)
        node = int(parent[node])
    return path[::-1]
