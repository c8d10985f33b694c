"""Search over whole steps: what a state offers and at which prior, what it is worth, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_tasks import LETTERS, PROBLEMS, Balanced, Lines, make_head, make_parts, watched
from tiny import TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import LeafConfig, Parts, banned_tokens
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import Budget, MethodConfig, build
from tokenzero.selfplay.session import Asked
from tokenzero.selfplay.step_drafts import StepRules
from tokenzero.selfplay.step_evaluator import StepEvaluator
from tokenzero.tasks import PublicProblem, Task
from tokenzero.tasks.countdown import CountdownConfig, CountdownTask
from tokenzero.tasks.maze import MazeConfig, MazeTask

SEARCHES = ("puct", "gumbel", "frontier")
COUNTDOWN = CountdownTask(CountdownConfig(numbers=3, train=20, validation=5, test=5))
MAZE = MazeTask(MazeConfig(size=3, train=20, validation=5, test=5))


def likelihood(parts: Parts, prompt: list[int], answer: list[int], step: list[int]) -> float:
    total = 0.0
    for index, token in enumerate(step):
        logits = plain(parts.student, [*prompt, *answer, *step[:index]])[0].clone()
        logits[banned_tokens(parts.student)] = -float("inf")
        total += float(logits.log_softmax(-1)[token])
    return total


def opened(parts: Parts, rules: StepRules | None, width: int, problem: PublicProblem) -> tuple[Any, int]:
    """An evaluator with one game, and its root."""
    evaluator = StepEvaluator(rules, parts, LeafConfig(), width, 1)
    rows = evaluator.open(np.zeros(1, np.int64), [problem], [np.random.default_rng(3)], [0])
    return evaluator, int(rows[0])


def offered(evaluator: StepEvaluator, row: int) -> dict[tuple[int, ...], float]:
    """Steps and their priors at a state."""
    view = evaluator.view(np.asarray([row]))
    priors = np.exp(view.logits[0].astype(np.float64))
    actions = view.actions[0].tolist()
    return {
        evaluator.table.tokens(0, action): prior
        for action, prior in zip(actions, priors.tolist(), strict=True)
        if action >= 0
    }


def test_many_proposals_are_all_steps_at_their_likelihood() -> None:
    parts = make_parts()
    evaluator, root = opened(parts, StepRules(tokens=2, proposals=1500), 30, PROBLEMS[0])
    semicolon, eos = parts.student.tokenizer.convert_tokens_to_ids(";"), parts.student.eos_id
    letters = [parts.student.tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS] + [eos]
    every = [(token,) for token in (semicolon, eos)]
    every += list(itertools.product([token for token in letters if token not in (semicolon, eos)], letters))
    found = offered(evaluator, root)
    prompt = evaluator.prompt(0)
    shares = {step: np.exp(likelihood(parts, prompt, [], list(step))) for step in every}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
    assert set(found) <= set(every)
    missing = sum(share for step, share in shares.items() if step not in found)
    assert missing < 0.01, "what was never drawn is rare"
    for step, prior in found.items():
        assert prior == pytest.approx(shares[step] / (1 - missing), rel=1e-3)
    likeliest = max(found, key=lambda step: found[step])
    assert next(iter(found)) == likeliest


def test_states_are_worth_what_the_head_says_after_the_last_token() -> None:
    parts = make_parts()
    assert parts.value_head is not None
    evaluator, root = opened(parts, StepRules(tokens=3, proposals=8), 8, PROBLEMS[2])
    view = evaluator.view(np.asarray([root]))
    actions = view.actions[0][view.actions[0] >= 0].astype(np.int64)
    below = evaluator.expand(np.full(len(actions), root), actions)
    assert len(actions) > 3
    for row, action, value in zip(below.states.tolist(), actions.tolist(), below.value.tolist(), strict=True):
        answer = [*evaluator.table.tokens(0, action)]
        assert evaluator.table.answer(row) == answer
        assert evaluator.table.length[row] == len(answer)
        assert evaluator.text(row) == parts.pieces.text(answer)
        hidden = plain(parts.student, [*evaluator.prompt(0), *answer])[1]
        assert value == pytest.approx(float(parts.value_head.evaluate(hidden[None])[0]), abs=1e-5)
    again = evaluator.expand(np.full(len(actions), root), actions)
    assert again.states.tolist() == below.states.tolist()
    deeper = [row for row in below.states.tolist() if not evaluator.table.terminal[row]]
    for step, prior in offered(evaluator, deeper[0]).items():
        rivals = offered(evaluator, deeper[0])
        logs = [
            likelihood(parts, evaluator.prompt(0), evaluator.table.answer(deeper[0]), list(rival))
            for rival in rivals
        ]
        assert np.log(prior) == pytest.approx(
            logs[list(rivals).index(step)] - np.logaddexp.reduce(logs), abs=1e-3
        )


def test_a_verified_step_is_all_that_is_offered() -> None:
    parts = make_parts(Balanced())
    seen = 0
    for problem in PROBLEMS:
        evaluator, root = opened(parts, StepRules(";", tokens=4, proposals=40), 40, problem)
        for action in evaluator.view(np.asarray([root])).actions[0].tolist():
            if action < 0:
                continue
            below = evaluator.expand(np.asarray([root]), np.asarray([action]))
            row = int(below.states[0])
            offers = evaluator.table.offers(row).values()
            if any(offer.score == 1.0 for offer in offers):
                seen += 1
                assert all(offer.score == 1.0 for offer in offers)
                assert below.value[0] == 1.0
                assert not below.terminal[0]
        evaluator.close()
    assert seen
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


@pytest.mark.parametrize("task", [COUNTDOWN, MAZE], ids=["countdown", "maze"])
def test_named_actions_are_priced_by_the_likelihood_of_their_tokens(task: Task) -> None:
    parts = task_parts(task)
    for problem in [problem.public for problem in task.problems("test")][:2]:
        counter = TokenCounter(parts.student)
        evaluator, row = opened(parts, None, 64, problem)
        while not evaluator.table.terminal[row]:
            answer, tokenizer = evaluator.table.answer(row), parts.student.tokenizer
            named = task.actions(problem, evaluator.text(row))
            assert named
            steps = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in named]
            found = offered(evaluator, row)
            assert set(found) <= {tuple(step) for step in steps}
            if all(offer.score != 1.0 for offer in evaluator.table.offers(row).values()):
                assert set(found) == {tuple(step) for step in steps}
                logs = [likelihood(parts, evaluator.prompt(0), answer, step) for step in steps]
                total = np.logaddexp.reduce(logs)
                for step, log in zip(steps, logs, strict=True):
                    assert found[tuple(step)] == pytest.approx(np.exp(log - total), rel=1e-3)
            action = evaluator.view(np.asarray([row])).actions[0][:1]
            row = int(evaluator.expand(np.asarray([row]), action).states[0])
        counted = counter.tokens
        assert evaluator.close().forwarded_tokens <= counted  # the plain forwards are counted as well


def task_parts(task: Task) -> Parts:
    student = make_student("qwen3", spec=task.tokenizer_spec())
    return Parts(student, tree_engine(student), task, make_head(student.hidden_size))


NAMED = MethodConfig(granularity="environment")
KINDS: dict[str, Callable[[], tuple[Parts, list[PublicProblem], MethodConfig]]] = {
    "sampled": lambda: (make_parts(), PROBLEMS, MethodConfig(granularity="step", proposals=3, step_tokens=4)),
    "verified": lambda: (make_parts(Balanced()), PROBLEMS, MethodConfig(granularity="step", proposals=3)),
    "named": lambda: (
        task_parts(MAZE),
        [problem.public for problem in MAZE.problems("test")],
        NAMED,
    ),
    "countdown": lambda: (
        task_parts(COUNTDOWN),
        [problem.public for problem in COUNTDOWN.problems("test")],
        NAMED,
    ),
}


def search(kind: str, method: str, simulations: int, budget: Budget | None, seed: int = 0) -> list[Game]:
    """Games of a search over steps, whose costs are checked."""
    parts, problems, config = KINDS[kind]()
    held = watched(parts)
    counter = TokenCounter(parts.student)
    stand_in = 0.0 if method == "frontier" and not parts.task.public_verifier else None
    config = replace(config, method=method, simulations=simulations, stand_in=stand_in)
    player = build(parts, SearchConfig(), config)
    games = player.play(problems, np.random.default_rng(seed), budget=budget)
    assert player.ledger.forwarded_tokens == counter.tokens
    prompts = sum(len(game.prompt) for game in games if game.forwarded)
    assert sum(game.forwarded for game in games) == counter.tokens + prompts - player.ledger.prefill_tokens
    assert held.total() == 0
    for game in games:
        assert game.text == parts.pieces.text(game.tokens).strip()
        if game.end == "ended" and parts.task.public_verifier:
            verdict = parts.task.verdict(game.problem, parts.pieces.text(game.tokens))
            assert game.verdict == (verdict.score or 0.0)
        for move in game.moves:
            assert all(action in game.steps for action in move.actions.tolist() if action >= 0)
    return games


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", SEARCHES)
def test_search_over_steps_plays_whole_games(kind: str, method: str) -> None:
    games = search(kind, method, 6, None)
    assert all(game.simulations for game in games if game.verdict != 1.0)
    if method != "frontier":  # which gives what it has come to where it finds no solution
        assert all(game.end in ("ended", "length") for game in games)


@pytest.mark.parametrize("method", SEARCHES)
def test_search_finds_what_the_likeliest_steps_miss(method: str) -> None:
    greedy, games = search("countdown", "puct", 0, None), search("countdown", method, 80, None)
    assert sum(game.verdict == 1.0 for game in games) > sum(game.verdict == 1.0 for game in greedy)


@settings(max_examples=10, deadline=None)
@given(
    tokens=st.integers(1, 90),
    kind=st.sampled_from(sorted(KINDS)),
    method=st.sampled_from(SEARCHES),
    seed=st.integers(0, 9),
)
def test_no_budget_is_exceeded(tokens: int, kind: str, method: str, seed: int) -> None:
    for game in search(kind, method, 20, Budget(tokens=tokens), seed):
        assert game.forwarded <= tokens
        assert game.tokens or game.end == "budget"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", SEARCHES)
def test_a_game_is_the_same_alone_and_among_others(kind: str, method: str) -> None:
    together = search(kind, method, 5, None, seed=2)
    parts, problems, config = KINDS[kind]()
    stand_in = 0.0 if method == "frontier" and not parts.task.public_verifier else None
    player = build(parts, SearchConfig(), replace(config, method=method, simulations=5, stand_in=stand_in))
    streams = np.random.default_rng(2).spawn(len(problems))
    for index in (0, len(problems) - 1):
        session = player.session(1)
        session.add([Asked(problems[index], streams[index])])
        games = []
        while session.live:
            games += session.step()
        session.close()
        assert games[0][1].tokens == together[index].tokens


def test_what_is_dropped_is_forgotten() -> None:
    parts, problems, config = KINDS["sampled"]()
    session = build(parts, SearchConfig(), replace(config, method="puct", simulations=50)).session(4)
    numbers = session.add([Asked(problem, np.random.default_rng(0)) for problem in problems])
    for _ in range(5):
        session.step()
    session.drop(numbers)
    assert session.live == 0
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0
    session.close()


class Failing(Lines):
    def verdict(self, problem: PublicProblem, answer: str) -> Any:
        if len(answer) == 3:
            raise InputError("the verifier broke")
        return super().verdict(problem, answer)


@pytest.mark.parametrize("rules", [StepRules(), None])
def test_a_failure_leaves_the_engine_clean(rules: StepRules | None) -> None:
    class Named(Failing):
        def actions(self, problem: PublicProblem, answer: str) -> list[str]:
            return ["aba", "abb", "b"]

    parts = make_parts(Named())
    player = build(
        parts,
        SearchConfig(),
        MethodConfig("puct", granularity="step" if rules else "environment", simulations=4),
    )
    with pytest.raises(InputError, match="verifier broke"):
        player.play(PROBLEMS, np.random.default_rng(0))
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


def test_a_task_without_actions_is_refused_before_it_plays() -> None:
    player = build(make_parts(), SearchConfig(), MethodConfig("puct", granularity="environment"))
    with pytest.raises(InputError, match="lines names no actions"):
        player.session(2).add([Asked(PROBLEMS[0], np.random.default_rng(0))])


def test_actions_outside_the_vocabulary_are_refused() -> None:
    class Foreign(Lines):
        def actions(self, problem: PublicProblem, answer: str) -> list[str]:
            return ["a", "z"]

    player = build(make_parts(Foreign()), SearchConfig(), MethodConfig("puct", granularity="environment"))
    with pytest.raises(InputError, match="'z' of task lines is outside"):
        player.play(PROBLEMS, np.random.default_rng(0))
