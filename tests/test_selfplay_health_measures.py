"""Probes against one plain forward per state, and measures against counting by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_selfplay_replay import make_episode
from tiny import make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import Example
from tokenzero.policy.student import Student
from tokenzero.selfplay import health_measures
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.health_measures import Probe, measure, path_of, probe
from tokenzero.selfplay.learner import Losses
from tokenzero.value import ValueConfig, ValueHead

GAMES = [
    Example([1, 5, 6, 7, 4, 4], 3),
    Example([1, 8, 9], 1),
    Example([1, 4, 5, 6, 7, 8, 9, 5], 2),
    Example([1, 4], 2),  # an empty answer
]
OUTCOMES = [1.0, -1.0, 0.5, -1.0]


def make_head(student: Student, kind: str = "hl-gauss") -> ValueHead:
    head = ValueHead(student.hidden_size, ValueConfig(kind=kind, bins=11))
    torch.nn.init.normal_(head.last.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    return head


def told(prompt: str, outcome: float, answer: str, **changes: Any) -> Episode:
    """An episode whose answer reads ``answer``."""
    return replace(make_episode(prompt, outcome=outcome, **changes), answer=answer)


def same(found: Probe, expected: Probe) -> None:
    for name, left, right in zip(Probe._fields, found, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2", "opt"])
@pytest.mark.parametrize("kind", ["hl-gauss", "scalar"])
def test_every_state_is_as_one_plain_forward_says(family: str, kind: str) -> None:
    student, reference = make_student(family), make_student(family, seed=8)
    head = make_head(student, kind)
    found = probe(student, head, GAMES, OUTCOMES, reference=reference)
    assert found.kl is not None
    state = 0
    for number, (game, outcome) in enumerate(zip(GAMES, OUTCOMES, strict=True)):
        for length in range(game.prompt_length, len(game.tokens) + 1):
            logits, hidden = plain(student, game.tokens[:length])
            anchor = plain(reference, game.tokens[:length])[0].double().softmax(0)
            policy = logits.double().softmax(0)
            raw = head(hidden).detach()
            assert found.game[state] == number
            assert found.last[state] == (length == len(game.tokens))
            assert found.target[state] == outcome
            assert found.value[state] == pytest.approx(float(head.value(raw)), abs=1e-4)
            expected = float(head.loss(raw, torch.tensor(outcome)))
            assert found.value_loss[state] == pytest.approx(expected, abs=1e-3)
            assert found.confidence[state] == pytest.approx(float(policy.max()), abs=1e-4)
            assert found.entropy[state] == pytest.approx(float(-(policy * policy.log()).sum()), abs=1e-3)
            drift = float((policy * (policy / anchor).log()).sum())
            assert found.kl[state] == pytest.approx(drift, abs=2e-3)
            if length < len(game.tokens):
                played = float(policy[game.tokens[length]].log())
                assert found.log_probability[state] == pytest.approx(played, abs=2e-3)
            state += 1
    assert state == len(found.game) == len(found.value)


def test_small_batches_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    student, reference = make_student(), make_student(seed=8)
    head = make_head(student)
    whole = probe(student, head, GAMES, OUTCOMES, reference=reference)
    monkeypatch.setattr(health_measures, "LOGITS", 8 * student.vocab_size)
    same(probe(student, head, GAMES, OUTCOMES, reference=reference), whole)


def test_each_state_may_have_a_target_of_its_own() -> None:
    student = make_student()
    head = make_head(student)
    targets = [[0.1, 0.2, 0.3, 1.0], -1.0, 0.5, [-0.25]]
    found = probe(student, head, GAMES, targets)
    assert found.kl is None
    assert found.target[:7].tolist() == pytest.approx([0.1, 0.2, 0.3, 1.0, -1.0, -1.0, -1.0])
    assert found.target[-1] == -0.25
    assert found.value_loss[0] != probe(student, head, GAMES, OUTCOMES).value_loss[0]


@pytest.mark.parametrize(
    ("games", "outcomes", "reason"),
    [
        ([], [], "no|0 games"),
        (GAMES, [1.0], "one for each"),
        (GAMES[:1], [[1.0, 1.0]], "value targets"),
        (GAMES[:1], [1.5], "outside"),
        (GAMES[:1], [float("nan")], "outside"),
    ],
)
def test_wrong_outcomes_are_refused(games: Any, outcomes: Any, reason: str) -> None:
    student = make_student()
    with pytest.raises(InputError, match=reason):
        probe(student, make_head(student), games, outcomes)


def test_broken_weights_show() -> None:
    student = make_student()
    with torch.no_grad():
        next(student.model.parameters())[:, 0] = float("nan")
    found = probe(student, make_head(student), GAMES, OUTCOMES)
    health = measure(held_out=found, fresh=found, learnt=found)
    assert all(math.isnan(health[name]) for name in ("entropy", "confidence", "value_loss_unseen"))
    assert "policy_calibration_error" not in health
    assert "value_calibration_error" not in health


def test_a_path_through_a_tree_keeps_its_tokens_and_targets() -> None:
    #            prompt - 6 - 5 - 4
    #                      \    \ 7
    #                       8
    tree = make_episode(
        "ab",
        [6, 5, 8, 4, 7],
        parents=[-1, 0, 0, 1, 1],
        root_values=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        searched=0,
    )
    prompt = tree.tokens[: tree.prompt_len]
    rng = np.random.default_rng(0)
    found = {
        (tuple(path.tokens), tuple(targets)) for path, targets in (path_of(tree, rng) for _ in range(40))
    }
    assert found == {
        ((*prompt, 6, 8), (0.0, 0.1, 0.3)),
        ((*prompt, 6, 5, 4), (0.0, 0.1, 0.2, 0.4)),
        ((*prompt, 6, 5, 7), (0.0, 0.1, 0.2, 0.5)),
    }
    path, targets = path_of(make_episode("ab", [6, 5], -1.0), rng)
    assert path == Example([*prompt, 6, 5], len(prompt))
    assert targets == [-1.0, -1.0, -1.0]


def made(**columns: Any) -> Probe:
    """Two games: one of two moves, one of one move."""
    states: dict[str, Any] = {
        "game": [0, 0, 0, 1, 1],
        "last": [False, False, True, False, True],
        "target": [1.0, 1.0, 1.0, -1.0, -1.0],
        "value": [0.5, 0.5, 0.9, -0.5, -0.9],
        "value_loss": [1.0, 1.0, 0.0, 2.0, 0.0],
        "log_probability": np.log([0.5, 0.8, 1e-9, 0.9, 1e-9]),
        "confidence": [0.5, 0.9, 9.0, 1.0, 9.0],
        "entropy": [0.2, 0.4, 9.0, 0.9, 9.0],
        "kl": [0.0, 0.3, 9.0, 0.6, 9.0],
    }
    return Probe(**{name: np.asarray(column) for name, column in {**states, **columns}.items()})


def test_the_policy_is_measured_where_it_moves() -> None:
    health = measure(held_out=made())
    assert health == pytest.approx(
        {
            "confidence": 0.8,
            "entropy": 0.5,
            "entropy_min": np.percentile([0.3, 0.9], 5),
            "kl_from_reference": 0.3,
            # answers of probability .4, solved, and .9, not solved: only the second promises too much
            "policy_calibration_error": 0.45,
        }
    )


def test_the_value_is_measured_where_search_asks_for_it() -> None:
    health = measure(fresh=made(), learnt=made(value_loss=np.ones(5)))
    assert health == pytest.approx(
        {
            "value_calibration_error": 0.25,
            "value_explained_variance": 0.75,
            "value_loss_unseen": 0.8,
            "value_loss_seen": 1.0,
        }
    )
    alike = measure(fresh=made(target=np.ones(5)))
    assert "value_explained_variance" not in alike


def test_what_has_no_source_is_left_out() -> None:
    assert measure() == {}
    losses = Losses(gradient=1.5, gradient_variance=0.25)
    assert measure(losses) == {"gradient_norm": 1.5, "gradient_variance": 0.25}
    empty = made(last=np.ones(5, np.bool_), game=np.arange(5))
    assert measure(held_out=empty) == {}


def test_episodes_are_counted_by_problem() -> None:
    episodes = [
        told("ab", 1.0, "x"),
        told("ab", -1.0, "y"),
        told("ab", 1.0, "x"),
        told("cd", 1.0, "x"),
        told("ef", -1.0, "x"),
        told("ef", -0.5, "z"),
    ]
    health = measure(episodes=episodes)
    assert health["duplicate_answers"] == pytest.approx(1 / 6)
    assert health["all_won"] == pytest.approx(1 / 3)
    assert health["all_lost"] == pytest.approx(1 / 3)
    dropped = measure(episodes=episodes, dropped=7)
    assert dropped["all_won"] == pytest.approx(1 / 10)
    assert dropped["all_lost"] == pytest.approx(8 / 10)


def test_demonstrations_are_told_apart_by_their_prompts() -> None:
    episodes = [told(prompt, 1.0, "x", problem="") for prompt in ("ab", "cd", "cd")]
    health = measure(episodes=episodes)
    assert health["duplicate_answers"] == pytest.approx(1 / 3)
    assert health["all_won"] == 1


def test_target_entropy_is_that_of_the_targets() -> None:
    episodes = [
        make_episode(weights=[[0.5, 0.5], [1.0], [0.25, 0.75, 0.0]]),
        make_episode(weights=[[1.0]] * 3),
    ]
    half, quarter = math.log(2), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert measure(episodes=episodes)["target_entropy"] == pytest.approx((half + quarter) / 6)
    bare = make_episode(searched=0, weights=[])
    assert "target_entropy" not in measure(episodes=[bare])
