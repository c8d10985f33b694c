"""Pairs mined from episodes: against a naive search over all states, and on a tree drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import LETTERS
from tiny_reward import write_run

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.selfplay.episode import Episode, write_episodes
from tokenzero.selfplay.preference_mining import MiningConfig, mine_preferences, mine_run
from tokenzero.selfplay.run_directory import shard_path
from tokenzero.value.preferences import Preference

TOKENIZER = character_tokenizer(LETTERS)
PIECES = Pieces(TOKENIZER)
EOS = TOKENIZER.eos_token_id
A, B, C, D = TOKENIZER.convert_tokens_to_ids(list("abcd"))
ALL = MiningConfig(gap=0.5, per_problem=1000)


def episode(
    tokens: list[int],
    parents: list[int],
    values: list[float],
    *,
    prompt: str = "ff",
    answer: str = "",
    outcome: float = 0.0,
) -> Episode:
    return Episode(
        problem=f"id of {prompt}",
        prompt=prompt,
        answer=answer,
        tokens=[1, 9, 9, *tokens],
        prompt_len=3,
        positions=[],
        actions=[],
        weights=[],
        root_values=values,
        attribution=[],
        outcome=outcome,
        forwarded_tokens=0,
        simulations=0,
        policy_version=0,
        seed=0,
        parents=parents,
    )


#   prompt (0.1) -> a (0.9) -> ab (1.0), ac (-1.0), a<eos> (1.0)
#                -> b (-0.4)
TREE = episode([A, B, B, C, EOS], [-1, -1, 0, 0, 0], [0.1, 0.9, -0.4, 1.0, -1.0, 1.0])


def mined(*episodes: Episode, **changes: Any) -> list[tuple[str, str]]:
    config = replace(ALL, **changes)
    return [(one.chosen, one.rejected) for one in mine_preferences(episodes, PIECES, config)]


def test_siblings_whose_values_differ_are_pairs_of_partial_texts() -> None:
    assert sorted(mined(TREE)) == [("a", "ac"), ("a", "b"), ("ab", "ac")]
    assert mined(TREE, gap=2.0, per_problem=1)[0] in (("a", "ac"), ("ab", "ac"))
    assert sorted(mined(TREE, gap=1.4)) == [("a", "ac"), ("ab", "ac")]
    assert mined(TREE, siblings=False) == []


def test_finished_answers_of_one_prompt_are_pairs() -> None:
    games = [
        episode([], [], [], answer=text, outcome=z) for text, z in (("ab", 1.0), ("cd", -1.0), ("c", 0.7))
    ]
    other = episode([], [], [], prompt="ee", answer="dd", outcome=-1.0)
    assert sorted(mined(*games, other)) == [("ab", "cd"), ("c", "cd")]
    assert mined(*games, other, answers=False) == []


def test_an_answer_with_two_outcomes_counts_with_the_worse_of_both() -> None:
    games = [episode([], [], [], answer=text, outcome=z) for text, z in (("a", 1.0), ("a", -1.0), ("b", 0.0))]
    assert mined(*games) == []


def test_texts_found_in_both_orders_are_left_out_and_doubles_are_one() -> None:
    again = replace(TREE, root_values=[0.1, 0.9, -0.4, -1.0, 1.0, 1.0])
    assert sorted(mined(TREE, TREE)) == sorted(mined(TREE))
    assert sorted(mined(TREE, again)) == [("a", "ab"), ("a", "ac"), ("a", "b")]


def test_each_prompt_has_its_share_those_that_differ_most_first() -> None:
    other = replace(TREE, prompt="ee")
    found = mine_preferences([TREE, other], PIECES, replace(ALL, per_problem=2))
    assert [one.prompt for one in found] == ["ee", "ee", "ff", "ff"]
    assert {(one.chosen, one.rejected) for one in found} == {("a", "ac"), ("ab", "ac")}


def test_the_order_of_the_games_does_not_matter_and_the_seed_does() -> None:
    wide = episode([A, B, C, D], [-1] * 4, [0.0, 1.0, 1.0, -1.0, -1.0])
    games = [TREE, wide, episode([], [], [], answer="ab", outcome=1.0)]
    results = {tuple(mined(*order, per_problem=2)) for order in permutations(games)}
    assert len(results) == 1
    assert len({tuple(mined(wide, per_problem=2, seed=seed)) for seed in range(6)}) > 1


@given(st.integers(1, 25), st.integers(0, 2**32 - 1), st.floats(0.05, 2.0))
def test_siblings_are_those_a_naive_search_finds(size: int, seed: int, gap: float) -> None:
    rng = np.random.default_rng(seed)
    parents = [int(rng.integers(-1, j)) for j in range(size)]
    tokens = rng.choice([A, B, C, D], size).tolist()
    values = rng.choice(np.linspace(-1, 1, 9), size + 1).tolist()
    texts = [""]
    for token, parent in zip(tokens, parents, strict=True):
        texts.append(texts[parent + 1] + TOKENIZER.decode([token]))
    naive = set()
    for first in range(1, size + 1):
        for second in range(1, size + 1):
            siblings = parents[first - 1] == parents[second - 1]
            if siblings and values[first] - values[second] >= gap and texts[first] != texts[second]:
                naive.add((texts[first], texts[second]))
    expected = {pair for pair in naive if pair[::-1] not in naive}
    assert set(mined(episode(tokens, parents, values), gap=gap, answers=False)) == expected


def test_a_run_gives_the_pairs_of_the_games_of_its_finished_rounds(tmp_path: Path) -> None:
    other = replace(TREE, prompt="ee", root_values=[0.0, 0.5, -0.5, 0.0, 0.0, 0.0])
    run = write_run(tmp_path, TOKENIZER, [[TREE], [other]])
    config = MiningConfig(gap=1.0)
    assert mine_run(run, config) == mine_preferences([TREE, other], PIECES, config)
    shard_path(run, 1).unlink()  # no longer kept
    write_episodes(shard_path(run, 3), [TREE])  # of a round that was not finished
    assert mine_run(run, config) == [Preference("ee", "a", "b")]


def test_a_run_without_games_or_without_pairs_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keeps no games yet"):
        mine_run(tmp_path, MiningConfig())
    run = write_run(tmp_path, TOKENIZER, [[replace(TREE, root_values=[0.0] * 6)]])
    with pytest.raises(InputError, match=r"differ by 1\.0; lower the gap"):
        mine_run(run, MiningConfig())
    shard_path(run, 1).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"round-0001\.parquet"):
        mine_run(run, MiningConfig())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gap": 0.0}, r"mining\.gap is 0\.0"),
        ({"gap": 2.5}, r"mining\.gap is 2\.5"),
        ({"per_problem": 0}, r"mining\.per_problem is 0"),
        ({"siblings": False, "answers": False}, "both off"),
    ],
)
def test_bad_settings_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MiningConfig(**setting)
