"""Agreement of two judges against closed forms and a naive count."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.agreement import agreement, agreement_of_verdicts
from tokenzero.value.function_judge import FunctionJudge


def test_cohen_s_kappa_of_a_textbook_table() -> None:
    """50 grants, 20 both yes, 15 both no, 5 and 10 apart: 0.7 agreed, 0.5 by chance, kappa 0.4."""
    first = [1] * 25 + [-1] * 25
    second = [1] * 20 + [-1] * 5 + [1] * 10 + [-1] * 15
    found = agreement_of_verdicts(first, second, [1] * 50)
    assert found.confusion == ((15, 0, 10), (0, 0, 0), (5, 0, 20))
    assert found.agreement == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)


def test_kappa_at_its_ends() -> None:
    mixed = [1, -1, 0, 1]
    assert agreement_of_verdicts(mixed, mixed, [1] * 4).kappa == 1.0
    assert agreement_of_verdicts([1, -1], [-1, 1], [1, 1]).kappa == -1.0
    assert agreement_of_verdicts([1, 1, -1, -1], [1, -1, 1, -1], [1] * 4).kappa == 0.0
    constant = agreement_of_verdicts([1, 1], [1, 1], [1, -1])
    assert (constant.agreement, constant.kappa) == (1.0, None), "chance alone agrees always"
    nothing = agreement_of_verdicts([], [], [])
    assert (nothing.answers, nothing.agreement, nothing.kappa) == (0, None, None)


def share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def same(found: float | None, wanted: float | None) -> bool:
    return found is wanted if wanted is None or found is None else abs(found - wanted) < 1e-12


three = st.integers(-1, 1)


@given(st.lists(st.tuples(three, three, st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])), max_size=30))
def test_everything_against_a_naive_count(rows: list[tuple[int, int, float]]) -> None:
    found = agreement_of_verdicts(
        [a for a, _, _ in rows], [b for _, b, _ in rows], np.array([z for _, _, z in rows], np.float64)
    )
    total = len(rows)
    assert found.answers == total
    assert found.solved == sum(z > 0 for _, _, z in rows)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            assert found.confusion[i + 1][j + 1] == sum((a, b) == (i, j) for a, b, _ in rows)
    if total:
        agreed = sum(a == b for a, b, _ in rows) / total
        chance = sum(
            sum(a == v for a, _, _ in rows) / total * sum(b == v for _, b, _ in rows) / total
            for v in (-1, 0, 1)
        )
        assert same(found.agreement, agreed)
        assert same(found.kappa, None if chance > 1 - 1e-12 else (agreed - chance) / (1 - chance))
    for report, column in ((found.first, 0), (found.second, 1)):
        votes = [(row[column], row[2] > 0) for row in rows]
        assert report.verdicts == tuple(sum(v == said for v, _ in votes) for said in (-1, 0, 1))
        assert same(report.accept_precision, share([good for v, good in votes if v == 1]))
        assert same(report.accept_recall, share([v == 1 for v, good in votes if good]))
        assert same(report.reject_precision, share([not good for v, good in votes if v == -1]))
        assert same(report.reject_recall, share([v == -1 for v, good in votes if not good]))
    json.dumps(found.as_dict(), allow_nan=False)


def test_both_judges_are_asked_and_their_failures_of_this_time_counted() -> None:
    picky = FunctionJudge("picky", lambda prompt, answer: 1 if answer == prompt else -1, "1")
    shaky = FunctionJudge("shaky", lambda prompt, answer: [1, -1][int(answer)], "1")
    shaky.judge(["p"], ["none"])
    found = agreement(picky, shaky, ["0", "1", "x"], ["0", "0", "x"], [True, False, True])
    assert found.confusion == ((0, 0, 1), (0, 0, 0), (0, 1, 1))
    assert (found.first.name, found.second.name) == ("picky", "shaky")
    assert (found.first.failures, found.second.failures) == (0, 1)
    assert found.first.accept_precision == 1.0
    assert found.second.accept_precision == 0.5
    assert found.as_dict()["second"]["verdicts"] == (0, 1, 2)


def test_lengths_and_verdicts_are_checked() -> None:
    judge = FunctionJudge("one", lambda prompt, answer: 1, "1")
    with pytest.raises(InputError, match="outcomes of shape"):
        agreement(judge, judge, ["p"], ["a"], [1.0, 1.0])
    with pytest.raises(InputError, match="1 prompts and 2"):
        agreement(judge, judge, ["p"], ["a", "b"], [1.0, 1.0])
    with pytest.raises(InputError, match="2 verdicts"):
        agreement_of_verdicts([1, 2], [1, 1], [1, 1])
    with pytest.raises(InputError, match="1 verdicts"):
        agreement_of_verdicts([1, 1], [1, 1], [1])
    with pytest.raises(InputError, match="shape"):
        agreement_of_verdicts([1], [1], 1.0)
