"""What a searched tree teaches: targets for every state of it, not only for those on one path.

Policy: at each state with solutions below, the share of the distinct verified solutions below each child,
shorter ones weighing more when asked; states without a solution below teach no policy. Value: 1 where a
solution is below, -1 where everything below was seen and failed, else the backed-up value of the tree. So
every solution found is a training path, in a tree without doubles. It does not search, and does not decide
which states a batch takes (see ``replay``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, ROOT
from tokenzero.policy.engine import Ids
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.game import Game, SearchedTree


def tree_episode(
    game: Game,
    outcome: float,
    policy_version: int,
    seed: int,
    value_weight: float = 1.0,
    length_discount: float = 1.0,
) -> Episode:
    """The episode of a game's whole tree; ``value_weight`` is the kappa of the search, ``length_discount``
    the gamma of ``solution_weights``.

    States are the tree's nodes without the lost ends, which teach nothing that the state above does not know;
    ended solutions stay, for the end mark that belongs after them.
    """
    tree = game.tree
    assert tree is not None
    kept = np.flatnonzero(~tree.terminal | (tree.solutions > 0))
    number = np.full(len(tree.parent), -1, np.int64)
    number[kept] = np.arange(len(kept))  # of the state: 0 after the prompt, j + 1 after answer token j
    nodes, children, weights, importance = _solution_shares(tree, solution_weights(tree, length_discount))
    last = len(game.prompt) - 1
    return Episode(
        problem=game.problem.id,
        prompt=game.problem.prompt,
        answer=game.text,
        tokens=game.prompt + tree.token[kept[1:]].tolist(),
        prompt_len=len(game.prompt),
        parents=(number[tree.parent[kept[1:]]] - 1).tolist(),
        positions=[last + int(number[node]) for node in nodes],
        actions=[tree.token[solved].tolist() for solved in children],
        weights=weights,
        importance=importance,
        root_values=value_targets(tree, value_weight)[kept].tolist(),
        attribution=_attribution(tree, children, weights),
        outcome=float(np.float32(outcome)),
        forwarded_tokens=game.forwarded,
        simulations=game.simulations,
        policy_version=policy_version,
        seed=seed,
    )


def gathered_episode(game: Game, outcome: float, policy_version: int, seed: int) -> Episode:
    """The episode of a game whose searches were gathered: the path that was played, whose states ended with
    ``outcome``, and the states beside it, with the values that were backed up there.
    """
    paths: dict[tuple[int, ...], float] = {}
    for length in range(len(game.tokens) + 1):
        paths[tuple(game.tokens[:length])] = outcome
    for path, searched in sorted(game.searched.items()):  # beginnings come before what continues them
        paths.setdefault(path, searched.value)
    order = sorted(paths, key=lambda path: (len(path), path))
    number = {path: index for index, path in enumerate(order)}
    taught = [path for path in order if path in game.searched]
    last = len(game.prompt) - 1
    return Episode(
        problem=game.problem.id,
        prompt=game.problem.prompt,
        answer=game.text,
        tokens=game.prompt + [path[-1] for path in order[1:]],
        prompt_len=len(game.prompt),
        parents=[number[path[:-1]] - 1 for path in order[1:]],
        positions=[last + number[path] for path in taught],
        actions=[game.searched[path].actions for path in taught],
        weights=[game.searched[path].weights for path in taught],
        root_values=[float(np.float32(np.clip(paths[path], -1.0, 1.0))) for path in order],
        attribution=[[1.0]] * len(taught),
        outcome=float(np.float32(outcome)),
        forwarded_tokens=game.forwarded,
        simulations=game.simulations,
        policy_version=policy_version,
        seed=seed,
    )


def value_targets(tree: SearchedTree, value_weight: float = 1.0) -> npt.NDArray[np.float32]:
    """Target in [-1, 1] of every node, f32 [n]: 1 solved, -1 exhausted, else the mean of the play-outs
    through it and ``value_weight`` times what the value head said of it.
    """
    known = tree.visits + value_weight
    total = tree.value_sum + value_weight * tree.raw_value
    value = np.where(known > 0, total / np.maximum(known, 1e-9), tree.raw_value)
    value = np.where(tree.exhausted, -1.0, value)
    value = np.where(tree.solutions > 0, 1.0, value)
    return np.clip(value, -1.0, 1.0).astype(np.float32)


def solution_paths(tree: SearchedTree) -> list[list[int]]:
    """Tokens of every distinct solution, in the order in which they were found."""
    ends = np.flatnonzero(tree.terminal & (tree.solutions > 0))
    return [tree.path(int(end)) for end in ends]


def solution_weights(tree: SearchedTree, discount: float = 1.0) -> npt.NDArray[np.float64]:
    """Weight of the distinct solutions at or below every node, f64 [n]: a solution counts ``discount`` to
    the power of how many tokens it is longer than the tree's shortest, so 1 with ``discount`` 1.
    """
    weight = tree.solutions.astype(np.float64)
    ends = np.flatnonzero(tree.terminal & (tree.solutions > 0))
    if discount == 1.0 or not ends.size:
        return weight
    depth = tree.depths()
    weight[:] = 0.0
    weight[ends] = np.maximum(discount ** (depth[ends] - depth[ends].min()), 1e-200)  # 0 would be no share
    for node in range(len(weight) - 1, ROOT, -1):  # children come after their parents
        weight[tree.parent[node]] += weight[node]
    return weight


def _solution_shares(
    tree: SearchedTree, weight: npt.NDArray[np.float64]
) -> tuple[list[int], list[Ids], list[list[float]], list[float]]:
    """Nodes with solutions below, in order; their solved children and those's shares; weight below."""
    solved = np.flatnonzero(tree.solutions > 0)[1:]
    solved = solved[np.argsort(tree.parent[solved], kind="stable")]  # kept states are numbered in node order
    above = tree.parent[solved]
    first = np.flatnonzero(np.diff(above, prepend=NONE)).tolist()
    groups = [slice(begin, end) for begin, end in pairwise([*first, len(solved)])]
    total = weight[above]
    shares = (weight[solved] / total).tolist()
    nodes = [int(above[begin]) for begin in first]
    below = [float(total[begin]) for begin in first]
    return nodes, [solved[group] for group in groups], [shares[group] for group in groups], below


def _attribution(
    tree: SearchedTree, children: Sequence[Ids], shares: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Whose proposals led to the solutions below each taught state: their responsibility for its children."""
    if tree.proposers is None:
        return [[1.0]] * len(children)
    return [
        (np.asarray(share, np.float32) @ tree.proposers[solved]).tolist()
        for solved, share in zip(children, shares, strict=True)
    ]
