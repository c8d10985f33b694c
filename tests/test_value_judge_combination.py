"""Combinations against a naive combination row by row, what members are asked, and nesting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Judge
from tokenzero.value.judge_combination import WAYS, JudgeCombination


class Column:
    """Reads its verdict from one letter of the answer: "-", "0" or "+"."""

    def __init__(self, place: int, name: str = "") -> None:
        self.name = name or f"column {place}"
        self.version = f"v{place}"
        self.failures = place
        self.tokens = 10
        self.closed = False
        self.place = place
        self.asked: list[tuple[str, str]] = []

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
        self.asked += list(zip(prompts, partials, strict=True))
        return np.array(["-0+".index(text[self.place]) - 1 for text in partials], dtype=np.int8)

    def close(self) -> None:
        self.closed = True


def naive(how: str, votes: list[int]) -> int:
    spoken = [vote for vote in votes if vote]
    if how == "first_that_speaks":
        return spoken[0] if spoken else 0
    if how == "veto":
        return -1 if -1 in spoken else (1 if 1 in spoken else 0)
    ayes, noes = spoken.count(1), spoken.count(-1)
    return 0 if ayes == noes else (1 if ayes > noes else -1)


rows = st.lists(st.text("-0+", min_size=3, max_size=3), max_size=10)


@given(rows, st.sampled_from(WAYS))
def test_combinations_are_what_they_say(answers: list[str], how: str) -> None:
    members = [Column(place) for place in range(3)]
    judge = JudgeCombination(how, members)
    verdicts = judge.judge(["p"] * len(answers), answers)
    votes = [["-0+".index(letter) - 1 for letter in answer] for answer in answers]
    assert verdicts.dtype == np.int8
    assert verdicts.tolist() == [naive(how, row) for row in votes]
    for place, member in enumerate(members):
        silent = [
            row for row, said in enumerate(votes) if how != "first_that_speaks" or not any(said[:place])
        ]
        assert member.asked == [("p", answers[row]) for row in silent], "in order, and no row more"
        assert judge.verdicts_by_member[member.name] == Counter(votes[row][place] for row in silent)


def test_combinations_nest() -> None:
    inner = JudgeCombination("veto", [Column(1), Column(2)], name="inner")
    judge = JudgeCombination("first_that_speaks", [Column(0), inner])
    assert judge.judge(["p"] * 4, ["+--", "0+-", "00+", "000"]).tolist() == [1, -1, 1, 0]
    assert judge.verdicts_by_member["inner"] == Counter({-1: 1, 1: 1, 0: 1})
    assert inner.verdicts_by_member["column 1"] == Counter({1: 1, 0: 2})


def test_sums_versions_and_closing_go_through_to_the_members() -> None:
    def combined(how: str, *places: int) -> JudgeCombination:
        return JudgeCombination(how, [Column(place) for place in places])

    judge = combined("veto", 1, 2)
    assert (judge.failures, judge.tokens) == (3, 20)
    versions = [combined(*spec).version for spec in (("veto", 1, 2), ("veto", 2, 1), ("majority", 1, 2))]
    assert versions[0] == judge.version
    assert len(set(versions)) == 3
    members: list[Column] = [Column(0), Column(1)]
    JudgeCombination("veto", members).close()
    assert [member.closed for member in members] == [True, True]


def test_unusable_combinations_and_members_are_refused() -> None:
    with pytest.raises(InputError, match="choose one of veto"):
        JudgeCombination("vote", [Column(0)])
    with pytest.raises(InputError, match="at least one"):
        JudgeCombination("veto", [])
    with pytest.raises(InputError, match="two judges are named 'x'"):
        JudgeCombination("veto", [Column(0, "x"), Column(1, "x")])

    class Odd(Column):
        def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
            return np.full(len(partials), 2, np.int8)

    odd: Judge = Odd(0)
    with pytest.raises(InputError, match="2 verdicts"):
        JudgeCombination("veto", [odd]).judge(["p", "p"], ["0", "0"])
    with pytest.raises(InputError, match="1 prompts and 0"):
        JudgeCombination("veto", [Column(0)]).judge(["p"], [])
    assert JudgeCombination("majority", [Column(0)]).judge([], []).shape == (0,)
