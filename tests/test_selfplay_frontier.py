"""Frontier search, sampling and demonstrations as players of a round: budgets, answers, trees and what they
teach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Mirror, Secret, make_student, plain, planted, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.arms import ARMS, arm_config, with_settings
from tokenzero.selfplay.config import ModelConfig, SelfPlayConfig
from tokenzero.selfplay.episode import Episode, read_episodes, write_episodes
from tokenzero.selfplay.evaluator import Parts, banned_tokens
from tokenzero.selfplay.learner import Draw, Learner, LearnerConfig
from tokenzero.selfplay.listener import Silence
from tokenzero.selfplay.methods import Search
from tokenzero.selfplay.play_config import PlayConfig
from tokenzero.selfplay.play_stage import play_round
from tokenzero.selfplay.player import Player
from tokenzero.selfplay.replay import Replay
from tokenzero.selfplay.sampler import Sampler
from tokenzero.selfplay.tree_targets import (
    gathered_episode,
    solution_paths,
    tree_episode,
    value_targets,
)
from tokenzero.tasks import ONGOING, SOLVED, PublicProblem, Task, Verdict
from tokenzero.value import ValueConfig, ValueHead

FRONTIER = SearchConfig(method="frontier", candidates=8, tokens=40)
PROBLEMS = [problem.public for problem in Mirror().problems("test")][:12]


class Sorted(Mirror):
    """Any answer of three letters in order is right, so that problems have many solutions."""

    name = "sorted"

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if list(answer) != sorted(answer):
            return Verdict(True, 0.0)
        return SOLVED if len(answer) == 3 else ONGOING

    def score(self, problem: Any, answer: str) -> float:
        return self.verdict(problem.public, answer).score or 0.0


class Doubled(Sorted):
    """As above, and two equal letters in a row end it too, so that solutions differ in length."""

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        verdict = super().verdict(problem, answer)
        return SOLVED if verdict == ONGOING and answer[-2:-1] == answer[-1:] != "" else verdict


def make_parts(task: Task | None = None) -> Parts:
    student = make_student()
    return Parts(student=student, engine=tree_engine(student), task=task or Sorted())


def played(parts: Parts, config: PlayConfig, seed: int = 0, owed: int = 0) -> Any:
    train = parts.task.problems("train")
    rng = np.random.default_rng(seed)
    return play_round(parts, parts.task, config, train, rng, 1, 7, owed, Silence())


def test_a_tree_forwards_its_budget_and_not_a_token_more() -> None:
    parts = make_parts(Mirror())
    games = Player(parts, FRONTIER).play(PROBLEMS, np.random.default_rng(0))
    for game in games:
        assert game.tree is not None
        states = int((~game.tree.terminal).sum()) - 1
        assert game.forwarded == len(game.prompt) + states
        assert game.forwarded == 40 or game.tree.exhausted[0]
    assert parts.engine.ledger.decode_tokens == sum(game.forwarded - len(game.prompt) for game in games)


def test_solutions_are_found_verified_and_distinct() -> None:
    games = Player(make_parts(), FRONTIER).play(PROBLEMS, np.random.default_rng(0))
    for game in games:
        assert game.tree is not None
        assert game.verdict == 1.0
        paths = solution_paths(game.tree)
        assert len(paths) == int(game.tree.solutions[0]) > 1
        assert len({tuple(path) for path in paths}) == len(paths)
        assert game.tokens == paths[0]


def test_at_test_time_the_first_solution_ends_the_search() -> None:
    games = Search(make_parts(), FRONTIER).play(PROBLEMS, np.random.default_rng(0))
    assert all(game.tree is not None and int(game.tree.solutions[0]) == 1 for game in games)
    assert {game.verdict for game in games} == {1.0}


def test_without_a_verifier_frontier_search_is_refused_but_gold_may_stand_in_for_training() -> None:
    parts = make_parts(Secret())
    with pytest.raises(InputError, match="no public verifier"):
        Player(parts, FRONTIER).play(PROBLEMS, np.random.default_rng(0))
    parts.task.problems = lambda split: planted(Secret(), split, "a")  # type: ignore[method-assign]
    found = played(parts, PlayConfig(games=6, search=replace(FRONTIER, tokens=300), targets="tree"))
    assert found.solved > 0


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_a_round_of_trees_teaches_counts_and_values(discount: float) -> None:
    games = Player(make_parts(Doubled()), FRONTIER).play(PROBLEMS, np.random.default_rng(0))
    lengths = {len(path) for game in games if game.tree is not None for path in solution_paths(game.tree)}
    assert len(lengths) > 1  # else a discount would change nothing
    for game in games:
        tree = game.tree
        assert tree is not None
        episode = tree_episode(game, 1.0, 0, 1, length_discount=discount)
        answer = episode.tokens[episode.prompt_len :]
        assert episode.parents[0] == -1
        assert all(above < index for index, above in enumerate(episode.parents))
        paths = [tuple(path) for path in solution_paths(tree)]
        shortest = min(len(path) for path in paths)
        worth = {path: discount ** (len(path) - shortest) for path in paths}
        for position, actions, weights, weight in zip(
            episode.positions, episode.actions, episode.weights, episode.importance, strict=True
        ):
            prefix: list[int] = []
            state = position - (episode.prompt_len - 1)
            while state > 0:
                prefix.append(answer[state - 1])
                state = episode.parents[state - 1] + 1
            below = [path for path in paths if path[: len(prefix)] == tuple(prefix[::-1])]
            total = sum(worth[path] for path in below)
            assert weight == pytest.approx(total)
            shares = {a: sum(worth[p] for p in below if p[len(prefix)] == a) / total for a in actions}
            assert dict(zip(actions, weights, strict=True)) == pytest.approx(shares)
        value = value_targets(tree)
        assert (value[tree.solutions > 0] == 1.0).all()
        assert (value[tree.exhausted & (tree.solutions == 0)] == -1.0).all()
        assert np.abs(value).max() <= 1.0


def test_a_stored_tree_comes_back(tmp_path: Any) -> None:
    found = played(make_parts(), PlayConfig(games=5, search=FRONTIER, targets="tree"))
    write_episodes(tmp_path / "shard.parquet", found.episodes)
    assert read_episodes(tmp_path / "shard.parquet") == [
        Episode(**{**vars(e), "root_values": np.float32(e.root_values).tolist(),
                   "weights": [np.float32(w).tolist() for w in e.weights]}) for e in found.episodes
    ]  # fmt: skip


def test_trees_train_several_times_the_states_of_the_played_path() -> None:
    parts = make_parts()
    tree = played(parts, PlayConfig(tokens=2000, search=FRONTIER, targets="tree"))
    gumbel = SearchConfig(method="gumbel", simulations=8, candidates=8)
    path = played(parts, PlayConfig(tokens=2000, search=gumbel, targets="path"))

    def per_token(found: Any) -> float:
        return Replay(found.episodes, parts.student).states / found.spent

    assert per_token(tree) > 3 * per_token(path)


@pytest.mark.parametrize("player", ["search", "sample"])
def test_tokens_of_rounds_add_up(player: str) -> None:
    targets = "tree" if player == "search" else "solutions"
    config = PlayConfig(
        tokens=1500, games_in_flight=64, player=player, samples=3, search=FRONTIER, targets=targets
    )
    parts, spent = make_parts(), 0
    for round_index in range(4):
        found = played(parts, config, seed=round_index, owed=spent - 1500 * round_index)
        spent += found.spent
        assert abs(spent - 1500 * (round_index + 1)) <= 60
    assert played(parts, config, owed=1500).problems == 0


def test_samples_are_drawn_from_the_policy_and_every_token_is_paid() -> None:
    parts = make_parts(Mirror())
    one = Sampler(parts, 3000, in_flight=4000).play(PROBLEMS[:1], np.random.default_rng(1))[0]
    first = np.bincount([answer[0] for answer in one.answers], minlength=10) / 3000
    logits = plain(parts.student, one.prompt)[0].detach().clone()
    logits[banned_tokens(parts.student)] = -torch.inf
    np.testing.assert_allclose(first, logits.softmax(-1).numpy(), atol=0.03)
    assert one.forwarded == len(one.prompt) + sum(len(answer) - 1 for answer in one.answers)
    assert parts.engine.ledger.decode_tokens == one.forwarded - len(one.prompt)
    assert parts.engine.ledger.prefill_tokens == len(one.prompt)
    right = [text == PROBLEMS[0].prompt[::-1] for text in one.texts]
    assert one.scores.tolist() == [float(solved) for solved in right]


def test_low_temperature_samples_are_greedy() -> None:
    parts = make_parts()
    cold = Sampler(parts, 4, temperature=1e-4).play(PROBLEMS, np.random.default_rng(1))
    assert all(len({tuple(answer) for answer in one.answers}) == 1 for one in cold)


def test_gold_scores_samples_of_training_problems_only_through_the_grader() -> None:
    parts = make_parts(Secret())
    blind = Sampler(parts, 5).play(PROBLEMS, np.random.default_rng(1))
    assert all(np.isnan(one.scores).all() for one in blind)
    graded = Sampler(parts, 5).play(
        PROBLEMS, np.random.default_rng(1), grader=lambda index, text: float(index == 2)
    )
    assert [one.scores.tolist() for one in graded] == [[float(i == 2)] * 5 for i in range(len(PROBLEMS))]


def test_rejection_sampling_keeps_right_answers_once_and_rewards_weigh_all() -> None:
    config = PlayConfig(games=10, player="sample", samples=40, targets="solutions")
    found = played(make_parts(), config)
    kept = [(episode.problem, tuple(episode.tokens)) for episode in found.episodes]
    assert len(kept) == len(set(kept)) == found.solutions > 0
    assert {episode.outcome for episode in found.episodes} == {1.0}
    every = played(make_parts(), replace(config, targets="rewards"))
    assert len(every.episodes) > len(found.episodes)


def test_demonstrations_forward_nothing() -> None:
    found = played(make_parts(Mirror()), PlayConfig(games=9, player="demonstrate"))
    assert (len(found.episodes), found.spent) == (9, 0)


@pytest.mark.parametrize(
    ("player", "method", "targets"),
    [("search", "frontier", "path"), ("sample", "gumbel", "tree"), ("demonstrate", "gumbel", "solutions")],
)
def test_targets_that_a_player_cannot_give_are_refused(player: str, method: str, targets: str) -> None:
    with pytest.raises(InputError, match=r"play\.targets"):
        PlayConfig(player=player, targets=targets, search=SearchConfig(method=method))


def test_every_arm_is_a_config() -> None:
    base = SelfPlayConfig(model=ModelConfig(architecture={"model_type": "llama"}))
    for name in ARMS:
        config = arm_config(base, name, {"learner.optimizer.lr": 0.001, "play.tokens": 5})
        assert config.learner.optimizer.lr == 0.001
        assert config.play.tokens == 5
    with pytest.raises(InputError, match="did you mean 'frontier'"):
        arm_config(base, "frontir")
    with pytest.raises(InputError, match="did you mean 'samples'"):
        with_settings(base, {"play.sample": 3})


def test_a_share_of_each_batch_teaches_the_policy() -> None:
    poor = replace(FRONTIER, tokens=7, candidates=4)
    found = played(make_parts(Mirror()), PlayConfig(games=40, search=poor, targets="tree"))
    replay = Replay(found.episodes, make_student())
    taught = set(replay.taught.tolist())
    assert 0 < len(taught) < len(replay)
    draw = Draw(replay, 0.75)(np.random.default_rng(0), 16)
    assert sum(index in taught for index in draw.tolist()) == 12
    nothing = Replay([episode for episode in found.episodes if episode.outcome < 0], make_student())
    assert len(Draw(nothing, 0.75)(np.random.default_rng(0), 16)) == 16


@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_what_searches_say_beside_the_path_is_gathered(method: str) -> None:
    parts, beside = make_parts(), 0
    config = SearchConfig(method=method, simulations=40, candidates=8)
    player = Player(parts, config, gather_visits=3)
    for game in player.play(PROBLEMS, np.random.default_rng(0)):
        moves = {tuple(game.tokens[:i]): move for i, move in enumerate(game.moves)}
        assert set(moves) <= set(game.searched)
        beside += len(game.searched) - len(moves)
        for path, move in moves.items():
            found = game.searched[path]
            used = move.weights > 0
            assert found.actions == move.actions[used].tolist()
            assert found.weights == move.weights[used].tolist()
            assert found.value == pytest.approx(move.value)
        episode = gathered_episode(game, 1.0, 0, 0)
        answer = episode.tokens[episode.prompt_len :]
        states: list[tuple[int, ...]] = [()]
        for token, above in zip(answer, episode.parents, strict=True):
            states.append((*states[above + 1], token))
        assert set(states) == set(game.searched) | {
            tuple(game.tokens[:i]) for i in range(len(game.tokens) + 1)
        }
        for position, actions in zip(episode.positions, episode.actions, strict=True):
            assert actions == game.searched[states[position - (episode.prompt_len - 1)]].actions
        for path, value in zip(states, episode.root_values, strict=True):
            on_path = list(path) == game.tokens[: len(path)]
            assert value == pytest.approx(1.0 if on_path else game.searched[path].value)
    assert beside > len(PROBLEMS)


def test_reanalysis_asks_the_present_head_of_what_is_not_known() -> None:
    parts = make_parts()
    poor = replace(FRONTIER, tokens=9, candidates=4)
    episodes = played(parts, PlayConfig(games=30, search=poor, targets="tree")).episodes
    head = ValueHead(parts.student.hidden_size, ValueConfig(), torch.Generator().manual_seed(1))
    config = LearnerConfig(steps=1, reanalyse=0.5, augment=False)
    learner = Learner(parts.student, head, Sorted(), config, total_steps=1, seed=[1])
    replay = Replay(episodes, parts.student)
    before = replay.batch(np.arange(len(replay)), None, np.random.default_rng(0), learner._forward.pack)
    read = learner._reanalyse(replay)
    after = replay.batch(np.arange(len(replay)), None, np.random.default_rng(0), learner._forward.pack)
    assert read >= sum(len(episode.tokens) for episode in episodes)
    known = before.value_targets.abs() == 1.0
    assert torch.equal(before.value_targets[known], after.value_targets[known])
    sequences, told = [], []
    for episode in episodes:
        answer = episode.tokens[episode.prompt_len :]
        for state in range(len(answer) + 1):
            path: list[int] = []
            at = state
            while at > 0:
                path.append(answer[at - 1])
                at = episode.parents[at - 1] + 1
            sequences.append(episode.tokens[: episode.prompt_len] + path[::-1])
            told.append(episode.root_values[state])
    hidden = torch.stack([plain(parts.student, sequence)[1] for sequence in sequences])
    worth = head.value(head(hidden)).detach().numpy()
    expected = [v if abs(v) == 1.0 else 0.5 * v + 0.5 * w for v, w in zip(told, worth.tolist(), strict=True)]
    assert after.value_targets.tolist() == pytest.approx(expected, abs=1e-5)
    assert (~known).any()
