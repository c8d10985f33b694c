"""Rewards of text against plain arithmetic, action by action."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.text_rewards import TextRewardConfig, action_rewards, product_of_experts, taught

PLACES, VOCAB = 5, 9


def made(seed: int, sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-policy and referee f32 [PLACES, VOCAB], truth i64 [PLACES]."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, PLACES, VOCAB, generator=draw) * sharpness
    log_policy, referee = logits.log_softmax(-1)
    return log_policy, referee, torch.randint(VOCAB, (PLACES,), generator=draw)


def plain_reward(config: TextRewardConfig, p: float, r: float, right: bool, progress: float) -> float:
    soft = r if config.scale == "probability" else max(math.log(r), config.floor) + math.log(VOCAB)
    reward = config.hard * right + config.soft * soft
    fade = max(0.0, 1.0 - progress / config.bonus_share)
    return reward * (1.0 + config.bonus * fade * p) if right else reward


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([0.0, 1.5]),
    st.sampled_from(["probability", "log-probability"]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 0.1, 0.2, 0.9]),
)
def test_the_reward_of_each_action_is_the_formula(
    seed: int, hard: float, soft: float, scale: Any, bonus: float, progress: float
) -> None:
    config = TextRewardConfig(hard=hard, soft=soft, scale=scale, bonus=bonus, bonus_share=0.4, floor=-3.0)
    log_policy, referee, truth = made(seed)
    found = action_rewards(config, log_policy, referee, truth, progress)
    p, r = log_policy.exp().numpy(), referee.exp().numpy()
    expected = [
        [plain_reward(config, p[i, a], r[i, a], bool(truth[i] == a), progress) for a in range(VOCAB)]
        for i in range(PLACES)
    ]
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=1e-5)


def test_the_log_probability_scale_puts_the_uniform_referee_at_zero() -> None:
    config = TextRewardConfig(hard=0.0, soft=1.0, scale="log-probability")
    log_policy, _, truth = made(0)
    uniform = torch.full((PLACES, VOCAB), -math.log(VOCAB))
    assert action_rewards(config, log_policy, uniform, truth, 0.0).abs().max() < 1e-6


def test_a_hard_reward_needs_no_referee_and_a_soft_one_does() -> None:
    log_policy, _, truth = made(1)
    rewards = action_rewards(TextRewardConfig(), log_policy, None, truth, 0.0)
    assert torch.equal(rewards, torch.nn.functional.one_hot(truth, VOCAB).float())
    with pytest.raises(InputError, match=r"rewards\.soft is above 0 but there is no referee"):
        action_rewards(TextRewardConfig(soft=1.0), log_policy, None, truth, 0.0)
    with pytest.raises(InputError, match=r"rewards\.referee is above 0"):
        product_of_experts(TextRewardConfig(), log_policy, None, truth)
    product_of_experts(TextRewardConfig(referee=0.0), log_policy, None, truth)


def test_no_gradient_flows_through_what_is_given() -> None:
    log_policy, referee, truth = made(2)
    log_policy.requires_grad_()
    config = TextRewardConfig(soft=1.0, bonus=1.0, min_entropy=0.1)
    for value in (
        action_rewards(config, log_policy, referee, truth, 0.0),
        product_of_experts(config, log_policy, referee, truth),
        taught(config, log_policy),
    ):
        assert not value.requires_grad


def test_nothing_given_is_changed() -> None:
    given_tensors = made(3)
    copies = [tensor.clone() for tensor in given_tensors]
    config = TextRewardConfig(soft=1.0, bonus=1.0)
    action_rewards(config, *given_tensors, 0.0)
    product_of_experts(config, *given_tensors)
    assert all(torch.equal(a, b) for a, b in zip(given_tensors, copies, strict=True))


def test_contexts_below_the_least_entropy_are_not_taught() -> None:
    shares = torch.tensor([[1.0 - 1e-7, 1e-7, 1e-30], [0.5, 0.5, 1e-30], [1 / 3, 1 / 3, 1 / 3]])
    log_policy = shares.log()
    assert taught(TextRewardConfig(), log_policy).tolist() == [True, True, True]
    assert taught(TextRewardConfig(min_entropy=0.6), log_policy).tolist() == [False, True, True]
    assert taught(TextRewardConfig(min_entropy=1.0), log_policy).tolist() == [False, False, True]
    certain = torch.tensor([[0.0, -100.0, -100.0]])
    assert taught(TextRewardConfig(), certain).tolist() == [True]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([1, 3, 20]),
)
def test_a_product_of_experts_is_the_plain_product(
    seed: int, student: float, referee: float, truth: float, top: int
) -> None:
    config = TextRewardConfig(student=student, referee=referee, truth=truth, top=top)
    log_policy, opinion, right = made(seed)
    found = product_of_experts(config, log_policy, opinion, right)
    for place in range(PLACES):
        p, r, y = log_policy[place].exp().tolist(), opinion[place].exp().tolist(), int(right[place])
        kept = {y}
        for exponent, expert in ((student, p), (referee, r)):
            if exponent > 0:
                kept |= set(np.argsort(-np.asarray(expert))[:top].tolist())
        raw = [
            p[a] ** student * r[a] ** referee * math.exp(truth * (a == y)) if a in kept else 0.0
            for a in range(VOCAB)
        ]
        expected = np.asarray(raw) / sum(raw)
        np.testing.assert_allclose(found[place].numpy(), expected, atol=2e-6)
    assert torch.allclose(found.sum(1), torch.ones(PLACES))
