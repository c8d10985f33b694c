"""What lies ahead of a context is worth: rewards of single tokens, and sums of them over a few tokens.

Plain arithmetic on arrays. It forwards nothing and knows no tree.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.text.config import ContextSearchConfig
from tokenzero.value.text_rewards import TextRewardConfig

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class Horizon:
    """Rewards of tokens, faded by the discount g a token, up to ``depth`` tokens ahead.

    The reward of a token is ``hard`` where it is the corpus's own plus ``soft`` * s, s as in
    `TextRewardConfig` (its bonus is not for search). A *mean* reward m lies between the least and the
    greatest reward there can be. With ``learned``, m of all that follows the last token is predicted by a
    value head, and stands there with weight ``value_share`` * g^depth / (1 - g), what the rewards from there
    on weigh together. ``spans`` f64 [depth + 1] is the weight of everything ahead when h tokens are left:
    sum of g^i for i < h, and that of m.

    Raises InputError for rewards that are all 0, and for a learned value without fading.
    """

    def __init__(
        self, rewards: TextRewardConfig, config: ContextSearchConfig, vocab_size: int, *, learned: bool
    ) -> None:
        if rewards.hard == 0 and rewards.soft == 0:
            raise InputError(
                "rewards.hard and rewards.soft are both 0, so search has nothing to look for; raise one"
            )
        if learned and config.discount == 1:
            raise InputError(
                "search.discount is 1, under which a learned mean of rewards has no finite weight; "
                "give less than 1, or search.value_share 0"
            )
        self.depth = config.depth
        self.discount = config.discount
        self.learned = learned
        self._rewards = rewards
        self._shift = math.log(vocab_size)
        paths = [sum(config.discount**i for i in range(left)) for left in range(config.depth + 1)]
        if learned:
            tail = config.value_share / (1 - config.discount)
            paths = [path + tail * config.discount**left for left, path in enumerate(paths)]
        self.spans = np.asarray(paths, np.float64)
        of_soft = (0.0, 1.0)
        if rewards.scale == "log-probability":
            of_soft = (rewards.floor + self._shift, self._shift)
        self.low = rewards.soft * of_soft[0]
        self.high = rewards.hard + rewards.soft * of_soft[1]

    def rewards(self, referee: Floats, actions: Ids, truth: Ids) -> Floats:
        """Rewards f32 [L, K] of ``actions`` i64 [L, K], given the referee's log-probabilities f32 [L, K] of
        them and the corpus's next token ``truth`` i64 [L], -1 where it has none to give.
        """
        settings = self._rewards
        if settings.scale == "log-probability":
            likely = np.maximum(referee, np.float32(settings.floor)) + np.float32(self._shift)
        else:
            likely = np.exp(referee)
        right = actions == truth[:, None]
        found = np.float32(settings.soft) * likely + np.float32(settings.hard) * right
        return np.asarray(found, np.float32)

    def worth(self, expected: Floats, mean: Floats, left: Ids) -> Floats:
        """What is ahead of states f32 [L] with ``left`` i64 [L] tokens to go, before any is tried.

        ``expected`` f32 [L] is the reward to expect of the next token. The others are taken to be like it,
        or, where there is a learned value, to be worth ``mean`` f32 [L].
        """
        span = self.spans[left]
        if not self.learned:
            return np.asarray(span * expected, np.float32)
        next_one = np.minimum(left, 1)
        return np.asarray(next_one * expected + (span - next_one) * mean, np.float32)

    def mean(self, value: Floats) -> Floats:
        """Mean rewards of values in [-1, 1]."""
        return np.asarray(self.low + (value + 1) / 2 * (self.high - self.low), np.float32)

    def squashed(self, worth: Floats) -> Floats:
        """Values in [-1, 1] of sums ``worth`` over the whole depth: the mean reward in them, by its place
        between the least and the greatest; what `mean` turns back.
        """
        mean = worth / self.spans[self.depth]
        return np.asarray(np.clip(2 * (mean - self.low) / (self.high - self.low) - 1, -1, 1), np.float32)
