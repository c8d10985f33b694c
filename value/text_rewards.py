"""What each next token is worth at a context of a corpus: right, likely, or a product of experts' opinions.

Rewards are given to every action at once, so that one forward explores the whole vocabulary. They are given,
not learnt: no gradient flows through them. It draws no actions and computes no losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from tokenzero.mcts.errors import InputError


@dataclass(frozen=True)
class TextRewardConfig:
    """The reward of action a at a context whose next token is y:

    ``hard`` * [a = y] + ``soft`` * s(a), s the referee's probability of a ("probability") or its logarithm,
    not below ``floor`` nats, plus log of the vocabulary's size ("log-probability"); times 1 + ``bonus`` *
    b(t) * p(a) where a = y, p the student's probability and b falling in a straight line from 1 to 0 over
    ``bonus_share`` of the training. Contexts where the student's entropy is below ``min_entropy`` nats are
    not taught.

    A product of experts has log-weights ``student`` * log p + ``referee`` * log r + ``truth`` * [a = y] on
    the likeliest ``top`` tokens of student and referee and on y.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    hard: float = 1.0
    soft: float = 0.0
    scale: Literal["probability", "log-probability"] = "probability"
    floor: float = -10.0
    bonus: float = 0.0
    bonus_share: float = 0.5
    min_entropy: float = 0.0
    student: float = 0.5
    referee: float = 0.5
    truth: float = 2.0
    top: int = 8

    def __post_init__(self) -> None:
        for name in ("hard", "soft", "bonus", "min_entropy", "student", "referee", "truth"):
            if getattr(self, name) < 0:
                raise InputError(f"rewards.{name} is {getattr(self, name)}; give a number of at least 0")
        if self.floor >= 0:
            raise InputError(f"rewards.floor is {self.floor} nats; give a number below 0")
        if not 0 < self.bonus_share <= 1:
            raise InputError(f"rewards.bonus_share is {self.bonus_share}; give a share above 0, at most 1")
        if self.top < 1:
            raise InputError(f"rewards.top is {self.top}; give at least 1")


@torch.no_grad()
def action_rewards(
    config: TextRewardConfig,
    log_policy: torch.Tensor,
    referee_log_probs: torch.Tensor | None,
    truth: torch.Tensor,
    progress: float,
) -> torch.Tensor:
    """The reward f32 [P, V] of every action at P contexts; the formula is that of :class:`TextRewardConfig`.

    ``log_policy`` and ``referee_log_probs`` f32 [P, V] are log-probabilities, ``truth`` i64 [P] the corpus's
    own next tokens, ``progress`` the share of the training that is over, from 0 to 1.

    Raises:
        InputError: ``soft`` is above 0 and there is no referee.
    """
    rewards = torch.zeros_like(log_policy)
    if config.soft > 0:
        opinion = _given(referee_log_probs, "soft")
        if config.scale == "probability":
            rewards.add_(opinion.exp(), alpha=config.soft)
        else:
            rewards.add_(opinion.clamp(min=config.floor) + math.log(opinion.shape[1]), alpha=config.soft)
    right = truth[:, None]
    here = rewards.gather(1, right) + config.hard
    faded = max(0.0, 1.0 - progress / config.bonus_share)
    if config.bonus * faded > 0:
        here = here * (1.0 + config.bonus * faded * log_policy.gather(1, right).exp())
    return rewards.scatter_(1, right, here)


@torch.no_grad()
def taught(config: TextRewardConfig, log_policy: torch.Tensor) -> torch.Tensor:
    """bool [P]: the contexts whose entropy under ``log_policy`` f32 [P, V] is at least ``min_entropy``."""
    if config.min_entropy == 0:  # rounding can bring the entropy of a sure student below 0
        return torch.ones(len(log_policy), dtype=torch.bool, device=log_policy.device)
    return -(log_policy.exp() * log_policy).sum(1) >= config.min_entropy


@torch.no_grad()
def product_of_experts(
    config: TextRewardConfig,
    log_policy: torch.Tensor,
    referee_log_probs: torch.Tensor | None,
    truth: torch.Tensor,
) -> torch.Tensor:
    """Target distributions f32 [P, V], 0 outside the experts' likeliest tokens; arguments as in
    :func:`action_rewards` (Hinton 2002, *Training products of experts*, eq. 1, with an exponent each). An
    expert with exponent 0 brings no tokens.

    Raises:
        InputError: the referee's exponent is above 0 and there is no referee.
    """
    weights = torch.zeros_like(log_policy)
    kept = torch.zeros(log_policy.shape, dtype=torch.bool, device=log_policy.device)
    experts = [(config.student, log_policy)]
    if config.referee > 0:
        experts.append((config.referee, _given(referee_log_probs, "referee")))
    top = min(config.top, log_policy.shape[1])
    for exponent, log_probs in experts:
        if exponent > 0:
            weights.add_(log_probs, alpha=exponent)
            kept.scatter_(1, log_probs.topk(top, dim=1).indices, True)
    right = truth[:, None]
    kept.scatter_(1, right, True)
    weights.scatter_add_(1, right, torch.full_like(weights[:, :1], config.truth))
    return weights.masked_fill_(~kept, -torch.inf).softmax(1)


def _given(log_probs: torch.Tensor | None, name: str) -> torch.Tensor:
    if log_probs is None:
        raise InputError(f"rewards.{name} is above 0 but there is no referee; give one, or set it to 0")
    return log_probs
