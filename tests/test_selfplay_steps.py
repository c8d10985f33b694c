"""Step-level beams and diverse verifier tree search: what lives on, what it costs, when it ends."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_tasks import PROBLEMS, Balanced, Lines, make_parts, watched
from tiny import TokenCounter, plain

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Sampling
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import Parts, banned_tokens
from tokenzero.selfplay.methods import Budget, Dvts, MethodConfig, SampledGame, StepBeam, build
from tokenzero.selfplay.session import Asked
from tokenzero.selfplay.step_drafts import StepRules
from tokenzero.tasks import PublicProblem

RULES = StepRules(tokens=4, proposals=3)
METHODS = {"step-beam": StepBeam, "dvts": Dvts}


def played(method: Any, seed: int = 0, **options: Any) -> list[SampledGame]:
    games = method.play(PROBLEMS, np.random.default_rng(seed), **options)
    assert all(isinstance(game, SampledGame) for game in games)
    return list(games)


class Naive:
    """One game, the way the methods are described: everything is forwarded from the beginning each time."""

    def __init__(self, parts: Parts, prompt: list[int], rng: np.random.Generator) -> None:
        self.parts, self.prompt, self.rng = parts, prompt, rng
        self.problem = PublicProblem("", "")
        self.forward = cache(lambda answer: plain(parts.student, [*prompt, *answer]))

    def next_token(self, answer: list[int]) -> tuple[int, float]:
        logits = self.forward(tuple(answer))[0].clone()
        logits[banned_tokens(self.parts.student)] = -float("inf")
        token = int((logits.numpy() + self.rng.gumbel(size=len(logits))).argmax())
        return token, float(logits.log_softmax(-1)[token])

    def value(self, answer: list[int]) -> float:
        assert self.parts.value_head is not None
        hidden = self.forward(tuple(answer))[1]
        return float(self.parts.value_head.evaluate(hidden[None])[0])

    def play(self, groups: int, width: int) -> list[int]:
        """The answer. Drafts are (group, head, step, log-probability)."""
        task, text = self.parts.task, self.parts.pieces.text
        drafts = [(g, [], [], 0.0) for g in range(groups) for _ in range(width * RULES.proposals)]
        whole: list[tuple[int, float, float, list[int]]] = []
        ended: list[tuple[int, float, float, list[int]]] = []
        seen: set[tuple[int, ...]] = set()
        while drafts:
            going = []
            for group, head, step, share in drafts:
                token, more = self.next_token(head + step)
                answer, share = head + step + [token], share + more
                verdict = task.verdict(self.problem, text(answer))
                over = verdict.done or token == self.parts.student.eos_id
                over = over or len(answer) == task.max_answer_tokens
                full = len(step) + 1 == RULES.tokens or text(answer).count(";") > text(head).count(";")
                if not over and not full:
                    going.append((group, head, [*step, token], share))
                elif (group, *answer) not in seen:
                    seen.add((group, *answer))
                    if over and verdict.score == 1.0:
                        return answer
                    if not over:
                        whole.append((group, self.value(answer), share, answer))
                    elif not task.public_verifier:
                        ended.append((group, self.value(answer), share, answer))
            drafts = going
            for group in range(groups):
                own = [found for found in whole if found[0] == group]
                if not own or any(draft[0] == group for draft in drafts):
                    continue
                rivals = own + [found for found in ended if found[0] == group]
                best = sorted(rivals, key=lambda found: found[1:3], reverse=True)[:width]
                whole = [found for found in whole if found[0] != group]
                for found in best:
                    if found in own:
                        drafts += [(group, found[3], [], found[2])] * RULES.proposals
        return max(ended, key=lambda found: found[1:3])[3] if ended else []


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("task", [Lines(), Balanced()])
def test_both_methods_do_what_their_description_says(kind: str, task: Lines) -> None:
    parts = make_parts(task)
    for n in (1, 3):
        games = played(METHODS[kind](parts, n, RULES), seed=n)
        streams = np.random.default_rng(n).spawn(len(PROBLEMS))
        for game, rng in zip(games, streams, strict=True):
            groups, width = (n, 1) if kind == "dvts" else (1, n)
            expected = Naive(parts, game.prompt, rng).play(groups, width)
            if expected:
                assert game.tokens == expected
            else:
                assert game.verdict == 0.0


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("task", [Lines(), Balanced()])
@pytest.mark.parametrize("tokens", [None, 25])
def test_what_is_forwarded_is_counted_to_the_token(kind: str, task: Lines, tokens: int | None) -> None:
    parts = make_parts(task)
    counter, held = TokenCounter(parts.student), watched(parts)
    method = METHODS[kind](parts, 3, RULES)
    games = played(method, budget=Budget(tokens=tokens))
    shared = method.ledger.cached_tokens  # of prompts that begin alike
    assert method.ledger.forwarded_tokens == counter.tokens
    assert sum(game.forwarded for game in games) == counter.tokens + shared
    assert all(game.ledger.forwarded_tokens == game.forwarded for game in games)
    assert method.ledger.verifier_calls == sum(game.ledger.verifier_calls for game in games)
    assert (method.ledger.value_tokens > 0) == (not task.public_verifier)
    assert held.total() == 0


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.integers(1, 60),
    n=st.integers(1, 4),
    kind=st.sampled_from(sorted(METHODS)),
    seed=st.integers(0, 9),
)
def test_a_budget_is_never_exceeded_and_always_answered(tokens: int, n: int, kind: str, seed: int) -> None:
    for task in (Lines(), Balanced()):
        parts = make_parts(task)
        free = played(METHODS[kind](parts, n, RULES), seed)
        games = played(METHODS[kind](parts, n, RULES), seed, budget=Budget(tokens=tokens))
        for game, unlimited in zip(games, free, strict=True):
            assert game.forwarded <= tokens
            if unlimited.forwarded <= tokens:
                assert (game.tokens, game.end) == (unlimited.tokens, unlimited.end)
            elif game.verdict != 1.0:
                assert game.end == "budget"
            assert game.tokens or len(game.prompt) > tokens


@pytest.mark.parametrize("kind", METHODS)
def test_a_game_is_the_same_alone_and_among_others(kind: str) -> None:
    method = METHODS[kind](make_parts(), 2, RULES)
    together = played(method, seed=4)
    for index, stream in enumerate(np.random.default_rng(4).spawn(len(PROBLEMS))):
        session = method.session(1)
        session.add([Asked(PROBLEMS[index], stream)])
        games = []
        while session.live:
            games += session.step()
        session.close()
        assert games[0][1].tokens == together[index].tokens


@pytest.mark.parametrize("kind", METHODS)
def test_limits_stops_and_deadlines_end_answers(kind: str) -> None:
    parts = make_parts()
    now = 0.0
    method = METHODS[kind](parts, 2, RULES)
    session = method.session(8, lambda: now)
    short = dataclasses.replace(PROBLEMS[0], limit=2)
    stopped = dataclasses.replace(PROBLEMS[1], stop=("b;", ";a"))
    heard: list[int] = []
    session.add([Asked(short, np.random.default_rng(1)), Asked(stopped, np.random.default_rng(2))])
    session.add([Asked(PROBLEMS[2], np.random.default_rng(3), deadline=2.0, on_tokens=heard.extend)])
    games = {}
    while session.live:
        now += 1.0
        games.update(session.step())
    session.close()
    assert len(games[0].tokens) <= 2
    assert games[1].end in ("stop", "ended", "length")
    assert not any(stop in games[1].text for stop in stopped.stop)
    assert games[1].end != "stop" or any(stop in parts.pieces.text(games[1].tokens) for stop in stopped.stop)
    assert games[2].end == "budget"
    assert heard == games[2].tokens != []
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


@pytest.mark.parametrize("kind", METHODS)
def test_who_is_dropped_leaves_nothing_behind(kind: str) -> None:
    parts = make_parts()
    assert isinstance(parts.engine, TreeEngine)
    method = METHODS[kind](parts, 2, RULES)
    session = method.session(4)
    numbers = session.add([Asked(p, np.random.default_rng(0)) for p in PROBLEMS])
    for _ in range(4):
        session.step()
    session.drop(numbers)
    assert session.live == 0
    assert parts.engine.resident == 0
    session.close()
    assert method.ledger.forwarded_tokens == parts.engine.ledger.forwarded_tokens


class Contrary:
    """A judge that wants answers without the letter a."""

    name, version, failures, tokens = "contrary", "1", 0, 0

    def judge(self, prompts: list[str], partials: list[str]) -> np.ndarray[Any, Any]:
        self.tokens += len(partials)
        return np.asarray([-1 if "a" in partial else 1 for partial in partials], np.int8)


def test_a_judge_chooses_where_there_is_no_value_head() -> None:
    parts = make_parts(value_head=None, judge=Contrary())
    counter = TokenCounter(parts.student)
    method = StepBeam(parts, 3, StepRules(tokens=4, proposals=6))
    games = played(method)
    accepted = [any("a" not in answer.text for answer in game.answers) for game in games]
    assert any(accepted)
    assert ["a" not in game.text for game in games] == accepted
    assert method.ledger.judge_calls == sum(game.ledger.judge_calls for game in games) > 0
    assert method.ledger.judge_tokens == sum(game.ledger.judge_tokens for game in games) > 0
    assert counter.tokens == method.ledger.prefill_tokens + method.ledger.decode_tokens


def test_nobody_to_choose_by_is_refused() -> None:
    with pytest.raises(InputError, match="neither value head nor judge"):
        StepBeam(make_parts(value_head=None), 2)
    with pytest.raises(InputError, match="n is 0"):
        Dvts(make_parts(), 0)
    for wrong in ({"delimiter": ""}, {"tokens": 0}, {"proposals": 0}):
        with pytest.raises(InputError):
            StepRules(**wrong)


def test_a_config_builds_them() -> None:
    parts = make_parts()
    config = MethodConfig("dvts", n=2, delimiter=";", step_tokens=3, proposals=2, sampling=Sampling(0.5))
    built, made = build(parts, SearchConfig(), config), Dvts(parts, 2, StepRules(";", 3, 2, Sampling(0.5)))
    assert built.name == "dvts"
    assert [game.tokens for game in played(built)] == [game.tokens for game in played(made)]
    assert build(parts, SearchConfig(), MethodConfig("step-beam")).name == "step-beam"
    with pytest.raises(InputError, match="granularity step"):
        MethodConfig("puct", proposals=3)
