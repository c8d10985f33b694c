"""The mix of rewards: its formula, parts that fail, weights, and the records it is built from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from tokenzero.mcts.errors import InputError
from tokenzero.value.reward_config import (
    BleuRewardConfig,
    ExactRewardConfig,
    LengthRewardConfig,
    RepetitionRewardConfig,
    RewardConfig,
    RougeRewardConfig,
    VerifierRewardConfig,
    build_rewards,
)
from tokenzero.value.reward_mix import CombinedReward, Part
from tokenzero.value.rewards import NOTHING_GIVEN, Given, RowReward
from tokenzero.value.row_failures import ask_apart


def constant(name: str, score: float) -> RowReward:
    return RowReward(name, lambda prompt, answer, reference: score)


class Fragile:
    """Scores 1 for each row and raises when an answer of its batch is in `bad`; remembers its batches."""

    name = "fragile"

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad
        self.batches: list[list[str]] = []

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> NDArray[np.float64]:
        self.batches.append(list(answers))
        if self.bad & set(answers):
            raise RuntimeError("no")
        return np.ones(len(answers))


def test_the_total_is_the_weighted_mean_less_the_penalties() -> None:
    mix = CombinedReward(
        [
            Part(constant("a", 0.8), 3.0),
            Part(constant("b", 0.4), 1.0),
            Part(constant("seen", 0.1), 0.0),
            Part(constant("long", 0.5), 0.2, penalty=True),
        ]
    )
    scores = mix.score(["p"], ["x"], [None])
    assert scores.total.dtype == np.float64
    assert scores.total == pytest.approx([(3 * 0.8 + 0.4) / 4 - 0.2 * 0.5])
    apart = {name: part.tolist() for name, part in scores.parts.items()}
    assert apart == {"a": [0.8], "b": [0.4], "seen": [0.1], "long": [0.5]}


_unit = st.floats(0, 1)
_part = st.tuples(_unit, st.floats(0, 5))


@given(st.lists(_part, min_size=1, max_size=4), st.lists(_part, max_size=3))
def test_totals_stay_in_range_and_are_weighed_as_documented(
    rewards: list[tuple[float, float]], penalties: list[tuple[float, float]]
) -> None:
    rewards[0] = (rewards[0][0], rewards[0][1] + 1.0)
    parts = [Part(constant(f"r{i}", s), w) for i, (s, w) in enumerate(rewards)]
    parts += [Part(constant(f"p{i}", s), w, penalty=True) for i, (s, w) in enumerate(penalties)]
    mean = sum(s * w for s, w in rewards) / sum(w for _, w in rewards)
    wanted = mean - sum(w * (1 - s) for s, w in penalties)
    total = CombinedReward(parts).score(["p"], ["x"], [None]).total[0]
    assert 0.0 <= total <= 1.0
    assert total == pytest.approx(min(1.0, max(0.0, wanted)), abs=1e-12)


def test_a_row_that_fails_scores_nothing_there_and_costs_no_other_row() -> None:
    fragile = Fragile({"bad", "worse"})
    mix = CombinedReward([Part(fragile), Part(constant("b", 1.0))])
    answers = [*"abcdefgh", "bad", *"ijklmno", "worse"]
    scores = mix.score(["p"] * 17, answers, [None] * 17)
    assert scores.parts["fragile"].tolist() == [float(len(answer) == 1) for answer in answers]
    assert scores.total.tolist() == [1.0 if len(answer) == 1 else 0.5 for answer in answers]
    assert dict(mix.failures_by_part) == {"fragile": 2, "b": 0}
    assert mix.failures == 2
    assert len(fragile.batches) < len(answers)  # in halves, not row by row


def test_the_verifiers_scores_follow_their_rows_through_the_halves() -> None:
    class Verified(Fragile):
        name = "verified"

        def score(
            self,
            prompts: Sequence[str],
            answers: Sequence[str],
            references: Sequence[str | None],
            given: Given = NOTHING_GIVEN,
        ) -> NDArray[np.float64]:
            super().score(prompts, answers, references, given)
            assert given.verified is not None
            return np.array(given.verified)

    mix = CombinedReward([Part(Verified({"bad"}))])
    verified = [0.1, 0.2, 0.3, 0.4]
    scores = mix.score(["p"] * 4, ["a", "b", "bad", "c"], [None] * 4, Given(verified=verified))
    assert scores.total.tolist() == [0.1, 0.2, 0.0, 0.4]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.5, 1.5])
def test_a_score_out_of_range_counts_as_a_failure(wrong: float) -> None:
    mix = CombinedReward([Part(constant("a", 1.0)), Part(constant("odd", wrong))])
    assert mix.score(["p"], ["x"], [None]).total.tolist() == [0.5]
    assert mix.failures_by_part["odd"] == 1


def test_a_penalty_that_cannot_be_computed_is_paid_in_full() -> None:
    mix = CombinedReward([Part(constant("a", 1.0)), Part(Fragile({"x"}), 0.25, penalty=True)])
    assert mix.score(["p"] * 2, ["x", "y"], [None] * 2).total.tolist() == [0.75, 1.0]


def test_no_rows_no_scores() -> None:
    scores = CombinedReward([Part(Fragile(set()))]).score([], [], [])
    assert scores.total.shape == scores.parts["fragile"].shape == (0,)


@given(st.sets(st.integers(0, 19)), st.integers(1, 20))
def test_rows_asked_apart_are_each_answered_once(bad: set[int], count: int) -> None:
    calls: list[int] = []

    def ask(rows: Sequence[int]) -> NDArray[np.float64]:
        calls.append(len(rows))
        if bad & set(rows):
            raise ValueError
        return np.array(rows, dtype=np.float64)

    found = ask_apart(ask, range(count), lambda row: -1.0)
    assert found.tolist() == [-1.0 if row in bad else row for row in range(count)]
    failing = len(bad & set(range(count)))
    assert len(calls) <= 1 + 2 * failing * math.ceil(math.log2(count)) if count > 1 else len(calls) == 1


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_are_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(InputError, match=f"weight of reward 'a' is {weight}"):
        Part(constant("a", 1.0), weight)
    with pytest.raises(InputError, match=f"reward weight is {weight}"):
        ExactRewardConfig(weight=weight)


def test_something_but_penalties_must_have_weight() -> None:
    for parts in ([], [Part(constant("a", 1.0), 0.0)], [Part(constant("a", 1.0), 1.0, penalty=True)]):
        with pytest.raises(InputError, match=r"weigh 0\.0 together"):
            CombinedReward(parts)


def test_names_lists_and_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="'a' is given twice"):
        CombinedReward([Part(constant("a", 1.0)), Part(constant("a", 0.0))])
    mix = CombinedReward([Part(constant("a", 1.0))])
    with pytest.raises(InputError, match="1 prompts, 2 answers and 2 references"):
        mix.score(["p"], ["x", "y"], [None, None])
    with pytest.raises(InputError, match="1 verifier scores for 2 answers"):
        mix.score(["p", "p"], ["x", "y"], [None, None], Given(verified=[1.0]))

    class Wide(Fragile):
        def score(self, *rows: Any) -> NDArray[np.float64]:  # type: ignore[override]
            return np.ones((1, 2))

    with pytest.raises(InputError, match=r"must return 1 scores, got shape \(1, 2\)"):
        CombinedReward([Part(Wide(set()))]).score(["p"], ["x"], [None])


# ---- records


def test_the_mix_is_built_from_its_records() -> None:
    mix = build_rewards(
        [
            VerifierRewardConfig(weight=3),
            RougeRewardConfig(kind="rouge1"),
            BleuRewardConfig(weight=0, name="watched"),
            LengthRewardConfig(budget_start=4, budget_end=2, rounds=1, weight=0.5),
            RepetitionRewardConfig(n=1, weight=0.2),
        ],
        count_tokens=lambda text: len(text.split()),
    )
    scores = mix.score(["p"], ["a b a"], ["a b c"], Given(0, [1.0]))
    assert [*scores.parts] == ["verifier", "rouge1", "watched", "length", "repetition"]
    assert scores.total == pytest.approx([(3 + 2 / 3) / 4 - 0.2 / 3])
    later = mix.score(["p"], ["a b a"], ["a b c"], Given(1, [1.0]))
    assert later.total == pytest.approx([(3 + 2 / 3) / 4 - 0.2 / 3 - 0.5 * 0.5])
    assert mix.failures == 0


def test_a_row_without_reference_is_counted_against_the_parts_that_need_one() -> None:
    mix = build_rewards([ExactRewardConfig(), VerifierRewardConfig()])
    scores = mix.score(["p", "p"], ["a", "a"], [None, "a"], Given(verified=[1.0, 1.0]))
    assert scores.total.tolist() == [0.5, 1.0]
    assert mix.failures_by_part["exact"] == 1


def test_records_are_checked_when_they_are_made() -> None:
    with pytest.raises(InputError, match="length budget goes from 0"):
        LengthRewardConfig(budget_start=0, budget_end=1)
    with pytest.raises(InputError, match="0-grams"):
        RepetitionRewardConfig(n=0)
    with pytest.raises(InputError, match="nothing counts them"):
        build_rewards([ExactRewardConfig(), LengthRewardConfig(budget_start=1, budget_end=1)])
    with pytest.raises(InputError, match="'exact' is given twice"):
        build_rewards([ExactRewardConfig(), ExactRewardConfig()])


def test_pydantic_tells_the_kinds_apart_and_refuses_unknown_keys() -> None:
    adapter: TypeAdapter[list[RewardConfig]] = TypeAdapter(
        list[Annotated[RewardConfig, Field(discriminator="kind")]]
    )
    read = adapter.validate_python(
        [
            {"kind": "rouge2", "weight": 2},
            {"kind": "length", "budget_start": 9, "budget_end": 3, "schedule": "cosine", "unit": "words"},
        ]
    )
    assert read == [
        RougeRewardConfig(kind="rouge2", weight=2),
        LengthRewardConfig(budget_start=9, budget_end=3, schedule="cosine", unit="words"),
    ]
    for wrong in (
        {"kind": "exact", "wieght": 1},
        {"kind": "exact", "weight": -1},
        {"kind": "blue"},
        {"kind": "length", "budget_start": 9},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python([wrong])
