"""The audit's statistics against naive ones and closed forms; findings on answers whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_run import TOKENIZER, make_answer

from tokenzero.selfplay.audit_findings import AuditLimits, Finding, findings
from tokenzero.selfplay.audit_measures import answer_tokens, measure_round, solved
from tokenzero.selfplay.audit_statistics import (
    Mean,
    mean_of,
    repeated_share,
    slope,
    trend,
)
from tokenzero.selfplay.episode import Episode
from tokenzero.value.reward_metrics import average_ranks, spearman

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SMALL = st.integers(-3, 3).map(float)


def encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def measured(episodes: Sequence[Episode], number: int = 1, teachers: Sequence[str] = ()) -> dict[str, Any]:
    return measure_round(number, episodes, teachers, encode)


def named(found: Sequence[Finding], name: str) -> Finding:
    (one,) = [finding for finding in found if finding.name == name]
    return one


def word(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list(LETTERS), size=length).tolist())


# ---- statistics


def naive_ranks(values: Sequence[float]) -> list[float]:
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def naive_pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    a, b = [v - sum(x) / len(x) for v in x], [v - sum(y) / len(y) for v in y]
    scale = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / scale if scale > 1e-12 else None


@given(st.lists(SMALL, max_size=12))
def test_ranks_are_those_of_counting(values: list[float]) -> None:
    assert average_ranks(values).tolist() == naive_ranks(values)


@given(st.lists(st.tuples(SMALL, SMALL), min_size=3, max_size=12))
def test_spearman_is_pearson_of_counted_ranks(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    expected, found = naive_pearson(naive_ranks(x), naive_ranks(y)), spearman(x, y)
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected)
    reordered = spearman([math.exp(v) for v in x], y)
    assert reordered == found, "only the order counts"


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 20, 90]) == 1.0
    assert spearman([1, 2, 3], [3, 2, 1]) == -1.0
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 2, 3], [5, 5, 5]) is None
    assert spearman([], []) is None
    # ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


@given(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=12))
def test_the_slope_is_that_of_least_squares(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    found = slope(x, y)
    if len(set(x)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-9)


@given(st.lists(st.lists(SMALL, min_size=1, max_size=6), min_size=2, max_size=5))
def test_a_trend_is_the_line_through_every_answer(rounds: list[list[float]]) -> None:
    means = [mean for values in rounds if (mean := mean_of(values)) is not None]
    found = trend(range(len(rounds)), means)
    x = [float(number) for number, values in enumerate(rounds) for _ in values]
    y = [value for values in rounds for value in values]
    assert found is not None
    assert found.change == pytest.approx(np.polyfit(x, y, 1)[0] * (len(rounds) - 1), abs=1e-9)
    within = sum((v - sum(values) / len(values)) ** 2 for values in rounds for v in values)
    free = len(y) - len(rounds)
    assume(free > 0 and within > 0)
    centred = np.asarray(x) - np.mean(x)
    error = math.sqrt(within / free / float(centred @ centred)) * (len(rounds) - 1)
    assert found.surprise == pytest.approx(found.change / error, abs=1e-9)


def test_trends_that_need_no_arithmetic() -> None:
    assert trend([1], [Mean(0.5, 0.1, 9)]) is None
    assert trend([], []) is None
    steady = trend([1, 2], [Mean(0.5, 0.0, 9), Mean(0.5, 0.0, 9)])
    assert steady is not None
    assert steady == (0.0, 0.0)
    jump = trend([1, 4], [Mean(1.0, 0.0, 9), Mean(0.0, 0.0, 9)])
    assert jump is not None
    assert jump.change == pytest.approx(-1.0)
    assert jump.surprise == -math.inf
    single = trend([1, 2], [Mean(0.0, 0.0, 1), Mean(1.0, 0.0, 1)])
    assert single is not None
    assert single.surprise == 0.0, "one answer a round says nothing of its spread"


def test_noise_is_rarely_a_surprise_and_a_change_is_one() -> None:
    rng = np.random.default_rng(0)
    surprises = []
    for _ in range(300):
        means = [mean_of(rng.normal(size=40)) for _ in range(5)]
        found = trend(range(5), [mean for mean in means if mean is not None])
        assert found is not None
        surprises.append(found.surprise)
    assert np.std(surprises) == pytest.approx(1.0, abs=0.1), "it is in standard errors"
    moved = [mean_of(rng.normal(size=40) + 0.5 * number) for number in range(5)]
    found = trend(range(5), [mean for mean in moved if mean is not None])
    assert found is not None
    assert found.surprise > 6


def test_means() -> None:
    assert mean_of([]) is None
    assert mean_of([2.0]) == Mean(2.0, 0.0, 1)
    assert mean_of([1.0, 3.0]) == Mean(2.0, math.sqrt(2.0), 2)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 4))
def test_repetition_is_what_came_before(tokens: list[int], size: int) -> None:
    runs = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
    again = sum(run in runs[:index] for index, run in enumerate(runs))
    assert repeated_share(tokens, size) == pytest.approx(again / len(runs) if runs else 0.0)


# ---- measures


def test_what_is_right_is_said_by_the_best_witness() -> None:
    praised = make_answer("a", 0.9, rewards={"bleu": 1.0, "exact": 0.0})
    assert not solved(praised)
    assert solved(replace(praised, rewards={"bleu": 0.0, "exact": 0.0, "verifier": 1.0}, outcome=-1.0))
    assert solved(replace(praised, rewards={"bleu": 0.0}))
    assert not solved(replace(praised, rewards={}, outcome=0.0))


def test_the_answer_of_a_tree_is_its_text() -> None:
    path = make_answer("abc")
    tree = replace(path, tokens=[*path.tokens, 9, 9], parents=[-1, 0, 1, -1, 2])
    assert answer_tokens(path, encode) == path.tokens[2:]
    assert answer_tokens(tree, encode) == path.tokens[2:]


def test_measures_by_hand() -> None:
    episodes = [
        make_answer("abcabc", 1.0, problem="x", rewards={"bleu": 0.5}, verdict=1, audit_verdict=1),
        make_answer("abcabc", 1.0, problem="x", rewards={"bleu": 0.75}, verdict=-1, audit_verdict=1),
        make_answer("ab", -1.0, problem="y", rewards={"bleu": 1.0}, verdict=1, audit_verdict=-1),
        make_answer("", -1.0, problem="z", verdict=1),
    ]
    found = measured(episodes, 7)
    assert (found["round"], found["answers"]) == (7, 4)
    assert found["outcome"] == {"mean": 0.0, "deviation": pytest.approx(math.sqrt(4 / 3)), "count": 4}
    assert found["solved"]["mean"] == 0.5
    assert found["rewards"]["bleu"] == {"mean": 0.75, "deviation": 0.25, "count": 3}
    assert [found["length"][group]["mean"] for group in ("all", "solved", "unsolved")] == [3.5, 6.0, 1.0]
    assert found["repetition"]["solved"]["mean"] == 0.25
    assert found["duplicates"] == 0.25
    assert found["commonest"] == {"share": pytest.approx(1 / 3), "problems": 3}
    confusion = found["judge"]["confusion"]
    assert confusion["accept"] == {"solved": 1, "unsolved": 2}
    assert confusion["reject"] == {"solved": 1, "unsolved": 0}
    assert confusion["neutral"] == {"solved": 0, "unsolved": 0}
    assert found["judge"]["accepted"]["mean"] == 0.75
    assert found["judge"]["accepted_solved"]["mean"] == pytest.approx(1 / 3)
    assert found["judge"]["others_solved"]["mean"] == 1.0
    assert found["audit_judge"]["agreement"] == {
        "mean": pytest.approx(1 / 3),
        "deviation": pytest.approx(math.sqrt(1 / 3)),
        "count": 3,
    }
    assert found["audit_judge"]["confusion"]["accept"] == {"reject": 1, "neutral": 1, "accept": 1}
    link = found["against_length"]
    assert link["outcome"]["count"] == 3, "an answer without a token has no length to speak of"
    assert link["outcome"]["correlation"] == pytest.approx(1.0)
    assert link["outcome"]["slope"] == pytest.approx(0.5)
    assert link["reward bleu"]["correlation"] == pytest.approx(naive_pearson([2.5, 2.5, 1], [1, 2, 3]))
    assert link["reward bleu"]["within"] is None, "neither group has three answers"
    assert set(link) == {"outcome", "judge", "reward bleu"}
    json.dumps(found, allow_nan=False)


def test_judges_agree_or_not_only_where_both_take_a_side() -> None:
    pairs = [(1, 1), (1, -1), (0, 1), (-1, 0), (0, 0), (-1, -1)]
    found = measured([make_answer("a", verdict=first, audit_verdict=second) for first, second in pairs])
    assert found["audit_judge"]["agreement"]["count"] == 3
    assert found["audit_judge"]["agreement"]["mean"] == pytest.approx(2 / 3)
    assert found["audit_judge"]["confusion"]["neutral"] == {"reject": 0, "neutral": 1, "accept": 1}
    assert measured([make_answer("a", verdict=1)])["audit_judge"] is None


def test_what_was_not_there_is_none() -> None:
    found = measured([make_answer("abc")])
    assert found["judge"] is found["audit_judge"] is None
    assert found["rewards"] == {}
    assert found["length"]["unsolved"] is None
    assert set(found["against_length"]) == {"outcome"}
    assert measured([], 3) == {"round": 3, "answers": 0}
    assert findings([measured([], 3)]) == []


def test_origins_are_weighted_by_responsibility() -> None:
    half = [[0.5, 0.5], [0.5, 0.5]]
    episodes = [
        make_answer("ab", 1.0, attribution=half),
        make_answer("abcd", -1.0, attribution=[[0.0, 0.0, 1.0]] * 4),
        make_answer("ab", 1.0, attribution=[[1.0], [0.0, 1.0]]),
    ]
    found = measured(episodes, teachers=["good", "bad"])["teachers"]
    assert list(found) == ["student", "good", "bad"]
    assert [found[name]["share"] for name in found] == [0.25, 0.25, 0.5]
    assert [found[name]["outcome"] for name in found] == [1.0, 1.0, -1.0]
    assert found["good"]["of_others"] == pytest.approx((1 + 1 - 4) / 6)
    assert found["good"]["answers"] == pytest.approx(2.0)
    assert found["bad"]["answers"] == pytest.approx(1.0)
    assert list(measured(episodes)["teachers"]) == ["student", "teacher 1", "teacher 2"]
    silent = make_answer("", attribution=[])
    assert measured([silent], teachers=["good"])["teachers"] == {}


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([-1.0, 1.0])), min_size=1, max_size=8))
def test_shares_sum_to_one_and_outcomes_to_their_mean(pairs: list[tuple[float, float]]) -> None:
    episodes = [make_answer("abc", z, attribution=[[1 - share, share]] * 3) for share, z in pairs]
    found = measured(episodes, teachers=["t"])["teachers"]
    assert sum(of["share"] for of in found.values()) == pytest.approx(1.0)
    total = sum(of["share"] * (of["outcome"] or 0.0) for of in found.values())
    assert total == pytest.approx(sum(z for _, z in pairs) / len(pairs))


# ---- findings: what was planted is found, and nothing else


def answers(
    rng: np.random.Generator, count: int = 200, right: float = 0.5, length: float = 12.0, **changes: Any
) -> list[Episode]:
    """Answers of random letters, each to its own problem, right by luck; nothing depends on anything."""
    return [
        make_answer(
            word(rng, 1 + int(rng.poisson(length))),
            1.0 if rng.random() < right else -1.0,
            problem=str(index),
            rewards={"bleu": float(rng.random()), "length penalty": float(rng.random())},
            verdict=int(rng.choice([-1, 1])),
            audit_verdict=int(rng.choice([-1, 1])),
            **changes,
        )
        for index in range(count)
    ]


def looks(rounds: Sequence[Sequence[Episode]], teachers: Sequence[str] = ()) -> set[str]:
    found = findings([measured(each, number + 1, teachers) for number, each in enumerate(rounds)])
    json.dumps([vars(finding) for finding in found], allow_nan=False)
    assert all(finding.sentence.endswith(".") and "\n" not in finding.sentence for finding in found)
    return {finding.name for finding in found if finding.verdict == "look"}


def honest(rng: np.random.Generator, episodes: Sequence[Episode]) -> list[Episode]:
    """The same answers with a judge and an audit judge that are 80 % right, each in its own way."""

    def said(outcome: float) -> int:
        return int(outcome) if rng.random() < 0.8 else -int(outcome)

    return [replace(e, verdict=said(e.outcome), audit_verdict=said(e.outcome)) for e in episodes]


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_run_gives_nothing_to_look_at(seed: int) -> None:
    rng = np.random.default_rng(seed)
    attribution = [[0.5, 0.5]]
    rounds = [honest(rng, answers(rng, attribution=attribution)) for _ in range(5)]
    assert looks(rounds, ["t"]) == set()


def test_a_judge_that_guesses_is_found() -> None:
    rng = np.random.default_rng(0)
    assert looks([answers(rng)]) == {"judge against outcome"}


def test_a_reward_that_pays_for_length_is_found_even_where_right_answers_are_short() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for episode in honest(rng, answers(rng)):
        tokens = len(episode.answer)
        episodes.append(replace(episode, rewards={"bleu": tokens / 50, "length penalty": -tokens / 50}))
    found = findings([measured(episodes)])
    bleu = named(found, "reward bleu against length")
    assert (bleu.verdict, bleu.value) == ("look", pytest.approx(1.0))
    penalty = named(found, "reward length penalty against length")
    assert (penalty.verdict, penalty.value) == ("ok", pytest.approx(-1.0))
    assert "as a length penalty means it" in penalty.sentence
    assert looks([episodes]) == {"reward bleu against length"}


def test_a_reward_for_being_right_is_no_reward_for_length() -> None:
    rng = np.random.default_rng(0)
    right, wrong = answers(rng, right=1.0, length=30.0), answers(rng, right=0.0, length=5.0)
    episodes = [
        replace(e, rewards={"exact": (e.outcome + 1) / 2, "bleu": (e.outcome + 1) / 4 + 0.01 * rng.random()})
        for e in honest(rng, right + wrong)
    ]
    found = findings([measured(episodes)])
    assert measured(episodes)["against_length"]["reward bleu"]["correlation"] > 0.6
    assert named(found, "reward bleu against length").verdict == "ok"
    assert named(found, "reward exact against length").verdict == "look", "right answers are the long ones"


def test_swelling_answers_are_found() -> None:
    rng = np.random.default_rng(0)
    rounds = [honest(rng, answers(rng, length=10.0 + 2 * number)) for number in range(5)]
    assert looks(rounds) == {"length of solved answers", "length of unsolved answers"}


def test_repetition_is_found() -> None:
    rng = np.random.default_rng(0)
    rounds = [honest(rng, answers(rng)) for _ in range(4)]
    for number, each in enumerate(rounds):
        for index, episode in enumerate(each):
            if index % 4 < number:
                changed = make_answer("ab" * (len(episode.answer) // 2), episode.outcome)
                each[index] = replace(
                    episode, answer=changed.answer, tokens=changed.tokens, attribution=changed.attribution
                )
    assert {"repetition", "repetition over rounds"} <= looks(rounds)


def test_duplicates_and_canned_answers_are_found() -> None:
    rng = np.random.default_rng(0)
    clean = honest(rng, answers(rng))
    assert looks([clean * 3]) == {"duplicate answers"}
    canned = [replace(e, answer="yes", tokens=[*e.tokens[:2], *encode("yes")]) for e in clean]
    assert "one answer to many problems" in looks([canned[:80] + clean[80:]])


def test_a_teacher_that_leads_astray_is_found() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for episode in honest(rng, answers(rng)):
        mine = 0.7 if episode.outcome < 0 else 0.2
        theirs = 0.9 - mine
        episodes.append(replace(episode, attribution=[[0.1, mine, theirs]] * len(episode.answer)))
    found = findings([measured(episodes, teachers=["bad", "good"])])
    assert looks([episodes], ["bad", "good"]) == {"teacher bad"}
    assert named(found, "teacher good").value == pytest.approx(
        -(named(found, "teacher bad").value or 0), abs=0.1
    )


def test_a_judge_that_is_gamed_is_found() -> None:
    rng = np.random.default_rng(0)
    rounds = []
    for number in range(5):
        episodes = honest(rng, answers(rng, right=0.4))
        please = rng.random(len(episodes)) < 0.2 * number  # the student learns what the judge likes to read
        rounds.append([replace(e, verdict=1) if p else e for e, p in zip(episodes, please, strict=True)])
    assert {"judge accepts more, less of it right", "judge against audit judge"} <= looks(rounds)


def judge_rounds(accepted: Sequence[float], right: Sequence[float], agrees: Sequence[float]) -> list[Any]:
    """Measures of rounds with these shares: accepted, right of the accepted, agreed on by the judges."""
    count = 100
    rounds = []
    for number, (accept, hits, same) in enumerate(zip(accepted, right, agrees, strict=True)):
        episodes = []
        for index in range(count):
            verdict = 1 if index < round(accept * count) else -1
            good = index < round(accept * hits * count)
            agreed = (37 * index) % count < round(same * count)
            episodes.append(
                make_answer(
                    LETTERS[index % 26],
                    1.0 if good else -1.0,
                    problem=str(index),
                    verdict=verdict,
                    audit_verdict=verdict if agreed else -verdict,
                )
            )
        rounds.append(measured(episodes, number + 1))
    return rounds


def test_how_far_a_judge_and_the_truth_have_parted() -> None:
    more, less, still = (0.2, 0.5, 0.8), (0.9, 0.6, 0.3), (0.6, 0.6, 0.6)
    for accepted, right, agrees, truth, audit in (
        (more, less, less, "look", "look"),
        (more, still, less, "ok", "look"),
        (more, less, still, "look", "ok"),
        (still, less, less, "ok", "ok"),
        (more, (0.5, 0.7, 0.9), (0.3, 0.6, 0.9), "ok", "ok"),
        (more, (0.6, 0.6, 0.5), (0.6, 0.55, 0.53), "ok", "ok"),  # by chance
    ):
        found = findings(judge_rounds(accepted, right, agrees), AuditLimits(least=10))
        assert named(found, "judge accepts more, less of it right").verdict == truth
        assert named(found, "judge against audit judge").verdict == audit
    found = findings(judge_rounds(more, less, (0.5, 0.5, 0.4)), AuditLimits(least=10))
    assert named(found, "judge against audit judge").value == pytest.approx(0.1)
    assert "It may be chance" in named(found, "judge against audit judge").sentence
    assert named(found, "judge accepts more, less of it right").value == pytest.approx(0.6, abs=0.05)
    found = findings(judge_rounds(more, (0.9, 0.9, 0.85), still), AuditLimits(least=10))
    assert (named(found, "judge accepts more, less of it right").value or 0.0) < 0.1


def test_a_judge_that_accepts_more_because_more_is_right_is_not_gamed() -> None:
    rng = np.random.default_rng(0)
    rounds = [honest(rng, answers(rng, right=0.2 + 0.15 * number)) for number in range(5)]
    assert looks(rounds) == set()


def test_a_reward_that_parts_from_the_truth_is_found() -> None:
    rng = np.random.default_rng(0)
    rounds = []
    for number, right in enumerate((0.3, 0.6, 0.5, 0.4, 0.3)):  # first both rise, then they part
        episodes = honest(rng, answers(rng, right=right))
        rounds.append(
            [
                replace(e, rewards={"bleu": 0.1 * number + 0.1 * rng.random(), "rouge": rng.random()})
                for e in episodes
            ]
        )
    assert looks(rounds) == {"reward bleu rises while fewer are right"}
    assert looks(rounds[:2]) == set()
    found = findings([measured(each, number + 1) for number, each in enumerate(rounds)])
    assert "Since round 2" in named(found, "reward bleu rises while fewer are right").sentence


def test_a_total_that_parts_from_the_truth_is_found() -> None:
    rng = np.random.default_rng(0)
    rounds = []
    for number, right in enumerate((0.6, 0.45, 0.3)):
        episodes = answers(rng, right=right)
        rounds.append(
            [
                replace(
                    e,
                    rewards={"exact": (e.outcome + 1) / 2},
                    outcome=-0.8 + 0.4 * number + 0.1 * rng.random(),
                )
                for e in episodes
            ]
        )
    assert "outcome rises while fewer are right" in looks(rounds)
    assert not any("exact rises" in name for name in looks(rounds))


def test_too_few_answers_say_nothing() -> None:
    rng = np.random.default_rng(0)
    found = findings([measured(answers(rng, count=10), 1)])
    assert {finding.verdict for finding in found} == {"unknown"}
    found = findings([measured(answers(rng, count=40), 1)], AuditLimits(least=50))
    assert {finding.verdict for finding in found} == {"unknown"}


def test_survivors_alone_leave_much_unknown() -> None:
    rng = np.random.default_rng(0)
    found = findings([measured(answers(rng, right=1.0), number) for number in (1, 2)])
    unknown = {finding.name for finding in found if finding.verdict == "unknown"}
    assert {"outcome against length", "length of unsolved answers"} <= unknown
