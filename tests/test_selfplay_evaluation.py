"""Scores of a method: counted by hand, and Wilson's interval by its definition."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from tiny import Mirror, Secret, make_student, planted, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.evaluation import evaluate, wilson
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods import BestOfN, Search, greedy
from tokenzero.tasks import Problem, PublicProblem, Task


def make_parts(task: Task) -> Parts:
    student = make_student()
    return Parts(student=student, engine=tree_engine(student), task=task)


def test_a_score_counts_what_the_games_were() -> None:
    task = Mirror()
    method = Search(make_parts(task), SearchConfig(simulations=2, candidates=7))
    problems = task.problems("test")[:15]
    evaluate(method, task, problems[:2], np.random.default_rng(9))  # what was spent before does not count
    finished: list[int] = []
    score = evaluate(method, task, problems, np.random.default_rng(0), finished.append)
    games = Search(make_parts(task), SearchConfig(simulations=2, candidates=7)).play(
        [problem.public for problem in problems], np.random.default_rng(0)
    )
    solved = sum(game.text == game.problem.prompt[::-1] for game in games)
    assert 0 < solved < 15
    assert (score.method, score.problems, score.solved) == ("gumbel", 15, solved)
    assert score.accuracy == solved / 15
    assert score.ci95 == wilson(solved, 15)
    forwarded = sorted(game.forwarded for game in games)
    assert score.mean_tokens == pytest.approx(sum(forwarded) / 15)
    assert score.p95_tokens == pytest.approx(float(np.quantile(forwarded, 0.95)))
    assert score.mean_depth == pytest.approx(sum(game.depth for game in games) / 15)
    shared = (
        14  # fifteen prompts begin with the same mark, forwarded once; what letters they share comes on top
    )
    assert sum(forwarded) - score.ledger.forwarded_tokens >= shared
    assert score.ledger.simulations == sum(game.simulations for game in games)
    assert sum(finished) == 15


def test_gold_is_read_after_the_games_are_over() -> None:
    order: list[str] = []

    class Logged(Secret):
        def verdict(self, problem: PublicProblem, answer: str):  # type: ignore[no-untyped-def]
            order.append("play")
            return super().verdict(problem, answer)

        def score(self, problem: Problem, answer: str) -> float:
            order.append("score")
            return super().score(problem, answer)

    task = Logged()
    problems = planted(task, "test", "never")[:5]
    for method in (greedy(make_parts(task)), BestOfN(make_parts(task), 2)):
        order.clear()
        assert evaluate(method, task, problems, np.random.default_rng(0)).solved == 0
        assert order.index("score") == order.count("play")
        assert order.count("score") == 5
    answers = [
        game.text
        for game in greedy(make_parts(task)).play([p.public for p in problems], np.random.default_rng(0))
    ]
    right = [Problem(p.public, answer) for p, answer in zip(problems, answers, strict=True)]
    assert evaluate(greedy(make_parts(task)), task, right, np.random.default_rng(0)).accuracy == 1.0


def test_overlap_is_the_libraries_on_the_answers_and_references() -> None:
    task = Secret()
    problems = planted(task, "test", "never")[:6]
    texts = [
        game.text
        for game in greedy(make_parts(task)).play([p.public for p in problems], np.random.default_rng(0))
    ]
    references = [" ".join(text) if i % 2 else text + " b" for i, text in enumerate(texts)]
    wanted = [Problem(p.public, reference) for p, reference in zip(problems, references, strict=True)]
    score = evaluate(greedy(make_parts(task)), task, wanted, np.random.default_rng(0), overlap=True)
    assert score.overlap is not None
    assert score.overlap.bleu == sacrebleu.corpus_bleu(texts, [references]).score
    rouge = RougeScorer(["rougeL"])
    pairs = zip(references, texts, strict=True)
    assert score.overlap.rouge_l == fmean(rouge.score(*pair)["rougeL"].fmeasure for pair in pairs)
    assert 0 < score.overlap.rouge_l < 1
    assert evaluate(greedy(make_parts(task)), task, wanted, np.random.default_rng(0)).overlap is None


def test_overlap_needs_references_before_anything_is_played() -> None:
    method = greedy(make_parts(Mirror()))
    with pytest.raises(InputError, match="has no reference to compare"):
        evaluate(method, Mirror(), Mirror().problems("test")[:2], np.random.default_rng(0), overlap=True)
    assert method.ledger.forwarded_tokens == 0


def test_partial_credit_is_not_solved() -> None:
    class Nearly(Secret):
        def score(self, problem: Problem, answer: str) -> float:
            return 0.99

    task = Nearly()
    problems = planted(task, "test", "x")[:3]
    assert evaluate(greedy(make_parts(task)), task, problems, np.random.default_rng(0)).solved == 0


def test_no_problems_cannot_be_evaluated() -> None:
    with pytest.raises(InputError, match="no problems"):
        evaluate(greedy(make_parts(Mirror())), Mirror(), [], np.random.default_rng(0))


@given(st.integers(1, 5000), st.data())
def test_wilson_ends_are_where_the_normal_test_just_rejects(trials: int, data: st.DataObject) -> None:
    """The bounds p solve |k/n - p| = z * sqrt(p (1 - p) / n)."""
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    share = successes / trials
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            expected = 1.959964 * math.sqrt(bound * (1 - bound) / trials)
            assert abs(share - bound) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)  # Newcombe 1998, by hand
