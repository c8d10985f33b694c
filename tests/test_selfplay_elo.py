"""Elo ratings: closed forms for two, a plain search for more, standard errors against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.elo import PRIOR_ELO, Pairing, ratings

COUNT = st.integers(0, 300)
LADDER = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), COUNT, COUNT, COUNT).filter(lambda row: row[0] != row[1]),
    min_size=1,
    max_size=8,
)


def log_posterior(elo: dict[int, float], pairings: list[tuple[int, int, int, int, int]]) -> float:
    """Straight from the definition, with the anchor at 0."""
    anchor = min(elo)
    total = -sum((value / PRIOR_ELO) ** 2 / 2 for key, value in elo.items() if key != anchor)
    for a, b, wins, losses, ties in pairings:
        chance = 1 / (1 + 10 ** ((elo[b] - elo[a]) / 400))
        total += (wins + ties / 2) * math.log(chance) + (losses + ties / 2) * math.log(1 - chance)
    return total


def test_two_have_the_logit_of_their_score() -> None:
    rated = ratings([(1, 0, 60_000, 40_000, 100_000)])
    assert rated[0] == (0.0, 0.0)
    assert rated[1].elo == pytest.approx(400 * math.log10(0.55 / 0.45), rel=1e-3)
    # The score's own error, sqrt((d - difference^2) / 4n), through the slope of the logit.
    error = math.sqrt((0.5 - 0.1**2) / 4 / 200_000) * 400 / math.log(10) / (0.55 * 0.45)
    assert rated[1].standard_error == pytest.approx(error, rel=1e-3)


def test_ratings_add_up_along_a_ladder() -> None:
    step = 400 * math.log10(0.6 / 0.4)
    rated = ratings([Pairing(k + 1, k, 60_000, 40_000, 0) for k in range(4)])
    assert [rated[k].elo for k in range(5)] == pytest.approx([k * step for k in range(5)], rel=5e-3)
    errors = [rated[k].standard_error for k in range(5)]
    assert errors == sorted(errors)
    assert errors[4] == pytest.approx(2 * errors[1], rel=0.01)  # four independent steps


@given(LADDER)
@settings(deadline=None)
def test_no_other_ratings_are_likelier(pairings: list[tuple[int, int, int, int, int]]) -> None:
    rated = ratings(pairings)
    assert list(rated) == sorted({k for row in pairings for k in row[:2]})
    elo = {k: rating.elo for k, rating in rated.items()}
    assert elo[min(elo)] == 0
    best = log_posterior(elo, pairings)
    for key in list(elo)[1:]:
        for step in (-0.5, 0.5):
            assert log_posterior({**elo, key: elo[key] + step}, pairings) <= best + 1e-9
    assert all(np.isfinite(rating).all() for rating in rated.values())


@given(LADDER)
@settings(deadline=None)
def test_who_is_named_first_and_when_does_not_matter(pairings: list[tuple[int, int, int, int, int]]) -> None:
    turned = [(b, a, losses, wins, ties) for a, b, wins, losses, ties in reversed(pairings)]
    one, other = ratings(pairings), ratings(turned)
    assert one.keys() == other.keys()
    for key in one:
        assert one[key] == pytest.approx(other[key], abs=1e-6)


def test_results_can_be_split_and_added() -> None:
    whole = ratings([(1, 0, 30, 20, 50), (2, 1, 5, 9, 86)])
    split = ratings([(1, 0, 10, 15, 20), (2, 1, 5, 9, 86), (0, 1, 5, 20, 30)])
    assert [rating.elo for rating in whole.values()] == pytest.approx([r.elo for r in split.values()])


def test_a_lost_cause_and_a_stranger_stay_finite() -> None:
    rated = ratings([(1, 0, 0, 5000, 0), (3, 2, 10, 10, 0)])
    assert -2500 < rated[1].elo < -700
    assert rated[2].elo == pytest.approx(0, abs=1e-6)
    assert rated[2].standard_error > 0.6 * PRIOR_ELO  # it never met the anchor
    assert ratings([(1, 0, 0, 0, 0)])[1] == pytest.approx((0.0, PRIOR_ELO))


def test_without_a_disagreement_nothing_is_certain() -> None:
    rated = ratings([(1, 0, 0, 0, 200)])
    assert rated[1].elo == 0
    assert rated[1].standard_error > 1


def test_standard_errors_are_those_of_repeated_ladders() -> None:
    """Many ladders of the same truth, most pairs tied: the spread of the ratings is what the errors say."""
    rng = np.random.default_rng(5)
    first = rng.multinomial(1000, [0.12, 0.08, 0.8], size=300).tolist()
    second = rng.multinomial(1000, [0.11, 0.09, 0.8], size=300).tolist()
    found = [ratings([(1, 0, *a), (2, 1, *b)])[2] for a, b in zip(first, second, strict=True)]
    spread = float(np.std([rating.elo for rating in found]))
    assert float(np.mean([rating.standard_error for rating in found])) == pytest.approx(spread, rel=0.15)


def test_nothing_gives_nothing_and_nonsense_is_refused() -> None:
    assert ratings([]) == {}
    with pytest.raises(InputError, match="itself"):
        ratings([(1, 1, 2, 2, 2)])
    with pytest.raises(InputError, match="negative"):
        ratings([(1, 0, -1, 2, 2)])
