"""Sessions of samples and beams: what they pay to the token, budgets, deadlines, stops, and games that do not
know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Mirror, Secret, TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.sampling import Sampling
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import BeamSearch, BestOfN, SampledGame, SelfConsistency, greedy, samples
from tokenzero.selfplay.methods.beams import BeamSession
from tokenzero.selfplay.session import Asked, Budget, Method, Session
from tokenzero.tasks import PublicProblem, Task, Verdict
from tokenzero.value import ValueHead

PROBLEMS = [problem.public for problem in Mirror().problems("test")][:6]


class Coin(Mirror):
    """Three letters are an answer; right when the last is among the first half of the alphabet."""

    public_verifier: ClassVar[bool] = True

    @property
    def max_answer_tokens(self) -> int:
        return 6

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        return Verdict(len(answer) >= 3, float(answer[2] in "abc") if len(answer) >= 3 else None)


class Long(Secret):
    """Only the end mark ends an answer of at most eight letters; the first letter is what it comes to."""

    @property
    def max_answer_tokens(self) -> int:
        return 8

    def final_answer(self, answer: str) -> str:
        return answer[:1]


class Likes:
    """Accepts answers with an a, rejects those with an f; forwards three tokens for each."""

    name, version, failures, tokens = "likes", "1", 0, 0

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Any:
        self.tokens += 3 * len(partials)
        return np.asarray([("a" in text) - ("f" in text) for text in partials], np.int8)


def make_parts(task: Task | None = None, **more: Any) -> Parts:
    student = make_student()
    parts = Parts(student=student, engine=tree_engine(student), task=task or Long(), **more)
    head = ValueHead(student.hidden_size)
    with torch.no_grad():
        head.last.weight.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(1))
    parts.value_head = head
    parts.judge = Likes()
    return parts


METHODS: dict[str, Callable[[Parts], Method]] = {
    "sample": lambda parts: BestOfN(parts, 1, choose="first", name="sample"),
    "three samples": lambda parts: BestOfN(parts, 3, choose="first", name="sample"),
    "likeliest": lambda parts: BestOfN(parts, 4, choose="likelihood"),
    "valued": lambda parts: BestOfN(parts, 4, choose="value"),
    "judged": lambda parts: BestOfN(parts, 4, choose="judge"),
    "vote": lambda parts: SelfConsistency(parts, 4),
    "valued vote": lambda parts: SelfConsistency(parts, 4, vote="value"),
    "beam": lambda parts: BeamSearch(parts, 3),
    "diverse beam": lambda parts: BeamSearch(parts, 4, groups=2, length_penalty=0.5),
}
VERIFIED = {**METHODS, "verified": lambda parts: BestOfN(parts, 4)}


def asked(problems: Sequence[PublicProblem] = PROBLEMS, seed: int = 0, **more: Any) -> list[Asked]:
    streams = np.random.default_rng(seed).spawn(len(problems))
    return [Asked(problem, stream, **more) for problem, stream in zip(problems, streams, strict=True)]


def drained(session: Session) -> dict[int, SampledGame]:
    games: dict[int, Game] = {}
    while session.live:
        games.update(session.step())
    session.close()
    assert all(isinstance(game, SampledGame) for game in games.values())
    return games  # type: ignore[return-value]


def answered(method: Method, asking: Sequence[Asked], places: int = 512) -> list[SampledGame]:
    session = method.session(places)
    numbers = session.add(asking)
    games = drained(session)
    return [games[number] for number in numbers]


def story(game: SampledGame) -> tuple[Any, ...]:
    """All of a game but its floats' last bits."""
    answers = [(answer.tokens, answer.text, answer.verdict, answer.end) for answer in game.answers]
    return game.tokens, game.text, game.verdict, game.end, game.forwarded, game.depth, answers


def flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [item for some in lists for item in some]


def resident(parts: Parts) -> int:
    assert isinstance(parts.engine, TreeEngine)
    return parts.engine.resident


