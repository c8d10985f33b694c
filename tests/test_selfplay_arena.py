"""The arena: who meets whom on what, what is counted, and when the incumbent is replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny import Mirror, make_student, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.arena import ArenaConfig, Match, meet, meet_ladder, rungs, should_promote
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import OnGames, Search, greedy
from tokenzero.selfplay.sequential_test import Decision, Outcome, Pairs
from tokenzero.tasks import Problem, PublicProblem

PROBLEMS = [Problem(PublicProblem(f"p{i}", f"{i:03d}")) for i in range(400)]


class Scripted:
    """A method that solves the problems whose number `solves` accepts, and remembers what it was asked."""

    def __init__(self, name: str, solves: Any) -> None:
        self.name = name
        self.ledger = Ledger(decode_tokens=1000)
        self.asked: list[str] = []
        self.luck: list[float] = []
        self._solves = solves

    def play(
        self, problems: Sequence[PublicProblem], rng: np.random.Generator, *, on_games: OnGames | None = None
    ) -> list[Game]:
        self.asked += [problem.prompt for problem in problems]
        self.luck.append(float(rng.random()))
        self.ledger.decode_tokens += len(problems)
        if on_games is not None:
            on_games(len(problems))
        return [
            Game(p, [], text=p.prompt[::-1] if self._solves(int(p.prompt)) else "wrong") for p in problems
        ]


def first(share: int) -> Scripted:
    return Scripted(f"first {share}", lambda number: number < share)


def play(candidate: Any, incumbent: Any, problems: Sequence[Problem] = PROBLEMS, **options: Any) -> Match:
    config = ArenaConfig(**{"max_problems": 300, "batch": 20, **options})
    return meet(candidate, incumbent, Mirror(), problems, np.random.default_rng(2), config)


def test_both_answer_the_same_problems_with_the_same_luck() -> None:
    candidate, incumbent = first(200), Scripted("other", lambda number: number % 2 == 0)
    match = play(candidate, incumbent)
    assert candidate.asked == incumbent.asked
    assert candidate.luck == incumbent.luck
    assert len(set(candidate.luck)) == len(candidate.luck) > 1
    assert len(set(candidate.asked)) == len(candidate.asked) == match.pairs.problems
    assert candidate.asked != sorted(candidate.asked)
    numbers = [int(prompt) for prompt in candidate.asked]
    wins = sum(number < 200 and number % 2 == 1 for number in numbers)
    losses = sum(number >= 200 and number % 2 == 0 for number in numbers)
    assert match.pairs == Pairs(wins, losses, len(numbers) - wins - losses)
    assert match.candidate_solved == sum(number < 200 for number in numbers)
    assert match.incumbent_solved == sum(number % 2 == 0 for number in numbers)


def test_a_better_candidate_is_found_out_early_and_a_worse_one_too() -> None:
    better = play(first(300), first(200))
    assert better.evidence
    assert better.pairs.problems < 200
    assert should_promote(better)
    worse = play(first(200), first(300))
    assert not worse.evidence
    assert worse.decision is not None
    assert worse.decision.reason == "futility"
    assert worse.pairs.problems < 150
    assert not should_promote(worse)


def test_the_same_checkpoint_is_never_promoted_over_itself() -> None:
    match = play(first(180), first(180))
    assert match.pairs.wins == match.pairs.losses == 0
    assert match.decision is not None
    assert (match.decision.outcome, match.decision.reason) == ("keep", "futility")


@pytest.mark.parametrize(("pool", "most"), [(110, 300), (400, 110)])
def test_the_incumbent_stays_when_problems_run_out(pool: int, most: int) -> None:
    candidate = Scripted("even", lambda number: number % 2 == 0)
    incumbent = Scripted("odd", lambda number: number % 2 == 1)
    match = play(candidate, incumbent, PROBLEMS[:pool], max_problems=most, beta=0.001)
    assert match.decision is not None
    assert (match.decision.outcome, match.decision.reason) == ("keep", "no problems left")
    assert match.pairs.problems == 110


def test_the_ledger_is_what_the_match_cost_both_and_progress_is_heard() -> None:
    candidate, incumbent = first(200), first(180)
    heard: list[int] = []
    match = meet(
        candidate,
        incumbent,
        Mirror(),
        PROBLEMS,
        np.random.default_rng(0),
        ArenaConfig(max_problems=200),
        heard.append,
    )
    assert match.ledger.decode_tokens == 2 * match.pairs.problems == sum(heard)
    alone = first(200)
    assert play(alone, alone).ledger.decode_tokens == alone.ledger.decode_tokens - 1000


def test_a_match_is_repeatable_and_ready_for_json() -> None:
    config = ArenaConfig(max_problems=25, batch=10, margin=0.2)
    task = Mirror()

    def once() -> Match:
        student = make_student()
        parts = Parts(student=student, engine=tree_engine(student), task=task)
        search = Search(parts, SearchConfig(simulations=4, candidates=7))
        rng = np.random.default_rng(1)
        return meet(search, greedy(parts), task, task.problems("validation"), rng, config)

    match = once()
    assert match == once()
    assert match.pairs.wins > 0
    record = json.loads(json.dumps(match.as_dict()))
    assert record["method"] == "gumbel"
    assert record["problems"] == match.pairs.problems
    assert record["ledger"]["simulations"] == match.ledger.simulations > 0
    assert match.decision is not None
    assert (record["outcome"], record["llr"]) == (match.decision.outcome, match.decision.llr)
    assert record["candidate_solved"] - record["incumbent_solved"] == record["wins"] - record["losses"]


def test_the_ladder_is_met_on_all_problems_and_the_candidate_plays_once() -> None:
    candidate, past = first(50), [first(50), first(20)]
    matches = meet_ladder(candidate, past, Mirror(), PROBLEMS[:80], np.random.default_rng(0))
    assert [match.pairs for match in matches] == [Pairs(0, 0, 80), Pairs(30, 0, 50)]
    assert [match.decision for match in matches] == [None, None]
    assert [match.ledger.decode_tokens for match in matches] == [160, 80]
    assert len(candidate.asked) == 80
    assert candidate.luck == past[0].luck == past[1].luck
    assert not any(match.evidence for match in matches)
    assert matches[0].as_dict()["outcome"] is None
    assert meet_ladder(candidate, [], Mirror(), PROBLEMS, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("rounds", "count", "chosen"),
    [
        ([], 3, []),
        ([4, 0, 2], 5, [0, 2, 4]),
        (range(9), 1, [0]),
        (range(9), 2, [0, 8]),
        (range(9), 3, [0, 4, 8]),
        (range(9), 0, []),
    ],
)
def test_rungs_are_spread_over_the_past(rounds: Sequence[int], count: int, chosen: list[int]) -> None:
    assert rungs(rounds, count) == chosen


def match(outcome: Outcome, pairs: Pairs) -> Match:
    decision = Decision(outcome, "evidence" if outcome == "promote" else "futility", pairs, 0.0)
    return Match("greedy", pairs, 0, 0, decision, Ledger())


BETTER = match("promote", Pairs(30, 5, 100))
EVEN = match("keep", Pairs(20, 20, 100))
A_LITTLE_WORSE = match("keep", Pairs(18, 22, 100))
WORSE = match("keep", Pairs(5, 30, 100))


@pytest.mark.parametrize(
    ("raw", "searched", "promoted"),
    [
        (BETTER, None, True),
        (EVEN, None, False),
        (BETTER, EVEN, True),
        (EVEN, BETTER, True),
        (BETTER, A_LITTLE_WORSE, True),
        (BETTER, WORSE, False),
        (WORSE, BETTER, False),
        (EVEN, EVEN, False),
    ],
)
def test_evidence_in_either_promotes_unless_the_other_shows_harm(
    raw: Match, searched: Match | None, promoted: bool
) -> None:
    assert should_promote(raw, searched) is promoted


def test_two_matches_share_the_false_promotions() -> None:
    assert ArenaConfig(max_problems=200).test.alpha == 0.05
    assert ArenaConfig(max_problems=200, simulations=8).test.alpha == 0.025


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_problems": -1}, "max_problems"),
        ({"ladder": -1}, "ladder"),
        ({"ladder_problems": 0}, "ladder_problems"),
        ({"patience": 0}, "patience"),
        ({"split": "test"}, "choose checkpoints"),
        ({"after_losses": "give up"}, "continue or reset"),
        ({"alpha": 0.7}, "alpha"),
        ({"batch": 0}, "batch"),
        ({"max_problems": 110, "simulations": 8}, "nobody can be promoted"),
    ],
)
def test_settings_that_make_no_arena_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ArenaConfig(**wrong)


def test_with_too_few_problems_or_switched_off_there_is_no_match() -> None:
    with pytest.raises(InputError, match="on 101 problems nobody can be promoted"):
        play(first(1), first(2), PROBLEMS[:101])
    with pytest.raises(InputError, match="no problems"):
        meet_ladder(first(1), [first(2)], Mirror(), [], np.random.default_rng(0))
    with pytest.raises(InputError, match="no matches"):
        play(first(1), first(2), max_problems=0)
