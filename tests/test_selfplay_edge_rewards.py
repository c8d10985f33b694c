"""Edge rewards against whole answers, in the ledger, and kept out of what is learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_selfplay_evaluator import A, expand, make_parts, started
from tiny import make_student, plain
from tiny_run import tiny_config

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.edge_rewards import EdgeRewardConfig, EdgeRewards
from tokenzero.selfplay.learner import LearnerConfig
from tokenzero.selfplay.player import Player
from tokenzero.tasks import PublicProblem
from tokenzero.value.perplexity import fluency_edges


def test_the_edges_of_a_path_are_those_of_the_whole_answer() -> None:
    model = make_student(seed=7)
    parts = make_parts(edge_rewards=EdgeRewards(model, 0.3))
    evaluator, roots = started(parts, ["abc", "fed"], candidates=10)
    answers = [(A + 2, A + 1, A), (A + 3, A + 4, A + 5)]
    for root, answer in zip(roots.tolist(), answers, strict=True):
        row, found = root, []
        for token in answer:
            row = expand(evaluator, row, token)
            found.append(float(evaluator.view(np.asarray([row])).reward[0]))
        tokens = evaluator.sequence(row)
        log_probs = [
            float(plain(model, tokens[:end])[0].log_softmax(-1)[tokens[end]])
            for end in range(len(tokens) - 3, len(tokens))
        ]
        np.testing.assert_allclose(found, fluency_edges(log_probs, 0.3), atol=1e-5)
    assert evaluator.view(roots).reward.tolist() == [0.0, 0.0]
    prompts = sum(len(evaluator.prompt(place)) for place in range(2))
    shared = 1  # the beginning of both prompts
    assert evaluator.ledger.judge_tokens == prompts - shared + 2 * 2, (
        "the last token's state is not asked for"
    )


def test_search_prefers_what_is_fluent() -> None:
    problems = [PublicProblem("1", "abc"), PublicProblem("2", "fed")]
    config = SearchConfig(method="puct", simulations=60, candidates=6, temperature=0.0)

    def likelihood(bound: float) -> float:
        model = make_student(seed=7)
        parts = make_parts(edge_rewards=EdgeRewards(model, bound))
        games = Player(parts, config).play(problems, np.random.default_rng(0))
        first = [plain(model, game.prompt)[0].softmax(-1)[game.tokens[0]] for game in games]
        return float(sum(first))

    assert likelihood(5.0) >= likelihood(1e-6)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    make_student(seed=1).save(tmp_path / "same")
    EdgeRewards.open(EdgeRewardConfig(str(tmp_path / "same")), make_student())
    student = make_student()
    student.tokenizer = from_spec({"kind": "characters", "alphabet": "xyz"})
    with pytest.raises(InputError, match="another tokenizer"):
        EdgeRewards.open(EdgeRewardConfig(str(tmp_path / "same")), student)


def test_rewards_stay_out_of_value_targets_and_of_frontier_search() -> None:
    config = replace(tiny_config(), edge_rewards=EdgeRewardConfig("model"))
    with pytest.raises(InputError, match="root_value_mix"):
        replace(config, learner=LearnerConfig(root_value_mix=0.1))
    with pytest.raises(InputError, match=r"play\.targets"):
        replace(config, play=replace(config.play, targets="tree"))
    frontier = replace(config.play, targets="tree", search=SearchConfig(method="frontier"))
    with pytest.raises(InputError, match="frontier"):
        replace(config, play=frontier)
    with pytest.raises(InputError, match="bound is 0"):
        EdgeRewardConfig("model", 0)