# ---- what is paid


def check_paid(parts: Parts, method: Method, games: Sequence[SampledGame], counter: TokenCounter) -> None:
    total = Ledger()
    for game in games:
        paid = game.ledger
        assert game.forwarded == paid.prefill_tokens + paid.decode_tokens + paid.value_tokens
        total.add(paid)
    ledger = method.ledger
    student_tokens = ledger.prefill_tokens + ledger.decode_tokens + ledger.value_tokens
    assert student_tokens == counter.tokens
    assert total.prefill_tokens == ledger.prefill_tokens + ledger.cached_tokens
    for name in ("decode_tokens", "value_tokens", "judge_tokens", "judge_calls", "verifier_calls"):
        assert getattr(total, name) == getattr(ledger, name), name
    assert resident(parts) == 0


@pytest.mark.parametrize("task", [Coin(), Long()])
@pytest.mark.parametrize("kind", VERIFIED)
@pytest.mark.parametrize("how", ["freely", "budget", "stops", "few places"])
def test_every_token_is_counted_once(kind: str, task: Task, how: str) -> None:
    if kind == "verified" and not task.public_verifier:
        return
    parts = make_parts(task)
    counter = TokenCounter(parts.student)
    method = VERIFIED[kind](parts)
    problems = [replace(p, stop=("a", "ce"), limit=5) if how == "stops" else p for p in PROBLEMS]
    budget = {"tokens": 11} if how == "budget" else {}
    games = answered(method, asked(problems, **budget), places=2 if how == "few places" else 512)
    check_paid(parts, method, games, counter)
    if kind in ("sample", "three samples", "likeliest", "judged", "vote", "verified"):
        for game in games:
            assert game.ledger.decode_tokens == sum(len(answer.tokens) - 1 for answer in game.answers)
    assert (method.ledger.value_tokens > 0) == ("value" in kind)
    assert (method.ledger.judge_calls > 0) == (kind == "judged")


@pytest.mark.parametrize("kind", ["likeliest", "valued", "beam"])
def test_a_step_forwards_once(kind: str) -> None:
    parts = make_parts()
    calls: list[int] = []
    extend = parts.engine.extend
    parts.engine.extend = lambda states, tokens: calls.append(len(states)) or extend(states, tokens)  # type: ignore[method-assign, func-returns-value]
    session = METHODS[kind](parts).session(4)
    session.add(asked())
    steps = 0
    while session.live:
        session.step()
        steps += 1
        assert len(calls) <= steps
    session.close()
    assert max(calls) > len(PROBLEMS), "rows of several games go together"


# ---- games do not know each other


@pytest.mark.parametrize("kind", VERIFIED)
@pytest.mark.parametrize("tokens", [None, 14])
def test_an_answer_is_the_same_alone_and_among_others(kind: str, tokens: int | None) -> None:
    task = Coin() if kind == "verified" else Long()
    alone = []
    for index in range(len(PROBLEMS)):
        parts = make_parts(task)
        alone += answered(VERIFIED[kind](parts), [asked(tokens=tokens)[index]])
    parts = make_parts(task)
    together = answered(VERIFIED[kind](parts), asked(tokens=tokens))
    assert [story(game) for game in together] == [story(game) for game in alone]

    parts = make_parts(task)
    session, games = VERIFIED[kind](parts).session(2), {}
    waiting = asked(tokens=tokens)
    numbers = []
    while waiting or session.live:  # another comes with every step
        numbers += session.add([waiting.pop(0)] if waiting else [])
        games.update(session.step())
    session.close()
    assert [story(games[number]) for number in numbers] == [story(game) for game in alone]  # type: ignore[arg-type]


