"""The objectives' gradients in the logits, each against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenzero.selfplay.text import objectives as obj

PLACES, VOCAB, SAMPLES = 4, 7, 6


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture
def logits(draw: torch.Generator) -> Tensor:
    return torch.randn(PLACES, VOCAB, generator=draw, dtype=torch.float64, requires_grad=True)


def gradient(losses: Tensor, logits: Tensor) -> Tensor:
    """Of each context's own loss: they do not share logits."""
    (found,) = torch.autograd.grad(losses.sum(), logits)
    return found


def policy_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    log_policy = logits.log_softmax(1)
    return log_policy, log_policy.detach().exp()


def distribution(draw: torch.Generator) -> Tensor:
    return torch.randn(PLACES, VOCAB, generator=draw, dtype=torch.float64).softmax(1)


def test_cross_entropy_pulls_towards_the_truth(logits: Tensor) -> None:
    log_policy, pi = policy_of(logits)
    truth = torch.tensor([0, 3, 3, 6])
    losses = obj.cross_entropy(log_policy, truth)
    assert losses.tolist() == pytest.approx([-float(pi[i, y].log()) for i, y in enumerate(truth.tolist())])
    one_hot = torch.nn.functional.one_hot(truth, VOCAB)
    torch.testing.assert_close(gradient(losses, logits), pi - one_hot)


def test_expected_reward_is_the_policy_gradient(logits: Tensor, draw: torch.Generator) -> None:
    log_policy, pi = policy_of(logits)
    rewards = torch.randn(PLACES, VOCAB, generator=draw, dtype=torch.float64, requires_grad=True)
    losses = obj.expected_reward(log_policy, rewards)
    mean = (pi * rewards.detach()).sum(1, keepdim=True)
    torch.testing.assert_close(losses, -mean.squeeze(1))
    torch.testing.assert_close(gradient(losses, logits), -pi * (rewards.detach() - mean))
    with pytest.raises(RuntimeError):
        torch.autograd.grad(obj.expected_reward(log_policy, rewards).sum(), rewards)


def test_expected_reward_alone_collapses_and_entropy_holds_it() -> None:
    """Rewards .5 and .4: the linear objective ends sure of the first; with entropy the best policy is
    softmax(reward / weight)."""
    rewards = torch.tensor([[0.5, 0.4, 0.1]])
    ends = []
    for weight in (0.0, 0.5):
        logits = torch.zeros(1, 3, requires_grad=True)
        for _ in range(3000):
            log_policy = logits.log_softmax(1)
            loss = obj.expected_reward(log_policy, rewards) - weight * obj.entropy(log_policy)
            (slope,) = torch.autograd.grad(loss.sum(), logits)
            logits = (logits - 2.0 * slope).detach().requires_grad_()
        ends.append(logits.detach().softmax(1))
    assert ends[0][0, 0] > 0.99
    torch.testing.assert_close(ends[1], (rewards / 0.5).softmax(1), atol=1e-4, rtol=0)


def test_a_clipped_surrogate_at_the_old_policy_is_the_policy_gradient(
    logits: Tensor, draw: torch.Generator
) -> None:
    log_policy, pi = policy_of(logits)
    actions = torch.randint(VOCAB, (PLACES, SAMPLES), generator=draw)
    advantages = torch.randn(PLACES, SAMPLES, generator=draw, dtype=torch.float64)
    losses = obj.clipped_surrogate(log_policy, actions, log_policy.gather(1, actions), advantages, 0.2)
    expected = torch.zeros(PLACES, VOCAB, dtype=torch.float64)
    for i in range(PLACES):
        for s in range(SAMPLES):
            one_hot = torch.nn.functional.one_hot(actions[i, s], VOCAB)
            expected[i] -= advantages[i, s] * (one_hot - pi[i]) / SAMPLES
    torch.testing.assert_close(gradient(losses, logits), expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.3, 1.0, False),  # good and already likelier by more than the clip
        (1.3, -1.0, True),  # bad and likelier: it must come down
        (0.7, -1.0, False),
        (0.7, 1.0, True),
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_outside_the_clip_only_the_way_back_has_a_gradient(
    logits: Tensor, ratio: float, advantage: float, moves: bool
) -> None:
    log_policy, pi = policy_of(logits)
    actions = torch.tensor([[2]] * PLACES)
    old = log_policy.detach().gather(1, actions) - torch.tensor(ratio, dtype=torch.float64).log()
    advantages = torch.full((PLACES, 1), advantage, dtype=torch.float64)
    losses = obj.clipped_surrogate(log_policy, actions, old, advantages, 0.2)
    bounded = min(max(ratio, 0.8), 1.2)
    assert losses.tolist() == pytest.approx([-min(ratio * advantage, bounded * advantage)] * PLACES)
    one_hot = torch.nn.functional.one_hot(actions[:, 0], VOCAB)
    expected = -advantage * ratio * (one_hot - pi) if moves else torch.zeros_like(pi)
    torch.testing.assert_close(gradient(losses, logits), expected)


