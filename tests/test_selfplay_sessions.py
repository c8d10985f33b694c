"""Sessions of tree search: games that come and go, budgets, deadlines, limits, stop strings and what each
game cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selfplay_player import Exact, told
from tiny import Mirror, Secret, TokenCounter, make_student, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import LeafConfig, Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import MethodConfig, Search, build, greedy
from tokenzero.selfplay.methods.build import searching
from tokenzero.selfplay.player import Player
from tokenzero.selfplay.session import Asked, Budget, Session
from tokenzero.tasks import Automaton, PublicProblem, Task, Verdict, Verdicts
from tokenzero.teachers import Ensemble, EnsembleConfig, NgramTeacher, TeacherWeights
from tokenzero.value import RuleJudge, ValueHead

PROBLEMS = [problem.public for problem in Mirror().problems("test")][:12]
PUCT = SearchConfig(method="puct", simulations=6, candidates=6, dirichlet_fraction=0.3)
GUMBEL = SearchConfig(simulations=6, candidates=6)
FRONTIER = SearchConfig(method="frontier", candidates=6, simulations=8)
METHODS = {"puct": PUCT, "gumbel": GUMBEL, "frontier": FRONTIER, "raw": replace(GUMBEL, simulations=0)}


def make_parts(task: Task | None = None, engine: Any = Exact, **more: Any) -> Parts:
    student = make_student()
    return Parts(student=student, engine=engine(student), task=task or Mirror(), **more)


def stream(index: int) -> np.random.Generator:
    return np.random.default_rng([7, index])


def run(session: Session, games: dict[int, Game] | None = None) -> dict[int, Game]:
    games = {} if games is None else games
    while session.live:
        games.update(session.step())
    return games


def answered(player: Player, asked: Sequence[Asked], places: int = 3, **options: Any) -> list[Game]:
    session = player.session(places, **options)
    numbers = session.add(asked)
    games = run(session)
    session.close()
    return [games[number] for number in numbers]


def head_of(parts: Parts, scale: float = 1.0) -> ValueHead:
    head = ValueHead(parts.student.hidden_size)
    torch.nn.init.normal_(head.last.weight, std=scale, generator=torch.Generator().manual_seed(0))
    return head


# ---- games that come and go


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_added_while_others_play_is_answered_as_if_alone(name: str, seed: int) -> None:
    when = np.random.default_rng(seed).integers(0, 25, len(PROBLEMS))
    when.sort()
    player = Player(make_parts(), METHODS[name])
    session, games, steps, next_one = player.session(3), dict[int, Game](), 0, 0
    while session.live or next_one < len(PROBLEMS):
        while next_one < len(PROBLEMS) and when[next_one] <= steps:
            assert session.add([Asked(PROBLEMS[next_one], stream(next_one))]) == [next_one]
            next_one += 1
        games.update(session.step())
        steps += 1
    session.close()
    assert player._parts.engine.held == {}  # type: ignore[attr-defined]
    for index, problem in enumerate(PROBLEMS):
        alone = answered(Player(make_parts(), METHODS[name]), [Asked(problem, stream(index))], places=1)[0]
        assert told(games[index]) == told(alone)
        assert games[index].ledger == alone.ledger
        assert games[index].end == alone.end
    ledger = player.ledger
    assert ledger.forwarded_tokens == sum(game.ledger.forwarded_tokens for game in games.values())
    assert ledger.simulations == sum(game.simulations for game in games.values())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", range(7))
def test_a_dropped_game_leaves_nothing_behind(name: str, steps: int) -> None:
    parts = make_parts(Secret() if name != "frontier" else Mirror(), tree_engine)
    engine = parts.engine
    assert isinstance(engine, TreeEngine)
    other = Player(parts, GUMBEL).session(2)
    other.add([Asked(PROBLEMS[0], stream(0))])
    other.step()
    resident, known = engine.resident, engine.known
    player = Player(parts, METHODS[name])
    session = player.session(2)
    numbers = session.add([Asked(problem, stream(i)) for i, problem in enumerate(PROBLEMS[:4])])
    for _ in range(steps):
        session.step()
    session.drop([*numbers, 99, -1])
    assert session.live == 0
    assert session.step() == []
    assert (engine.resident, engine.known) == (resident, known)
    assert session._evaluator.table.used == 0  # type: ignore[attr-defined]
    again = session.add([Asked(PROBLEMS[5], stream(5))])
    assert again == [4]
    game = run(session)[4]
    session.drop([4])
    session.close()
    alone = answered(
        Player(make_parts(parts.task, tree_engine), METHODS[name]), [Asked(PROBLEMS[5], stream(5))]
    )
    assert game.tokens == alone[0].tokens
    assert (engine.resident, engine.known) == (resident, known)
    run(other)
    other.close()
    assert (engine.resident, engine.known) == (0, 0)


def test_a_dropped_game_makes_room_and_the_others_do_not_notice() -> None:
    player = Player(make_parts(), GUMBEL)
    session = player.session(2)
    numbers = session.add([Asked(problem, stream(i)) for i, problem in enumerate(PROBLEMS[:5])])
    session.step()
    session.drop([numbers[0], numbers[3]])
    games = run(session)
    session.close()
    assert sorted(games) == [1, 2, 4]
    for number, game in games.items():
        alone = answered(Player(make_parts(), GUMBEL), [Asked(PROBLEMS[number], stream(number))])[0]
        assert told(game) == told(alone)
    assert player._parts.engine.held == {}  # type: ignore[attr-defined]


def test_sessions_that_share_an_engine_pay_for_themselves() -> None:
    parts = make_parts(engine=tree_engine)
    counter = TokenCounter(parts.student)
    players = [Player(parts, config) for config in METHODS.values()]
    sessions = [player.session(2) for player in players]
    for session in sessions:
        session.add([Asked(problem, stream(i)) for i, problem in enumerate(PROBLEMS[:5])])
    while any(session.live for session in sessions):
        for session in sessions:
            session.step()
    for session in sessions:
        session.close()
    assert sum(player.ledger.forwarded_tokens for player in players) == counter.tokens
    assert all(player.ledger.forwarded_tokens > 0 for player in players)


class Particular(Mirror):
    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if problem.prompt == "bad":
            raise InputError("this prompt is not mine")
        return super().verdict(problem, answer)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (PublicProblem("x", ""), "empty"),
        (PublicProblem("x", "xyz"), "not among"),
        (PublicProblem("x", "abcdef" * 5), "shorten"),
        (PublicProblem("x", "bad"), "not mine"),
        (PublicProblem("x", "abc", limit=0), "limit is 0"),
        (PublicProblem("x", "abc", stop=("a", "")), "stop string is empty"),
    ],
)
def test_what_cannot_be_played_is_refused_at_once_and_the_others_go_on(
    wrong: PublicProblem, message: str
) -> None:
    session = Player(make_parts(Particular()), GUMBEL).session(2)
    session.add([Asked(PROBLEMS[0], stream(0))])
    session.step()
    with pytest.raises(InputError, match=message):
        session.add([Asked(PROBLEMS[1], stream(1)), Asked(wrong, stream(2))])
    assert session.live == 1
    assert session.add([Asked(PROBLEMS[2], stream(2))]) == [1]
    assert sorted(run(session)) == [0, 1]
    session.close()


def test_no_places_and_no_budget_are_refused() -> None:
    player = Player(make_parts(), GUMBEL)
    with pytest.raises(InputError, match="places is 0"):
        player.session(0)
    session = player.session(1)
    with pytest.raises(InputError, match="budget of 0"):
        session.add([Asked(PROBLEMS[0], stream(0), tokens=0)])
    session.close()


@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_told_as_they_become_certain(name: str) -> None:
    heard: dict[int, list[list[int]]] = {index: [] for index in range(6)}
    task = Mirror() if name == "frontier" else Secret()
    asked = [Asked(problem, stream(i), on_tokens=heard[i].append) for i, problem in enumerate(PROBLEMS[:6])]
    for index, game in enumerate(answered(Player(make_parts(task), METHODS[name]), asked, places=2)):
        assert [token for part in heard[index] for token in part] == game.tokens
        assert all(heard[index]), "nobody is told of no tokens"
        if name != "frontier":
            assert len(heard[index]) == len(game.moves)


# ---- budgets


def budgeted(name: str, task: Task, leaves: int, rollouts: float, reuse: bool) -> tuple[Parts, Player]:
    parts = make_parts(task)
    parts.value_head = head_of(parts)
    config = replace(METHODS[name], leaves=leaves, reuse_subtree=reuse)
    return parts, Player(parts, config, LeafConfig(rollout_share=rollouts), stand_in=0.3)


@settings(deadline=None, max_examples=120)
@given(
    name=st.sampled_from(sorted(METHODS)),
    public=st.booleans(),
    leaves=st.integers(1, 3),
    rollouts=st.sampled_from([0.0, 0.0, 0.5]),
    reuse=st.booleans(),
    budgets=st.lists(st.integers(1, 45), min_size=1, max_size=6),
)
def test_no_game_forwards_more_than_its_budget(
    name: str, public: bool, leaves: int, rollouts: float, reuse: bool, budgets: list[int]
) -> None:
    parts, player = budgeted(name, Mirror() if public else Secret(), leaves, rollouts, reuse)
    asked = [Asked(PROBLEMS[i], stream(i), tokens=n) for i, n in enumerate(budgets)]
    games = answered(player, asked)
    for game, budget in zip(games, budgets, strict=True):
        assert game.forwarded <= budget
        assert game.forwarded == 0 or game.forwarded >= len(game.prompt)
        assert game.forwarded == game.ledger.forwarded_tokens
        if game.end != "budget" and not public and name != "frontier":
            assert game.tokens[-1] == parts.student.eos_id or len(game.tokens) == 4
    engine = parts.engine
    assert isinstance(engine, Exact)
    assert engine.held == {}
    assert sum(game.forwarded for game in games) == engine.ledger.forwarded_tokens
    assert player.ledger.forwarded_tokens == engine.ledger.forwarded_tokens


@pytest.mark.parametrize("name", ["puct", "gumbel"])
def test_simulations_that_are_made_again_stay_within_the_budget(name: str) -> None:
    parts = make_parts(Free())
    parts.value_head = head_of(parts)
    config = replace(METHODS[name], simulations=40, reuse_subtree=True)
    asked = [Asked(PROBLEMS[i % 12], stream(i), tokens=10 + i) for i in range(150)]
    games = answered(Player(parts, config), asked, places=50)
    assert all(game.forwarded <= 10 + i for i, game in enumerate(games))
    assert sum(game.simulations > 0 for game in games) > 100


@pytest.mark.parametrize("name", ["puct", "gumbel", "frontier"])
@pytest.mark.parametrize("public", [True, False])
def test_a_budget_that_is_not_reached_changes_nothing(name: str, public: bool) -> None:
    games = []
    for tokens in (None, 100_000):
        _, player = budgeted(name, Mirror() if public else Secret(), 1, 0.0, True)
        asked = [Asked(problem, stream(i), tokens=tokens) for i, problem in enumerate(PROBLEMS)]
        games.append([(told(game), game.end) for game in answered(player, asked)])
    assert games[0] == games[1]


@pytest.mark.parametrize("name", ["puct", "gumbel"])
def test_a_small_budget_gives_the_greedy_answer_and_more_of_it_more_search(name: str) -> None:
    def play(tokens: int) -> list[Game]:
        quiet = replace(METHODS[name], gumbel_scale=0.0, temperature=0.0, dirichlet_fraction=0.0)
        asked = [Asked(problem, stream(i), tokens=tokens) for i, problem in enumerate(PROBLEMS)]
        return answered(Player(make_parts(Secret()), quiet), asked)

    raw = greedy(make_parts(Secret())).play(PROBLEMS, np.random.default_rng(0))
    prompt = len(raw[0].prompt)
    for short in range(5):
        for game, whole in zip(play(prompt + short), raw, strict=True):
            assert game.tokens == whole.tokens[: short + 1], "the last token needs no forward"
            complete = len(whole.tokens) <= short + 1
            assert (game.end == "budget") == (not complete)
    assert all(game.end == "budget" and game.tokens == [] for game in play(prompt - 1))
    made = [sum(game.simulations for game in play(prompt + more)) for more in (4, 8, 12, 16, 20, 28, 60)]
    assert made[0] == 0
    assert made == sorted(made)
    assert made[-1] == sum(6 * len(game.tokens) for game in play(prompt + 60))


def test_a_frontier_game_is_cut_at_its_own_budget() -> None:
    player = Player(make_parts(engine=tree_engine), replace(FRONTIER, tokens=25))
    asked = [
        Asked(p, stream(i), tokens=n) for i, (p, n) in enumerate(zip(PROBLEMS, [9, 15, 25, 90], strict=False))
    ]
    for game, one in zip(answered(player, asked), asked, strict=True):
        assert game.tree is not None
        assert one.tokens is not None
        spent = len(game.prompt) + int((~game.tree.terminal).sum()) - 1
        assert game.forwarded == spent
        assert spent == min(one.tokens, 25) or bool(game.tree.exhausted[0])
        if not game.tree.solutions[0] and not game.tree.exhausted[0]:
            assert game.end == "budget"


class Ticking(Exact):
    """A second passes with each forward."""

    def __init__(self, student: Any) -> None:
        super().__init__(student)
        self.now = 0.0

    def _step(self, sequences: list[tuple[int, ...]]) -> Step:
        self.now += 1.0
        return super()._step(sequences)


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(sorted(METHODS)),
    public=st.booleans(),
    reuse=st.booleans(),
    deadlines=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=8),
)
def test_a_deadline_is_met_within_one_forward(
    name: str, public: bool, reuse: bool, deadlines: list[float]
) -> None:
    parts = make_parts(Mirror() if public else Secret(), Ticking)
    parts.value_head = head_of(parts)
    engine = parts.engine
    assert isinstance(engine, Ticking)
    player = Player(parts, replace(METHODS[name], reuse_subtree=reuse), stand_in=0.3)
    session = player.session(3, lambda: engine.now)
    session.add([Asked(PROBLEMS[i], stream(i), deadline=t) for i, t in enumerate(deadlines)])
    games: dict[int, Game] = {}
    while session.live:
        for number, game in session.step():
            assert engine.now <= deadlines[number] + 1.0
            games[number] = game
    session.close()
    assert sorted(games) == list(range(len(deadlines)))
    assert engine.held == {}
    assert player.ledger.forwarded_tokens == sum(game.forwarded for game in games.values())
    for game in games.values():
        if game.end == "budget" and name != "frontier":
            assert len(game.tokens) < 4


def test_with_more_time_there_is_more_search_and_the_answer_is_complete_as_soon_as_it_can_be() -> None:
    def play(deadline: float) -> Game:
        parts = make_parts(Secret(), Ticking)
        engine = parts.engine
        assert isinstance(engine, Ticking)
        player = Player(parts, replace(GUMBEL, gumbel_scale=0.0, simulations=20))
        return answered(player, [Asked(PROBLEMS[0], stream(0), deadline=deadline)], clock=lambda: engine.now)[
            0
        ]

    games = [play(deadline) for deadline in (0.0, 1.0, 3.0, 6.0, 9.0, 20.0, 40.0, 70.0, 200.0)]
    assert [game.end for game in games[:2]] == ["budget"] * 2
    assert games[0].tokens == []
    assert games[0].forwarded == 0
    assert all(game.end != "budget" for game in games[3:])
    made = [game.simulations for game in games]
    assert made == sorted(made)
    assert made[-1] == 20 * len(games[-1].tokens) > made[4] > 0


def test_a_solution_in_the_tree_is_given_when_time_is_up() -> None:
    parts = make_parts(engine=Ticking)
    engine = parts.engine
    assert isinstance(engine, Ticking)
    player = Search(parts, SearchConfig(method="puct", simulations=400, candidates=8, c_init=3.0))
    free = answered(player, [Asked(p, stream(0)) for p in PROBLEMS], places=1)
    index = next(i for i, game in enumerate(free) if game.verdict == 1.0 and len(game.moves) == 1)
    start = engine.now
    session = player.session(1, lambda: engine.now)
    session.add([Asked(PROBLEMS[index], stream(0), deadline=start + 10_000.0)])
    while not session._pool.solved(np.asarray([0]))[0]:  # type: ignore[attr-defined]
        assert session.step() == []
    engine.now = start + 10_000.0
    ((_, game),) = session.step()
    session.close()
    assert (game.verdict, game.text) == (1.0, PROBLEMS[index].prompt[::-1])
    assert game.end == "ended"


def test_seconds_and_tokens_of_play() -> None:
    for name, config in METHODS.items():
        games = Player(make_parts(), config).play(
            PROBLEMS, np.random.default_rng(0), budget=Budget(tokens=10, seconds=1e-9)
        )
        assert [game.end for game in games] == ["budget"] * len(PROBLEMS), name
        games = Player(make_parts(), config).play(
            PROBLEMS, np.random.default_rng(0), budget=Budget(tokens=10, seconds=1e6)
        )
        assert all(4 <= game.forwarded <= 10 for game in games)


# ---- limits and stop strings


class Free(Secret):
    """Answers of up to eight letters."""

    @property
    def max_answer_tokens(self) -> int:
        return 8


class Reader:
    """Verdicts of a task that has none, without a text."""

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        return np.zeros(len(problems), np.int64), np.zeros(len(problems), np.int64)

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        return states, Verdicts(np.zeros(len(states), np.bool_), np.full(len(states), np.nan))


class Machine(Free):
    def automaton(self, pieces: Sequence[str]) -> Automaton | None:
        return Reader()


@pytest.mark.parametrize("task", [Free(), Machine()])
@pytest.mark.parametrize("name", ["puct", "gumbel", "raw"])
def test_each_problem_has_its_own_limit(name: str, task: Task) -> None:
    limits = [1, 2, 5, None, 8, 100]
    problems = [replace(PROBLEMS[i], limit=limit) for i, limit in enumerate(limits)]
    games = answered(
        Player(make_parts(task), METHODS[name]), [Asked(p, stream(i)) for i, p in enumerate(problems)]
    )
    assert {game.end for game in games} <= {"ended", "length"}
    for index, (game, limit) in enumerate(zip(games, limits, strict=True)):
        most = min(8, limit or 8)
        assert len(game.tokens) <= most
        assert (game.end == "length") == (len(game.tokens) == most and game.tokens[-1] != 2)
        alone = answered(Player(make_parts(task), METHODS[name]), [Asked(problems[index], stream(index))])[0]
        assert told(game) == told(alone)
    assert any(game.end == "length" for game in games)


def test_a_short_limit_leaves_room_for_a_longer_prompt() -> None:
    player = Player(make_parts(Free()), GUMBEL)
    long = "abcdef" * 4 + "abcd"  # 29 tokens with the mark that opens it, of the model's 32
    with pytest.raises(InputError, match="shorten"):
        answered(player, [Asked(PublicProblem("x", long), stream(0))])
    assert answered(player, [Asked(PublicProblem("x", long, limit=3), stream(0))])[0].tokens


@pytest.mark.parametrize("limit", [2, 3])
def test_frontier_search_weighs_by_the_limit_of_the_problem(limit: int) -> None:
    class Long(Mirror):
        @property
        def max_answer_tokens(self) -> int:
            return 9

    asked = [Asked(replace(PROBLEMS[i], limit=limit if i % 2 else None), stream(i)) for i in range(6)]
    config = replace(FRONTIER, simulations=40, cost_exponent=4.0)
    games = answered(Player(make_parts(Long()), config), asked)
    short = answered(Player(make_parts(Long()), replace(config, max_depth=limit)), asked)
    for index, (game, other) in enumerate(zip(games, short, strict=True)):
        assert game.tree is not None
        if index % 2:
            assert told(game) == told(other)
            np.testing.assert_array_equal(game.tree.token, other.tree.token if other.tree else ())
            assert game.tree.depths().max() <= limit


@pytest.mark.parametrize("task", [Free(), Machine()])
@pytest.mark.parametrize("name", ["puct", "gumbel", "raw"])
@pytest.mark.parametrize("stop", [("b",), ("f", "c"), ("ab", "ed", "d")])
def test_an_answer_ends_at_its_first_stop_string(name: str, task: Task, stop: tuple[str, ...]) -> None:
    config = replace(METHODS[name], gumbel_scale=0.0, dirichlet_fraction=0.0, temperature=0.0)
    problems = [replace(problem, stop=stop if i % 3 else ()) for i, problem in enumerate(PROBLEMS)]
    games = answered(Player(make_parts(task), config), [Asked(p, stream(0)) for p in problems])
    for problem, game in zip(problems, games, strict=True):
        letters = "".join("abcdef"[token - 4] for token in game.tokens if token >= 4)
        places = [letters.find(s) for s in problem.stop if s in letters]
        assert (game.end == "stop") == bool(places)
        assert game.text == (letters[: min(places)] if places else letters)
        if places:
            assert not any(s in letters[:-1] for s in problem.stop), "nothing is written after it"
    assert sum(game.end == "stop" for game in games) > 2
    if name == "raw":
        free = answered(Player(make_parts(task), config), [Asked(p, stream(0)) for p in PROBLEMS])
        for game, whole in zip(games, free, strict=True):
            assert game.tokens == whole.tokens[: len(game.tokens)]


def test_a_stop_string_is_judged_by_the_text_before_it() -> None:
    class Exactly(Free):
        public_verifier: ClassVar[bool] = True

        def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
            assert "f" not in answer[:-1]
            return Verdict(True, 0.0) if answer.endswith("f") else Verdict(False, None)

    heard: list[str] = []

    def grader(number: int, text: str) -> float:
        heard.append(text)
        return 1.0

    config = replace(METHODS["raw"], gumbel_scale=0.0)
    problems = [replace(problem, stop=("f",)) for problem in PROBLEMS]
    plain = Player(make_parts(Exactly()), config).play(problems, np.random.default_rng(0))
    graded = Player(make_parts(Exactly()), config).play(problems, np.random.default_rng(0), grader=grader)
    stopped = [index for index, game in enumerate(plain) if game.end == "stop"]
    assert stopped
    for index in stopped:
        assert plain[index].verdict == 0.0, "what is unfinished to a public verifier is no solution"
        assert graded[index].terminal_value == 1.0, "and the verdict on the whole text is not asked for"
    assert not any("f" in text for text in heard)


# ---- stand-ins for a verifier


class Vocal:
    """A judge that accepts what holds a letter, counts ten tokens a call, and rejects "b" first of all."""

    name, version, failures = "vocal", "1", 0

    def __init__(self, letter: str = "c") -> None:
        self.letter, self.tokens, self.calls = letter, 0, 0

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Any:
        self.tokens += 7 * len(partials) + 3
        self.calls += len(partials)
        return np.asarray([1 if self.letter in p else -1 if "b" in p else 0 for p in partials], np.int8)


@pytest.mark.parametrize("leaves", [1, 2])
def test_a_judge_stands_in_for_a_verifier_and_it_is_said(leaves: int) -> None:
    parts = make_parts(Secret(), tree_engine, judge=Vocal())
    counter = TokenCounter(parts.student)
    player = Search(parts, replace(FRONTIER, tokens=40, leaves=leaves))
    games = player.play(PROBLEMS, np.random.default_rng(0))
    assert {game.verified_by for game in games} == {"judge"}
    assert all(game.verdict is None for game in games)
    found = [game for game in games if "c" in game.text]
    assert len(found) > 6
    for game in found:
        assert game.tree is not None
        assert 1 <= int(game.tree.solutions[0]) <= leaves
        assert game.terminal_value == 1.0
        assert game.end in ("ended", "length")
        assert game.forwarded == len(game.prompt) + int((~game.tree.terminal).sum()) - 1, "ends are free"
    ledger = player.ledger
    assert isinstance(parts.judge, Vocal)
    assert ledger.judge_tokens == parts.judge.tokens == sum(game.ledger.judge_tokens for game in games)
    assert ledger.judge_calls == parts.judge.calls == sum(game.ledger.judge_calls for game in games)
    assert ledger.forwarded_tokens - ledger.judge_tokens == counter.tokens


def test_where_the_judge_accepts_nothing_the_answer_it_minds_least_is_given() -> None:
    parts = make_parts(Secret(), judge=Vocal("no letter"))
    for game in Search(parts, replace(FRONTIER, tokens=60)).play(PROBLEMS, np.random.default_rng(0)):
        assert game.verified_by == "judge"
        assert game.tree is not None
        assert not game.tree.solutions[0]
        assert game.tokens[-1] == parts.student.eos_id or len(game.tokens) == 4, "it is a finished one"
        assert "b" not in game.text


@pytest.mark.parametrize("leaves", [1, 2])
@pytest.mark.parametrize("tokens", [25, 60])
def test_a_value_stands_in_for_a_verifier(leaves: int, tokens: int) -> None:
    parts = make_parts(Secret(), tree_engine)
    parts.value_head = head_of(parts, 3.0)
    counter = TokenCounter(parts.student)
    player = Search(parts, replace(FRONTIER, tokens=tokens, leaves=leaves), stand_in=0.5)
    games = player.play(PROBLEMS, np.random.default_rng(0))
    paid = counter.tokens
    assert {game.verified_by for game in games} == {"value"}
    solved = 0
    for game in games:
        assert game.forwarded <= tokens
        assert game.tree is not None
        step = tree_engine(parts.student).prefill([[*game.prompt, *game.tokens]])
        value = float(parts.value_head.evaluate(step.hidden)[0])
        accepted = bool(game.tree.solutions[0])
        solved += accepted
        if accepted or game.end != "budget":
            assert accepted == (value >= 0.5)
            assert game.terminal_value == (1.0 if accepted else -1.0)
    assert 0 < solved < len(games) or tokens == 60
    shared = player.ledger.cached_tokens
    assert sum(game.forwarded for game in games) - shared == player.ledger.forwarded_tokens == paid


def test_without_anyone_to_verify_frontier_search_names_the_ways_out() -> None:
    with pytest.raises(InputError, match="no public verifier; give stand_in"):
        Search(make_parts(Secret()), FRONTIER).session()
    with pytest.raises(InputError, match=r"stand_in is 1\.5"):
        Search(make_parts(Secret()), FRONTIER, stand_in=1.5).session()
    graded = Player(make_parts(Secret(), judge=Vocal()), FRONTIER).play(
        PROBLEMS, np.random.default_rng(0), grader=lambda number, text: 0.0
    )
    assert {game.verified_by for game in graded} == {""}
    assert all(game.ledger.judge_calls == 0 for game in graded)


def test_options_reach_the_search() -> None:
    parts = make_parts(Secret())
    search = SearchConfig(method="puct", simulations=60, candidates=6)
    full = build(parts, search, MethodConfig("puct")).play(PROBLEMS, np.random.default_rng(0))
    assert all(game.simulations == 60 * len(game.moves) for game in full)
    for option in ({"smart_pruning": True}, {"min_kld_gain": 0.02}):
        games = build(parts, search, MethodConfig("puct", **option)).play(PROBLEMS, np.random.default_rng(0))
        assert sum(game.simulations for game in games) < sum(game.simulations for game in full)
    games = build(parts, search, MethodConfig("frontier", stand_in=-1.0)).play(
        PROBLEMS, np.random.default_rng(0)
    )
    assert all(game.verified_by == "value" and game.simulations == 1 for game in games)
    with pytest.raises(InputError, match="smart_pruning"):
        build(parts, searching(search, "gumbel", None), MethodConfig(smart_pruning=True))
    early = replace(search, smart_pruning=True, min_kld_gain=0.1)
    assert searching(early, None, 9).smart_pruning
    assert not searching(early, "gumbel", 9).smart_pruning


# ---- what each game cost


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("visits", [1, 3])
def test_the_costs_of_the_games_sum_to_those_of_the_method(name: str, visits: int) -> None:
    teacher = NgramTeacher.fit([[4, 5, 6, 7, 8, 9] * 3], 2, 10)

    class Dear:
        name = teacher.name

        def propose(self, sequences: Any, k: int, prompt_lens: Any = None) -> Any:
            told = teacher.propose(sequences, k, prompt_lens)
            return replace(told, tokens=3 * len(sequences) + 1)

    voice = EnsembleConfig(beta=0.3, visits=visits)
    parts = make_parts(Mirror(), tree_engine, judge=Vocal())
    parts.ensemble = Ensemble([Dear()], TeacherWeights([teacher.name], voice.weights), voice)
    counter = TokenCounter(parts.student)
    player = Player(parts, METHODS[name], LeafConfig(judge_eta=0.2, rollout_share=0.3))
    asked = [Asked(problem, stream(i)) for i, problem in enumerate(PROBLEMS)]
    games = answered(player, asked, places=4)
    total = Ledger()
    for game in games:
        total.add(game.ledger)
        assert game.ledger.prefill_tokens == len(game.prompt)
        assert game.ledger.simulations == game.simulations
    paid, shared = player.ledger, sum(len(game.prompt) for game in games) - player.ledger.prefill_tokens
    assert shared > 0
    assert total.forwarded_tokens == paid.forwarded_tokens + shared
    assert total.cached_tokens == paid.cached_tokens - shared
    for field in fields(Ledger):
        if field.name not in ("prefill_tokens", "cached_tokens", "wall_s"):
            assert getattr(total, field.name) == getattr(paid, field.name), field.name
            assert field.name == "simulations" or getattr(paid, field.name) > 0
    assert paid.prefill_tokens + paid.decode_tokens + paid.value_tokens == counter.tokens
    assert paid.teacher_tokens == parts.ensemble.tokens.total()
    assert paid.wall_s > 0


def test_a_rule_judge_costs_calls_alone() -> None:
    parts = make_parts(judge=RuleJudge.from_names({"contains:c": 1}))
    games = answered(Player(parts, GUMBEL, LeafConfig(judge_eta=0.2)), [Asked(PROBLEMS[0], stream(0))])
    assert games[0].ledger.judge_calls > 0
    assert games[0].ledger.judge_tokens == 0
    assert games[0].ledger.forwarded_tokens == games[0].forwarded


def test_a_graders_word_is_a_verifiers_call_of_its_game() -> None:
    def grade(number: int, text: str) -> float:
        return 0.5

    games = Player(make_parts(Secret()), METHODS["raw"]).play(
        PROBLEMS, np.random.default_rng(0), grader=grade
    )
    assert all(game.ledger.verifier_calls == len(game.tokens) + 1 for game in games)