def test_how_many_samples_fly_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even which of them a budget cuts."""
    for kind in ("likeliest", "valued"):
        for tokens in (None, 6, 9, 12, 17, 23):
            wide = answered(METHODS[kind](make_parts()), asked(tokens=tokens))
            monkeypatch.setattr(samples, "ROWS", 0)
            narrow = answered(METHODS[kind](make_parts()), asked(tokens=tokens))
            monkeypatch.undo()
            assert [story(game) for game in wide] == [story(game) for game in narrow]


def test_each_problem_may_be_drawn_in_its_own_way() -> None:
    kinds = [None, Sampling(0.0), Sampling(3.0, top_k=3), Sampling(1.0, repetition_penalty=3.0)]
    asking = [replace(a, sampling=kinds[i % 4]) for i, a in enumerate(asked(PROBLEMS[:4]))]
    parts = make_parts()
    mixed = answered(BestOfN(parts, 1, choose="first"), asking)
    for index, game in enumerate(mixed):
        alone = answered(BestOfN(make_parts(), 1, kinds[index], choose="first"), [asked(PROBLEMS[:4])[index]])
        assert story(game) == story(alone[0])
    likeliest = greedy(make_parts()).play(PROBLEMS[1:2], np.random.default_rng(0))
    assert mixed[1].tokens == likeliest[0].tokens
    session = BestOfN(parts, 1).session()
    with pytest.raises(InputError, match="token 99"):
        session.add([replace(asking[0], sampling=Sampling(logit_bias=((99, 1.0),)))])


# ---- budgets


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(VERIFIED)), tokens=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_budget_of_tokens_is_never_exceeded(kind: str, tokens: int, seed: int) -> None:
    task = Coin() if kind == "verified" else Long()
    parts = make_parts(task)
    counter = TokenCounter(parts.student)
    method = VERIFIED[kind](parts)
    games = answered(method, asked(seed=seed, tokens=tokens))
    check_paid(parts, method, games, counter)
    free = answered(VERIFIED[kind](make_parts(task)), asked(seed=seed))
    for game, whole in zip(games, free, strict=True):
        assert game.forwarded <= tokens
        if whole.forwarded <= tokens and game.end != "budget":
            assert story(game) == story(whole)
        assert (game.end == "budget") or game.forwarded == whole.forwarded
        if tokens < len(game.prompt):
            assert (game.forwarded, game.tokens, game.text, game.end) == (0, [], "", "budget")
        else:
            assert game.tokens
        assert "beam" in kind or len(game.answers) <= len(whole.answers)
        if kind in ("valued", "valued vote"):  # what a sample goes on by, its value is paid out of
            ended = [answer for answer in game.answers if answer.end != "budget"]
            assert all(answer.value is not None for answer in ended if len(answer.tokens) > 1)
        for found, wanted in zip(game.answers, whole.answers, strict=False):
            if "beam" not in kind:  # the same samples, as far as they go
                assert found.tokens == wanted.tokens[: len(found.tokens)]


def test_a_budget_gives_the_best_finished_answer_before_any_cut_one() -> None:
    cut = 0
    for game in answered(BestOfN(make_parts(), 8, choose="likelihood"), asked(PROBLEMS * 8, tokens=20)):
        finished = [answer for answer in game.answers if answer.end != "budget"]
        assert len(finished) >= len(game.answers) - 1, "at most the last sample is cut"
        if finished:
            best = max(finished, key=lambda answer: answer.log_probability)
            assert game.tokens == best.tokens
        cut += len(finished) < len(game.answers)
        assert game.end == "budget"
        assert len(game.answers) < 8
    assert cut


def test_the_budget_of_play_is_each_problems_own() -> None:
    method = BestOfN(make_parts(), 3, choose="likelihood")
    games = method.play(PROBLEMS, np.random.default_rng(0), budget=Budget(tokens=9))
    assert all(game.forwarded <= 9 for game in games)
    assert sum(game.forwarded for game in games) > 9


class Ticking:
    """A clock that a forward moves on by a second."""

    def __init__(self, parts: Parts) -> None:
        self.now = 0.0
        for name in ("prefill", "extend"):
            setattr(parts.engine, name, self._ticks(getattr(parts.engine, name)))

    def _ticks(self, forward: Callable[..., Step]) -> Callable[..., Step]:
        def timed(*arguments: Any) -> Step:
            self.now += 1.0
            return forward(*arguments)

        return timed

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", METHODS)
def test_a_deadline_is_met_within_a_forward_by_the_best_so_far(kind: str) -> None:
    parts = make_parts()
    clock = Ticking(parts)
    method = METHODS[kind](parts)
    session = method.session(4, clock)
    session.add(asked(deadline=3.5))
    late = session.add(asked(PROBLEMS[:1], seed=5))
    when: dict[int, float] = {}
    games: dict[int, Game] = {}
    while session.live:
        for number, game in session.step():
            when[number], games[number] = clock.now, game
    session.close()
    assert all(when[number] <= 4.0 for number in range(len(PROBLEMS)))
    assert games[late[0]].end != "budget"
    timed = [games[number] for number in range(len(PROBLEMS))]
    assert {game.end for game in timed[:4]} >= {"budget"}
    for game in timed:
        assert isinstance(game, SampledGame)
        finished = [answer for answer in game.answers if answer.end != "budget"]
        if game.answers:
            longest = max(len(answer.tokens) for answer in game.answers)
            assert game.tokens in [answer.tokens for answer in finished] or len(game.tokens) == longest
        else:
            assert game.tokens == []
            assert game.forwarded in (0, len(game.prompt))
    assert resident(parts) == 0


def test_whoever_is_late_waits_for_no_other_forward() -> None:
    parts = make_parts()
    now = [0.0]
    session = BestOfN(parts, 2, choose="likelihood").session(clock=lambda: now[0])
    session.add([*asked(PROBLEMS[:1], deadline=1.0), *asked(PROBLEMS[1:2], seed=3)])
    assert session.step() == []
    now[0], before = 1.0, parts.engine.ledger.forwarded_tokens
    (late,) = session.step()
    assert (late[0], late[1].end) == (0, "budget")
    assert late[1].tokens
    assert parts.engine.ledger.forwarded_tokens == before
    assert session.live == 1
    session.close()


def test_a_deadline_that_has_passed_costs_nothing() -> None:
    parts = make_parts()
    session = BestOfN(parts, 2).session(clock=lambda: 7.0)
    session.add(asked(deadline=7.0))
    ended = session.step()
    session.close()
    assert [game.end for _, game in ended] == ["budget"] * len(PROBLEMS)
    assert parts.engine.ledger.forwarded_tokens == 0


# ---- leaving


@pytest.mark.parametrize("kind", ["three samples", "valued", "beam", "diverse beam"])
def test_dropped_games_leave_nothing_and_disturb_nobody(kind: str) -> None:
    parts = make_parts()
    counter = TokenCounter(parts.student)
    method = METHODS[kind](parts)
    session = method.session(4)
    numbers = session.add(asked())
    session.step()
    session.step()
    session.drop([numbers[1], numbers[2], numbers[5], 77])  # two in play, one that waits, a stranger
    assert session.live == 3
    games = {}
    while session.live:
        games.update(session.step())
    session.drop(numbers)
    assert resident(parts) == 0
    session.close()
    wanted = answered(METHODS[kind](make_parts()), asked())
    assert sorted(games) == [numbers[0], numbers[3], numbers[4]]
    for number, game in games.items():
        assert story(game) == story(wanted[number])  # type: ignore[arg-type]
    assert method.ledger.prefill_tokens + method.ledger.decode_tokens + method.ledger.value_tokens == (
        counter.tokens
    ), "what dropped games cost is paid all the same"


@pytest.mark.parametrize("kind", METHODS)
def test_a_session_that_is_closed_early_leaves_nothing(kind: str) -> None:
    parts = make_parts()
    method = METHODS[kind](parts)
    session = method.session()
    session.add(asked())
    session.step()
    session.step()
    assert resident(parts) > 0
    session.close()
    assert resident(parts) == 0
    assert method.ledger.prefill_tokens > 0


@pytest.mark.parametrize("kind", ["beam", "diverse beam"])
def test_beams_hold_what_grows_and_nothing_else(kind: str) -> None:
    parts = make_parts()
    session = METHODS[kind](parts).session()
    assert isinstance(session, BeamSession)
    session.add(asked(PROBLEMS[:1]))
    prompt = len(parts.student.tokenizer(PROBLEMS[0].prompt).input_ids)
    while not session.step():
        (play,) = session._plays.values()
        assert play.beams is not None
        begun = {
            (number, tuple(beam.tokens[: length + 1]))
            for number, group in enumerate(play.beams.groups)
            for beam in group.live
            for length in range(len(beam.tokens))
        }
        assert resident(parts) == prompt + len(begun)
    session.close()


def test_weights_that_are_no_numbers_are_told_and_leave_nothing() -> None:
    for kind in ("sample", "beam"):
        parts = make_parts()
        with torch.no_grad():
            parts.student.model.get_output_embeddings().weight[5] = float("nan")  # type: ignore[union-attr, operator, index]
        parts.student.weights_changed()
        with pytest.raises(InputError, match="not a number"):
            METHODS[kind](parts).play(PROBLEMS, np.random.default_rng(0))
        assert resident(parts) == 0


# ---- limits and stop strings


@pytest.mark.parametrize("kind", METHODS)
def test_a_limit_and_a_stop_string_end_an_answer(kind: str) -> None:
    problems = [replace(p, limit=4, stop=("bd", "a")) for p in PROBLEMS * 6]
    parts = make_parts()
    games = answered(METHODS[kind](parts), asked(problems))
    for game in games:
        for answer in game.answers:
            whole = parts.student.tokenizer.decode(answer.tokens, skip_special_tokens=True)
            first = min((at for s in ("bd", "a") if (at := whole.find(s)) >= 0), default=-1)
            assert len(answer.tokens) <= 4
            assert answer.text == (whole if first < 0 else whole[:first])
            if first >= 0:
                assert answer.end == "stop"
                assert whole.endswith(("bd", "a")), "it ends where the string is complete"
            elif answer.tokens[-1] == parts.student.eos_id:
                assert answer.end == "ended"
            else:
                assert (answer.end, len(answer.tokens)) == ("length", 4)
    assert {game.end for game in games} >= {"stop"}


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (PublicProblem("", "abc", limit=0), "limit is 0"),
        (PublicProblem("", "abc", stop=("",)), "stop string is empty"),
        (PublicProblem("", ""), "empty"),
        (PublicProblem("", "xyz"), "not among"),
        (PublicProblem("", "abcdef" * 5), "the limit is"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_nothing_is_added(
    problem: PublicProblem, message: str
) -> None:
    session = BestOfN(make_parts(), 1).session()
    with pytest.raises(InputError, match=message):
        session.add([*asked(PROBLEMS[:1]), Asked(problem, np.random.default_rng(0))])
    assert session.live == 0
    with pytest.raises(InputError, match="budget of 0"):
        session.add(asked(tokens=0))
    with pytest.raises(InputError, match="0 places"):
        BestOfN(make_parts(), 1).session(0)


def test_tokens_are_told_as_they_become_certain() -> None:
    for stop in ((), ("bd", "a", "cf")):
        heard: list[list[int]] = []
        steps: list[int] = []
        parts = make_parts()
        session = BestOfN(parts, 1, choose="first").session()
        problem = replace(PROBLEMS[0], stop=stop)
        for seed in range(30):
            heard.clear()
            session.add(asked([problem], seed=seed, on_tokens=heard.append))
            ended: list[tuple[int, Game]] = []
            while not ended:
                ended = session.step()
                text = parts.student.tokenizer.decode(flat(heard), skip_special_tokens=True)
                steps.append(len(heard))
            game = ended[0][1]
            if game.end == "stop":
                assert text == game.text
            else:
                assert flat(heard) == game.tokens
            assert all(heard)
        assert max(steps) > 2, "they come one by one"
        session.close()


def test_methods_that_choose_tell_their_answer_at_the_end() -> None:
    for kind in ("three samples", "vote", "beam"):
        heard: list[list[int]] = []
        game = answered(METHODS[kind](make_parts()), asked(PROBLEMS[:1], on_tokens=heard.append))[0]
        assert heard == [game.tokens]


# ---- who chooses


def test_the_value_of_a_finished_answer_is_that_of_its_last_token() -> None:
    parts = make_parts()
    assert parts.value_head is not None
    for game in answered(METHODS["valued"](parts), asked()):
        assert len(game.answers) == 4
        for answer in game.answers:
            hidden = plain(parts.student, [*game.prompt, *answer.tokens])[1]
            wanted = float(parts.value_head.evaluate(hidden[None].detach())[0])
            assert answer.value == pytest.approx(wanted, abs=1e-5)
        best = max(game.answers, key=lambda answer: answer.value or 0.0)
        assert game.tokens == best.tokens
        assert game.ledger.value_tokens == 4


def test_the_judge_chooses_and_the_likeliest_among_equals() -> None:
    for game in answered(METHODS["judged"](make_parts()), asked()):
        keys = [(("a" in a.text) - ("f" in a.text), a.log_probability) for a in game.answers]
        assert game.tokens == game.answers[keys.index(max(keys))].tokens
        assert (game.ledger.judge_calls, game.ledger.judge_tokens) == (4, 12)


def test_the_first_of_several_samples_is_given_and_all_are_kept() -> None:
    for game in answered(METHODS["three samples"](make_parts(Coin())), asked()):
        assert len(game.answers) == 3
        assert game.tokens == game.answers[0].tokens


@pytest.mark.parametrize("vote", ["count", "likelihood", "value"])
def test_votes_are_over_final_answers(vote: str) -> None:
    differ = 0
    for game in answered(SelfConsistency(make_parts(), 9, vote=vote), asked(PROBLEMS * 4)):
        weights: dict[str, float] = {}
        for answer in game.answers:
            if answer.text:
                assert (answer.value is not None) == (vote == "value")
                worth = {
                    "count": 1.0,
                    "likelihood": float(np.exp(answer.log_probability)),
                    "value": (1.0 + (answer.value or 0.0)) / 2.0,
                }[vote]
                weights[answer.text[0]] = weights.get(answer.text[0], 0.0) + worth
        assert weights[game.text[0]] == pytest.approx(max(weights.values()))
        assert game.text == next(a.text for a in game.answers if a.text[:1] == game.text[0])
        whole = [answer.text for answer in game.answers]
        differ += whole.count(game.text) < max(map(whole.count, whole))
    assert differ or vote != "count", "some winner is not the commonest whole text"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda parts: BestOfN(parts, 2, choose="verifier"), "public verdicts"),
        (lambda parts: BestOfN(parts, 2, choose="value"), "needs a value head"),
        (lambda parts: BestOfN(parts, 2, choose="judge"), "needs a judge"),
        (lambda parts: BestOfN(parts, 2, choose="luck"), "choose is 'luck'"),
        (lambda parts: SelfConsistency(parts, 2, vote="value"), "needs a value head"),
        (lambda parts: SelfConsistency(parts, 2, vote="luck"), "vote is 'luck'"),
        (lambda parts: BestOfN(parts, 2, Sampling(logit_bias=((99, 1.0),))), "token 99"),
        (lambda parts: BeamSearch(parts, 4, groups=3), "groups is 3"),
    ],
)
def test_what_the_parts_cannot_serve_is_refused(make: Callable[[Parts], Method], message: str) -> None:
    parts = make_parts()
    parts.value_head = parts.judge = None
    with pytest.raises(InputError, match=message):
        make(parts)