def test_baseline_advantages_have_no_mean_under_the_policy(logits: Tensor, draw: torch.Generator) -> None:
    log_policy, pi = policy_of(logits)
    rewards = torch.randn(PLACES, VOCAB, generator=draw, dtype=torch.float64)
    everything = torch.arange(VOCAB).expand(PLACES, VOCAB)
    advantages = obj.baseline_advantages(log_policy, rewards, everything)
    torch.testing.assert_close((pi * advantages).sum(1), torch.zeros(PLACES, dtype=torch.float64))
    torch.testing.assert_close(advantages - advantages[:, :1], rewards - rewards[:, :1])
    some = torch.tensor([[4, 4, 0]] * PLACES)
    torch.testing.assert_close(obj.baseline_advantages(log_policy, rewards, some), advantages[:, [4, 4, 0]])


def test_group_advantages_are_standard_scores_and_zero_where_all_are_alike() -> None:
    # the mean of eight times 0.1 is not 0.1
    sampled = torch.tensor([[0.0, 1.0, 1.0, 0.0] * 2, [0.1] * 8, [5.0, 5.0, 5.0, 1.0] * 2])
    found = obj.group_advantages(sampled)
    assert found[0].tolist() == [-1.0, 1.0, 1.0, -1.0] * 2
    assert found[1].tolist() == [0.0] * 8
    assert found[2].tolist() == pytest.approx(([1 / 3**0.5] * 3 + [-(3**0.5)]) * 2)
    assert obj.group_advantages(sampled[:, :1]).tolist() == [[0.0]] * 3


def test_targets_pull_towards_themselves(logits: Tensor, draw: torch.Generator) -> None:
    log_policy, pi = policy_of(logits)
    targets = distribution(draw)
    losses = obj.distribution_loss(log_policy, targets)
    torch.testing.assert_close(losses, -(targets * log_policy).sum(1))
    torch.testing.assert_close(gradient(losses, logits), pi - targets)


def test_visits_are_a_distribution_on_a_few_actions(logits: Tensor) -> None:
    log_policy, pi = policy_of(logits)
    actions = torch.tensor([[1, 2, 3], [6, 0, -1], [5, -1, -1], [0, 3, 6]])
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]]).double()
    dense = torch.zeros(PLACES, VOCAB, dtype=torch.float64)
    for row, (columns, shares) in enumerate(zip(actions.tolist(), weights.tolist(), strict=True)):
        for column, share in zip(columns, shares, strict=True):
            if column >= 0:
                dense[row, column] = share
    losses = obj.visit_loss(log_policy, actions, weights)
    torch.testing.assert_close(losses, obj.distribution_loss(log_policy, dense))
    torch.testing.assert_close(gradient(losses, logits), pi - dense)


def test_entropy_and_divergence_are_exact(logits: Tensor, draw: torch.Generator) -> None:
    log_policy, pi = policy_of(logits)
    reference = distribution(draw)
    entropy, kl = obj.entropy(log_policy), obj.divergence(log_policy, reference.log())
    torch.testing.assert_close(entropy, torch.distributions.Categorical(probs=pi).entropy())
    torch.testing.assert_close(kl, (pi * (pi / reference).log()).sum(1))
    torch.testing.assert_close(gradient(kl, logits), pi * ((pi / reference).log() - kl.detach()[:, None]))
    assert obj.divergence(log_policy, log_policy).abs().max() < 1e-12


def test_the_mean_is_over_what_is_taught() -> None:
    losses = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    mean = obj.mean_taught(losses, torch.tensor([True, False, True]))
    assert mean.item() == 3.5
    (slope,) = torch.autograd.grad(mean, losses)
    assert slope.tolist() == [0.5, 0.0, 0.5]
    nothing = obj.mean_taught(losses, torch.tensor([False] * 3))
    assert nothing.item() == 0.0
    assert torch.autograd.grad(nothing, losses)[0].tolist() == [0.0] * 3
