"""Games leave their trees where that was asked for, the answer marked in them, and play as without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_selfplay_player import PROBLEMS, make_parts

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import Search, greedy
from tokenzero.selfplay.player import Player
from tokenzero.selfplay.session import Budget, play_all


def played(method: Player, keep: bool, budget: Budget | None = None) -> list[Game]:
    rng = np.random.default_rng(3)
    return play_all(method.session(2), PROBLEMS[:4], rng, budget, None, keep_trees=keep)


def search(method: str, **changes: Any) -> Search:
    config = SearchConfig(method=method, simulations=12, candidates=6, **changes)
    return Search(make_parts(), config)


@pytest.mark.parametrize("method", ["puct", "gumbel", "frontier"])
def test_a_game_keeps_its_trees_and_plays_as_without(method: str) -> None:
    plain, kept = played(search(method), False), played(search(method), True)
    for one, other in zip(plain, kept, strict=True):
        assert (one.trees, one.tokens, one.forwarded) == ([], other.tokens, other.forwarded)
        assert len(other.trees) == len(other.moves)
        for index, (tree, move) in enumerate(zip(other.trees, other.moves, strict=True)):
            assert tree.position == (0 if method == "frontier" else index)
            assert tree.method == method
            assert tree.prompt == other.problem.prompt
            answer = [token for node in tree.committed for token in tree.actions[node]]
            assert answer == other.tokens[tree.position : tree.position + len(answer)]
            children = np.flatnonzero(tree.parent == 0)
            said = dict(zip(move.actions.tolist(), move.visits.tolist(), strict=True))
            assert [said[tree.actions[node][0]] for node in children] == tree.visits[children].tolist()
            counted = np.bincount(tree.ended, minlength=len(tree.parent))
            for node in range(len(tree.parent) - 1, 0, -1):
                counted[tree.parent[node]] += counted[node]
            assert counted.tolist() == tree.visits.tolist()
        assert method == "frontier" or all(tree.committed for tree in other.trees)
        assert other.trees[0].before == ""


def test_the_texts_of_a_path_are_the_answer() -> None:
    (game, *_) = played(search("frontier"), True)
    (tree,) = game.trees
    assert "".join(tree.text[node] for node in tree.committed).strip() == game.text


def test_a_search_cut_by_its_budget_is_kept_too() -> None:
    for method in ("puct", "frontier"):
        for game in played(search(method), True, Budget(tokens=len(PROBLEMS[0].prompt) + 9)):
            for tree in game.trees:
                assert (np.bincount(tree.ended, minlength=len(tree.parent)) >= 0).all()
                assert len(tree.ended) == tree.visits[0]


def test_the_raw_policy_searches_no_tree() -> None:
    assert [game.trees for game in played(greedy(make_parts()), True)] == [[]] * 4
