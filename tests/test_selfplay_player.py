"""Players: the raw policy at zero simulations, solutions that search finds, and games that can be
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Mirror, Secret, make_student, plain, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, RecomputeEngine, Step
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.tiers import open_engine
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import LeafConfig, Parts, banned_tokens
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import Search, greedy
from tokenzero.selfplay.player import Player
from tokenzero.tasks import PublicProblem, Task, Verdict
from tokenzero.teachers import Ensemble, EnsembleConfig, NgramTeacher, TeacherWeights
from tokenzero.value import ValueHead

PROBLEMS = [problem.public for problem in Mirror().problems("test")][:12]


def make_parts(task: Task | None = None, engine: Any = tree_engine, family: str = "llama-gqa") -> Parts:
    student = make_student(family)
    return Parts(student=student, engine=engine(student), task=task or Mirror())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def argmax_answer(parts: Parts, prompt: str) -> list[int]:
    """The likeliest token each time, by plain forwards, until the task or the end mark stops it."""
    answer: list[int] = []
    while True:
        ids = parts.student.tokenizer(prompt).input_ids
        logits = plain(parts.student, [*ids, *answer])[0].detach().clone()
        logits[banned_tokens(parts.student)] = -torch.inf
        answer.append(int(logits.argmax()))
        text = parts.student.tokenizer.decode(answer, skip_special_tokens=True)
        ended = parts.task.verdict(PublicProblem("", prompt), text).done or answer[-1] == parts.student.eos_id
        if ended or len(answer) == parts.task.max_answer_tokens:
            return answer


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2", "mistral"])
@pytest.mark.parametrize("task", [Mirror(), Secret()])
def test_without_simulations_a_player_is_the_greedy_policy(task: Task, family: str) -> None:
    parts = make_parts(task, family=family)
    expected = [argmax_answer(parts, problem.prompt) for problem in PROBLEMS]
    quiet = SearchConfig(method="puct", simulations=0, candidates=6, temperature=0.0)
    for player in (greedy(parts), Player(parts, quiet)):
        games = player.play(PROBLEMS, rng())
        assert [game.tokens for game in games] == expected
        assert [game.forwarded for game in games] == [
            len(game.prompt) + len(game.tokens) - 1 + (game.verdict is None) for game in games
        ]
        assert player.ledger.simulations == 0


def test_with_gumbel_noise_and_no_simulations_it_samples_the_policy() -> None:
    parts = make_parts(Secret())
    player = Player(parts, SearchConfig(simulations=0, candidates=10))
    games = player.play([PROBLEMS[0]] * 3000, rng())
    first = np.bincount([game.tokens[0] for game in games], minlength=10) / 3000
    logits = plain(parts.student, games[0].prompt)[0].detach().clone()
    logits[banned_tokens(parts.student)] = -torch.inf
    np.testing.assert_allclose(first, logits.softmax(-1).numpy(), atol=0.03)


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_search_finds_planted_solutions_that_the_policy_does_not(method: str) -> None:
    parts = make_parts()
    raw = greedy(parts).play(PROBLEMS, rng())
    search = Search(parts, SearchConfig(method=method, simulations=400, candidates=8, c_init=3.0))
    games = search.play(PROBLEMS, rng())
    right = [game.text == problem.prompt[::-1] for game, problem in zip(games, PROBLEMS, strict=True)]
    assert sum(right) >= 0.75 * len(games)
    assert [game.verdict for game in games] == [float(solved) for solved in right]
    assert sum(game.verdict == 1.0 for game in raw) < len(raw) / 2
    stopped = [game for game in games if len(game.moves) < len(game.tokens)]
    assert stopped, "a solution in the tree is played out at once"
    assert all(game.simulations < 400 * len(game.moves) for game in stopped), "and the search stops there"
    assert all(game.depth == len(game.tokens) == 3 for game in stopped)


def test_self_play_walks_to_a_known_solution_and_searches_every_step_of_the_way() -> None:
    wandering = SearchConfig(method="puct", simulations=400, candidates=8, c_init=3.0, temperature=50.0)
    player = Player(make_parts(), wandering)  # by itself it would take any visited action
    games = player.play(PROBLEMS, rng())
    assert sum(game.verdict == 1.0 for game in games) >= 0.75 * len(games)
    for game in games:
        assert len(game.moves) == len(game.tokens)
        assert [move.chosen for move in game.moves] == game.tokens
        assert game.simulations == 400 * len(game.moves)


@pytest.mark.parametrize("candidates", [4, 6, 40])
def test_moves_tell_what_was_searched_and_what_was_played(candidates: int) -> None:
    parts = make_parts()
    teachers = [NgramTeacher.fit([[4, 5, 6, 7, 8, 9] * 3], 2, 10)]
    voice = EnsembleConfig(beta=0.3)
    parts.ensemble = Ensemble(teachers, TeacherWeights([teachers[0].name], voice.weights), voice)
    config = SearchConfig(simulations=24, candidates=candidates)
    games = Player(parts, config).play(PROBLEMS, rng())
    for game in games:
        assert 1 <= len(game.moves) <= len(game.tokens) <= 4
        for move, token in zip(game.moves, game.tokens, strict=False):
            assert move.chosen == token
            slots = len(move.actions)
            arrays = (move.weights, move.visits, move.q, move.prior)
            assert [array.shape for array in arrays] == [(slots,)] * 4
            assert slots == min(candidates, parts.student.vocab_size)
            assert move.weights.sum() == pytest.approx(1.0, abs=1e-5)
            assert (move.weights[move.actions < 0] == 0).all()
            assert move.responsibility.shape == (2,)
            assert move.responsibility.sum() == pytest.approx(1.0, abs=1e-5)
            assert -1 <= move.value <= 1
        assert game.value == game.moves[0].value
        assert game.terminal_value == 2 * (game.verdict or 0.0) - 1


def told(game: Game) -> tuple[Any, ...]:
    moves = [
        (m.actions.tolist(), m.weights.tolist(), m.visits.tolist(), m.value, m.chosen) for m in game.moves
    ]
    return game.tokens, game.text, game.forwarded, game.simulations, game.depth, game.verdict, moves


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_the_same_seed_plays_the_same_games(method: str) -> None:
    config = SearchConfig(method=method, simulations=12, candidates=6, dirichlet_fraction=0.25)

    def once(seed: int) -> list[tuple[Any, ...]]:
        player = Player(make_parts(Secret()), config, LeafConfig(rollout_share=0.2))
        return [told(game) for game in player.play(PROBLEMS, rng(seed), grader=lambda game, text: 0.0)]

    assert once(1) == once(1)
    assert once(1) != once(2)


@pytest.mark.parametrize("engine", [tree_engine, RecomputeEngine])
@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_a_game_does_not_depend_on_its_batch(method: str, engine: Any) -> None:
    def play(problems: Sequence[PublicProblem], in_flight: int) -> list[Game]:
        parts = make_parts(Secret(), engine)
        parts.value_head = ValueHead(32)
        torch.nn.init.normal_(
            parts.value_head.last.weight, std=0.5, generator=torch.Generator().manual_seed(1)
        )
        config = SearchConfig(
            method=method, simulations=16, candidates=6, gumbel_scale=0.0, temperature=0.0, leaves=2
        )
        return Player(parts, config, games_in_flight=in_flight).play(problems, rng())

    together = play(PROBLEMS, 512)
    assert len({tuple(game.tokens) for game in together}) > 3
    in_parts = play(PROBLEMS, 5)
    alone = [game for problem in PROBLEMS for game in play([problem], 512)]
    backwards = play(PROBLEMS[::-1], 512)[::-1]
    for games in (in_parts, alone, backwards):
        assert [game.tokens for game in games] == [game.tokens for game in together]
        assert [game.forwarded for game in games] == [game.forwarded for game in together]
        for game, other in zip(games, together, strict=True):
            assert game.value == pytest.approx(other.value, abs=1e-4)


def test_the_engine_does_not_change_the_games() -> None:
    search = SearchConfig(simulations=20, candidates=6)
    one = Search(make_parts(engine=RecomputeEngine), search).play(PROBLEMS, rng())
    for engine in (tree_engine, open_engine):
        other = Search(make_parts(engine=engine), search).play(PROBLEMS, rng())
        assert [game.tokens for game in one] == [game.tokens for game in other]
        assert [game.forwarded for game in one] == [game.forwarded for game in other]


def test_graders_hear_the_place_of_the_problem_in_the_whole_list() -> None:
    graded: dict[int, set[str]] = {}

    def grader(game: int, text: str) -> float:
        graded.setdefault(game, set()).add(text)
        return float(text == PROBLEMS[game].prompt[::-1])

    finished: list[int] = []
    player = Player(make_parts(Secret()), SearchConfig(simulations=4, candidates=6), games_in_flight=5)
    games = player.play(PROBLEMS, rng(), grader=grader, on_games=finished.append)
    assert sorted(graded) == list(range(len(PROBLEMS)))
    assert all(game.text in graded[index] for index, game in enumerate(games))
    assert [game.problem for game in games] == PROBLEMS
    assert sum(finished) == len(PROBLEMS)
    assert all(game.verdict is None for game in games), "a gold score is no public verdict"


def test_the_ledger_is_the_sum_over_the_games() -> None:
    parts = make_parts()
    player = Player(parts, SearchConfig(simulations=10, candidates=6), games_in_flight=5)
    games = [*player.play(PROBLEMS, rng(0)), *player.play(PROBLEMS[:3], rng(1))]
    ledger = player.ledger
    assert ledger.simulations == sum(game.simulations for game in games)
    shared = parts.engine.ledger.cached_tokens  # what prompts have in common is forwarded once
    assert shared > 0
    assert ledger.forwarded_tokens + shared == sum(game.forwarded for game in games)
    assert ledger.prefill_tokens + shared == sum(len(game.prompt) for game in games)
    assert ledger.forwarded_tokens == parts.engine.ledger.forwarded_tokens
    assert ledger.wall_s > 0
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


class Refuses(Mirror):
    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if len(answer) == 2:
            raise InputError("this prompt is not mine")
        return Verdict(False, None)


def test_a_verifier_that_refuses_leaves_the_engine_clean() -> None:
    parts = make_parts(Refuses())
    player = Player(parts, SearchConfig(simulations=8, candidates=6))
    with pytest.raises(InputError, match="not mine"):
        player.play(PROBLEMS, rng())
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0
    assert player.ledger.prefill_tokens > 0, "what was spent stays counted"


def test_a_search_player_has_no_noise_of_its_own() -> None:
    noisy = SearchConfig(
        method="puct", simulations=6, candidates=6, dirichlet_fraction=0.5, temperature=1.0, gumbel_scale=1.0
    )
    for config in (noisy, replace(noisy, method="gumbel")):
        one, other = (Search(make_parts(), config).play(PROBLEMS, rng(seed)) for seed in (1, 2))
        assert [told(game) for game in one] == [told(game) for game in other]


class Exact:
    """A stand-in for an engine whose numbers depend on the sequence alone, to the last bit."""

    def __init__(self, student: Any) -> None:
        self.ledger = Ledger()
        self.batches: list[int] = []
        self.held: dict[int, tuple[int, ...]] = {}
        self._next = 0
        self._shape = (student.vocab_size, student.hidden_size)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        self.ledger.prefill_tokens += sum(map(len, prompts))
        return self._step([tuple(prompt) for prompt in prompts])

    def extend(self, states: Ids, tokens: Ids) -> Step:
        self.ledger.decode_tokens += len(states)
        self.batches.append(len(states))
        pairs = zip(states.tolist(), tokens.tolist(), strict=True)
        return self._step([(*self.held[state], token) for state, token in pairs])

    def release(self, states: Ids) -> None:
        for state in states.tolist():
            del self.held[state]

    def _step(self, sequences: list[tuple[int, ...]]) -> Step:
        states = np.arange(self._next, self._next + len(sequences))
        self._next += len(sequences)
        self.held.update(zip(states.tolist(), sequences, strict=True))
        drawn = [np.random.default_rng(list(sequence)).normal(size=self._shape[0]) for sequence in sequences]
        logits = torch.from_numpy(2 * np.asarray(drawn, np.float32))
        return Step(states, logits, torch.zeros(len(sequences), self._shape[1]))


NOISY = [
    SearchConfig(simulations=8, candidates=7),
    SearchConfig(method="puct", simulations=8, candidates=7, dirichlet_fraction=0.4, leaves=2),
    SearchConfig(method="puct", simulations=8, candidates=7, reuse_subtree=True),
    SearchConfig(simulations=0, candidates=7),
]


@pytest.mark.parametrize("config", NOISY)
@pytest.mark.parametrize("rollouts", [0.0, 0.3])
def test_with_exact_arithmetic_nothing_depends_on_how_many_games_are_in_flight(
    config: SearchConfig, rollouts: float
) -> None:
    def play(places: int, problems: Sequence[PublicProblem]) -> list[tuple[Any, ...]]:
        player = Player(
            make_parts(Secret(), Exact),
            config,
            LeafConfig(rollout_share=rollouts),
            games_in_flight=places,
            fast_simulations=3 if config.simulations else 0,
            full_share=0.6 if config.simulations else 1.0,
        )
        games = player.play(problems, rng(5), grader=lambda game, text: len(text) / 4)
        return [told(game) for game in games]

    together = play(512, PROBLEMS)
    assert len({tuple(game[0]) for game in together}) > 3
    for places in (1, 2, 5, 7):
        assert play(places, PROBLEMS) == together
    assert play(4, PROBLEMS[:6]) == together[:6], "nor on what comes later in the queue"


def test_with_a_real_model_the_same_tokens_are_played_however_many_are_in_flight() -> None:
    config = SearchConfig(simulations=12, candidates=6)
    tokens = [
        [game.tokens for game in Player(make_parts(), config, games_in_flight=n).play(PROBLEMS, rng(3))]
        for n in (1, 5, 512)
    ]
    assert tokens[0] == tokens[1] == tokens[2]


def test_places_are_filled_again_as_soon_as_a_game_ends() -> None:
    parts = make_parts(Secret(), Exact)
    player = Player(parts, SearchConfig(method="puct", simulations=0, candidates=6), games_in_flight=4)
    games = player.play(PROBLEMS * 3, rng())
    assert len({len(game.tokens) for game in games}) > 1, "games differ in length"
    engine = parts.engine
    assert isinstance(engine, Exact)
    # One move of every game in play at a time; the batch only shrinks when the queue is empty.
    lengths = [len(game.tokens) for game in games]
    places, steps = lengths[:4], []
    waiting = lengths[4:]
    while places:
        steps.append(len(places))
        places = [left - 1 for left in places]
        going = [left for left in places if left]
        places = going + [waiting.pop(0) for _ in range(min(4 - len(going), len(waiting)))]
    assert engine.batches == steps
    assert set(steps[:-4]) == {4}
    assert engine.held == {}


def test_only_states_of_games_in_play_are_held() -> None:
    most = 0

    class Watching(Exact):
        def _step(self, sequences: list[tuple[int, ...]]) -> Step:
            nonlocal most
            step = super()._step(sequences)
            most = max(most, len(self.held))
            return step

    parts = make_parts(Secret(), Watching)
    Player(parts, SearchConfig(simulations=10, candidates=6), games_in_flight=3).play(PROBLEMS * 5, rng())
    # A game holds its path, the subtree it kept and what the search in hand added: at most two searches'
    # worth.
    assert most <= 3 * (1 + 4 + 2 * 10)


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_fast_searches_are_drawn_by_their_share_and_have_no_noise(method: str) -> None:
    config = SearchConfig(
        method=method,
        simulations=9,
        candidates=6,
        dirichlet_fraction=0.9,
        dirichlet_alpha=0.1,
        temperature=0.0,
    )

    def play(share: float, seed: int) -> list[Game]:
        player = Player(make_parts(Secret(), Exact), config, fast_simulations=4, full_share=share)
        games = player.play(PROBLEMS * 10, rng(seed))
        assert player.ledger.simulations == sum(game.simulations for game in games)
        return games

    games = play(0.3, 0)
    moves = [move for game in games for move in game.moves]
    assert np.mean([move.full for move in moves]) == pytest.approx(0.3, abs=0.06)
    for game in games:
        assert game.simulations == sum(9 if move.full else 4 for move in game.moves)
    assert all(move.visits.sum() == (9 if move.full else 4) for move in moves)
    first = {
        (game.problem.id, tuple(game.moves[0].weights.tolist())) for game in games if not game.moves[0].full
    }
    assert len(first) == len({name for name, _ in first}), "without noise a fast search has one answer"
    noisy = {(game.problem.id, tuple(game.moves[0].visits.tolist())) for game in games if game.moves[0].full}
    assert len(noisy) > len({name for name, _ in noisy})
    assert all(move.full for game in play(1.0, 0) for move in game.moves)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"games_in_flight": 0}, "games_in_flight is 0"),
        ({"fast_simulations": 9}, "fast_simulations is 9"),
        ({"full_share": 0.5}, "give both or neither"),
    ],
)
def test_players_refuse_what_they_cannot_do(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Player(make_parts(), SearchConfig(simulations=8), **wrong)


def test_no_problems_are_no_games() -> None:
    assert Player(make_parts(), SearchConfig(simulations=2)).play([], rng()) == []


def test_a_kept_subtree_starts_the_next_search_with_its_visits() -> None:
    parts = make_parts(Secret())
    config = SearchConfig(
        method="puct", simulations=12, candidates=6, temperature=0.0, reuse_subtree=True, c_init=2.0
    )
    for game in Player(parts, config).play(PROBLEMS[:4], rng()):
        for before, after in pairwise(game.moves):
            known = before.visits[before.actions == before.chosen][0] - 1
            assert after.visits.sum() == 12 + known
        assert game.simulations == 12 * len(game.moves)
