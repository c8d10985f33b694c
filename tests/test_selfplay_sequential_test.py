"""The sequential test: its statistic against a plain search for the maximum, its bounds, its error rates."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.sequential_test import (
    Pairs,
    SequentialTest,
    SequentialTestConfig,
    fixed_size,
    log_likelihood_ratio,
)

Bools = npt.NDArray[np.bool_]
COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 4000))


def outcomes(wins: int, losses: int, ties: int) -> tuple[Bools, Bools]:
    """Two bool arrays with these counts; half of the ties solved by both."""
    both = [index % 2 == 0 for index in range(ties)]
    candidate = [True] * wins + [False] * losses + both
    incumbent = [False] * wins + [True] * losses + both
    return np.array(candidate, bool), np.array(incumbent, bool)


def naive_ratio(wins: int, losses: int, ties: int, margin: float) -> float:
    """Both maxima by trying rates of losses, finer and finer around the best."""

    def log_likelihood(loss_rate: float, gain: float) -> float:
        cells = ((wins, loss_rate + gain), (losses, loss_rate), (ties, 1 - gain - 2 * loss_rate))
        if any(count and rate <= 0 for count, rate in cells):
            return -math.inf
        return sum(count * math.log(rate) for count, rate in cells if count)

    def most(gain: float) -> float:
        low, high = 0.0, (1 - gain) / 2
        for _ in range(30):
            rates = np.linspace(low, high, 41).tolist()
            values = [log_likelihood(rate, gain) for rate in rates]
            best = int(np.argmax(values))
            low, high = rates[max(0, best - 1)], rates[min(40, best + 1)]
        return max(values)

    return most(margin) - most(0.0)


@given(COUNTS, st.sampled_from([0.01, 0.03, 0.2]))
def test_the_statistic_is_the_ratio_of_the_two_maxima(counts: tuple[int, int, int], margin: float) -> None:
    assert float(log_likelihood_ratio(*counts, margin)) == pytest.approx(
        naive_ratio(*counts, margin), rel=1e-7, abs=1e-7
    )


@given(COUNTS)
def test_wins_speak_for_the_candidate_and_losses_against_it(counts: tuple[int, int, int]) -> None:
    wins, losses, ties = counts
    here = log_likelihood_ratio(wins, losses, ties, 0.03)
    assert log_likelihood_ratio(wins + 1, losses, ties, 0.03) > here
    assert log_likelihood_ratio(wins, losses + 1, ties, 0.03) < here
    larger, smaller = max(wins, losses), min(wins, losses)
    swapped = log_likelihood_ratio([larger, smaller], [smaller, larger], ties, 0.03)
    assert swapped[0] >= swapped[1]


@given(COUNTS, st.sampled_from([0.01, 0.03, 0.2]))
def test_nobody_is_promoted_on_fewer_problems_than_that(counts: tuple[int, int, int], margin: float) -> None:
    """Nothing but wins is the most that problems can bring."""
    config = SequentialTestConfig(margin=margin)
    few = config.least_problems - 1
    assert log_likelihood_ratio(few, 0, 0, margin) < math.log(20)
    assert log_likelihood_ratio(few + 1, 0, 0, margin) >= math.log(20)
    assert log_likelihood_ratio(*counts, margin) <= sum(counts) * math.log1p(margin) + 1e-9


def test_closed_forms_of_the_statistic() -> None:
    assert log_likelihood_ratio(0, 0, 0, 0.03) == 0
    # Nothing but ties: P(tie) is 1 - margin at best if the candidate is better, 1 if not.
    assert log_likelihood_ratio(0, 0, 100, 0.03) == pytest.approx(100 * math.log(0.97))
    # Nothing but disagreement: the margin fixes the rates, a binomial of (1 + margin) / 2 against 1 / 2.
    assert log_likelihood_ratio(30, 12, 0, 0.2) == pytest.approx(30 * math.log(1.2) + 12 * math.log(0.8))
    # Where the candidate is better by the margin exactly, the first maximum is that of all trinomials.
    free = 130 * math.log(0.13) + 100 * math.log(0.1) + 770 * math.log(0.77)
    same = 230 * math.log(0.115) + 770 * math.log(0.77)
    assert log_likelihood_ratio(130, 100, 770, 0.03) == pytest.approx(free - same)
    # With many problems it is the score of a normal walk: margin (W - L - n margin / 2) / (n d).
    assert log_likelihood_ratio(10_300, 10_000, 79_700, 0.001) == pytest.approx(
        0.001 * (300 - 50) / 0.203, rel=0.02
    )


def test_the_candidate_is_promoted_at_one_over_alpha_and_dropped_at_beta() -> None:
    config = SequentialTestConfig(margin=0.5, alpha=0.05, beta=0.2, batch=1, max_problems=1000)
    # Each win alone multiplies the ratio by 0.75 / 0.5, each loss by 0.25 / 0.5, and there are no ties.
    wins = math.ceil(math.log(20) / math.log(1.5))
    test = SequentialTest(config)
    decisions = [test.add(*outcomes(1, 0, 0)) for _ in range(wins)]
    assert decisions[:-1] == [None] * (wins - 1)
    assert decisions[-1] is test.decision
    assert test.decision is not None
    assert (test.decision.outcome, test.decision.reason) == ("promote", "evidence")
    assert test.decision.llr == pytest.approx(wins * math.log(1.5))
    losses = math.ceil(math.log(5) / math.log(2))
    test = SequentialTest(config)
    decisions = [test.add(*outcomes(0, 1, 0)) for _ in range(losses)]
    assert decisions[:-1] == [None] * (losses - 1)
    assert test.decision is not None
    assert (test.decision.outcome, test.decision.reason) == ("keep", "futility")
    assert test.next_batch == 0


def test_checkpoints_that_never_disagree_are_dropped_soon() -> None:
    test = SequentialTest()
    while test.decision is None:
        test.add(*outcomes(0, 0, test.next_batch))
    # 0.97^n falls to 0.2 at n = 53, and is looked at after every 25.
    assert (test.decision.outcome, test.decision.reason) == ("keep", "futility")
    assert test.decision.pairs == Pairs(0, 0, 75)


def test_the_incumbent_stays_when_the_problems_run_out() -> None:
    config = SequentialTestConfig(margin=0.1, batch=40, max_problems=100)
    test = SequentialTest(config)
    assert [test.next_batch, test.add(*outcomes(10, 8, 22))] == [40, None]
    assert [test.next_batch, test.add(*outcomes(9, 8, 23))] == [40, None]
    assert test.next_batch == 20
    decision = test.add(*outcomes(5, 4, 11))
    assert decision is not None
    assert (decision.outcome, decision.reason, decision.pairs) == (
        "keep",
        "no problems left",
        Pairs(24, 20, 56),
    )
    early = SequentialTest(config)
    early.add(*outcomes(4, 4, 12))
    decision = early.finish()
    assert (decision.outcome, decision.reason, decision.pairs.problems) == ("keep", "no problems left", 20)
    assert early.finish() is decision
    with pytest.raises(InputError, match="over"):
        early.add(*outcomes(1, 0, 0))


def test_finish_keeps_a_promotion() -> None:
    test = SequentialTest()
    decision = test.add(*outcomes(40, 0, 160))
    assert decision is not None
    assert test.finish() is decision
    assert decision.outcome == "promote"


def test_what_is_no_pair_of_outcomes_is_refused() -> None:
    test = SequentialTest(SequentialTestConfig(margin=0.5, max_problems=10))
    with pytest.raises(InputError, match="shapes"):
        test.add(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(InputError, match="types"):
        test.add(np.ones(3), np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="next_batch"):
        test.add(np.ones(11, bool), np.ones(11, bool))
    assert test.pairs == Pairs()


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": 0.0},
        {"margin": 1.0},
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"beta": 0.5},
        {"beta": -0.1},
        {"batch": 0},
        {"max_problems": 0},
        {"max_problems": 101},
    ],
)
def test_settings_that_make_no_test_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}|nobody"):
        SequentialTestConfig(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_pairs_are_counted_in_any_order_and_any_cut(pairs: list[tuple[bool, bool]]) -> None:
    candidate = np.array([pair[0] for pair in pairs], bool)
    incumbent = np.array([pair[1] for pair in pairs], bool)
    whole = Pairs.of(candidate, incumbent)
    assert whole.wins == pairs.count((True, False))
    assert whole.losses == pairs.count((False, True))
    assert whole.problems == len(pairs)
    assert whole == Pairs.of(candidate[::2], incumbent[::2]) + Pairs.of(candidate[1::2], incumbent[1::2])
    other = Pairs.of(incumbent, candidate)
    assert (other.wins, other.losses, other.difference) == (whole.losses, whole.wins, -whole.difference)
    assert other.ci95 == pytest.approx((-whole.ci95[1], -whole.ci95[0]))
    assert whole.difference == pytest.approx(
        candidate.sum() / max(1, len(pairs)) - incumbent.sum() / max(1, len(pairs))
    )


@given(COUNTS)
def test_the_interval_holds_the_difference(counts: tuple[int, int, int]) -> None:
    pairs = Pairs(*counts)
    low, high = pairs.ci95
    assert -1 <= low <= pairs.difference <= high <= 1


def test_the_interval_by_hand() -> None:
    spread = 1.959964 * math.sqrt((9 / 22 + 5 / 22 - (4 / 22) ** 2) / 22)
    assert Pairs(8, 4, 8).ci95 == pytest.approx((4 / 22 - spread, 4 / 22 + spread))
    assert Pairs().ci95 == (-1.0, 1.0)


def test_the_interval_covers_the_truth() -> None:
    counts = np.random.default_rng(4).multinomial(300, [0.13, 0.1, 0.77], size=2000)
    covered = sum(low <= 0.03 <= high for low, high in (Pairs(*row).ci95 for row in counts.tolist()))
    assert 0.935 <= covered / 2000 <= 0.97


def test_a_decision_is_ready_for_json() -> None:
    decision = SequentialTest().add(*outcomes(40, 0, 160))
    assert decision is not None
    assert decision.as_dict() == {
        "outcome": "promote",
        "reason": "evidence",
        "llr": decision.llr,
        "problems": 200,
        "wins": 40,
        "losses": 0,
        "ties": 160,
        "difference": 0.2,
        "ci95": list(decision.pairs.ci95),
    }


def trials(config: SequentialTestConfig, discordance: float, gain: float, count: int) -> tuple[float, float]:
    """Share of promotions and mean number of problems of `count` tests, one after another."""
    rng = np.random.default_rng([7, int(1000 * gain)])
    promoted, problems = 0, 0
    lost = (discordance - gain) / 2
    for _ in range(count):
        test = SequentialTest(config)
        while size := test.next_batch:
            # One number decides a problem for both: they solve it together on 0.45 - lost of the range.
            luck = rng.random(size)
            incumbent = luck < 0.45
            candidate = (luck >= lost) & (luck < 0.45 + lost + gain)
            test.add(candidate, incumbent)
        promoted += test.finish().outcome == "promote"
        problems += test.pairs.problems
    return promoted / count, problems / count


def test_error_rates_and_problems_saved() -> None:
    """A fifth of the pairs disagree; 300 trials, with room of three standard errors."""
    config, count = SequentialTestConfig(margin=0.06, max_problems=1200), 300
    false, mean_of_equal = trials(config, 0.2, 0.0, count)
    true, mean_of_better = trials(config, 0.2, 0.06, count)
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert true >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / count)
    reference = fixed_size(0.2, 0.06, max(false, 0.01), 1 - true)
    assert mean_of_equal < 0.5 * reference
    assert mean_of_better < 0.75 * reference


def test_fixed_size_has_the_rates_it_promises() -> None:
    """The normal test on that many problems: simulated at both hypotheses."""
    n = round(fixed_size(0.2, 0.06, 0.05, 0.2))
    rng = np.random.default_rng(3)
    rates = []
    for gain in (0.0, 0.06):
        won, lost = (0.2 + gain) / 2, (0.2 - gain) / 2
        counts = rng.multinomial(n, [won, lost, 0.8], size=20_000)
        rates.append(np.mean((counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1]) > 1.6449))
    assert rates == [pytest.approx(0.05, abs=0.01), pytest.approx(0.8, abs=0.02)]
    assert fixed_size(0.2, 0.03, 0.05, 0.2) == pytest.approx(1368, abs=1)
    with pytest.raises(InputError, match="discordance"):
        fixed_size(0.02, 0.03, 0.05, 0.2)
