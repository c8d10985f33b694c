"""What can be minimised at the contexts of a corpus: one pure function for each objective.

Each gives the loss of every context, f32 [P]; :func:`mean_taught` makes one number of them. Gradients flow
through ``log_policy`` f32 [P, V], log_softmax of the student's logits, and through nothing else. Nothing is
forwarded or drawn here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(log_policy: Tensor, truth: Tensor) -> Tensor:
    """-log pi(y), y the corpus's own next token (``truth`` i64 [P]): the ceiling of the others.

    Its gradient in the logits is pi - [a = y].
    """
    return -log_policy.gather(1, truth[:, None]).squeeze(1)


def expected_reward(log_policy: Tensor, rewards: Tensor) -> Tensor:
    """-sum_a pi(a) R(a), for ``rewards`` f32 [P, V]: the policy gradient without sampling error.

    Its gradient in the logits is -pi(a) (R(a) - E[R]) (Sutton et al. 1999, theorem 1, for one action). The
    policy enters linearly, so the best policy is sure of one action however little it is worth more: this
    objective collapses.
    """
    return -(log_policy.exp() * rewards.detach()).sum(1)


def clipped_surrogate(
    log_policy: Tensor, actions: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float
) -> Tensor:
    """-mean_s min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) over ``actions`` i64 [P, S], drawn from the
    policy that gave them ``old_log_probs`` f32 [P, S]; ratio = pi(a) / pi_old(a), ``advantages`` f32 [P, S]
    (Schulman et al., arXiv:1707.06347, eq. 7).

    An action that has become likelier by more than ``clip`` and was good, or less likely by more and was bad,
    has no gradient.
    """
    advantages = advantages.detach()
    ratio = (log_policy.gather(1, actions) - old_log_probs.detach()).exp()
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratio * advantages, bounded * advantages).mean(1)


@torch.no_grad()
def baseline_advantages(log_policy: Tensor, rewards: Tensor, actions: Tensor) -> Tensor:
    """R(a) - E[R] f32 [P, S] of ``actions`` i64 [P, S]: every action has a reward (``rewards`` f32 [P, V]),
    so the expectation under ``log_policy`` is exact and no baseline has to be learnt.
    """
    expected = (log_policy.exp() * rewards).sum(1, keepdim=True)
    return rewards.gather(1, actions) - expected


@torch.no_grad()
def group_advantages(sampled: Tensor) -> Tensor:
    """(r - mean) / std within the samples of each context, for rewards ``sampled`` f32 [P, S] (Shao et al.,
    arXiv:2402.03300, section 4.1.2); std is that of the group itself. 0 where all are alike: they say nothing
    about each other.
    """
    deviation = sampled - sampled.mean(1, keepdim=True)
    alike = sampled.amax(1, keepdim=True) == sampled.amin(1, keepdim=True)
    spread = deviation.square().mean(1, keepdim=True).sqrt()
    return (deviation / spread.masked_fill(alike, 1.0)).masked_fill(alike, 0.0)


def distribution_loss(log_policy: Tensor, targets: Tensor) -> Tensor:
    """-sum_a q(a) log pi(a), for distributions ``targets`` f32 [P, V].

    Its gradient in the logits is pi - q.
    """
    return -(targets.detach() * log_policy).sum(1)


def visit_loss(log_policy: Tensor, actions: Tensor, weights: Tensor) -> Tensor:
    """:func:`distribution_loss` of search's targets: ``weights`` f32 [P, K] (rows sum to 1) on ``actions``
    i64 [P, K], -1 with weight 0 where there are fewer (Silver et al. 2017, *Mastering the game of Go without
    human knowledge*, eq. 1, the policy's part).
    """
    return -(weights.detach() * log_policy.gather(1, actions.clamp(min=0))).sum(1)


def entropy(log_policy: Tensor) -> Tensor:
    """The policy's entropy f32 [P] in nats."""
    return -(log_policy.exp() * log_policy).sum(1)


def divergence(log_policy: Tensor, reference_log_probs: Tensor) -> Tensor:
    """KL(pi, reference) f32 [P] in nats, exact over the vocabulary, for log-probabilities f32 [P, V]."""
    return (log_policy.exp() * (log_policy - reference_log_probs.detach())).sum(1)


def mean_taught(losses: Tensor, taught: Tensor) -> Tensor:
    """The mean of ``losses`` f32 [P] over the contexts ``taught`` bool [P]; 0 where none is."""
    return (losses * taught).sum() / taught.sum().clamp(min=1)
