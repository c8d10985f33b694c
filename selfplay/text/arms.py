"""Ways to learn from text to compare, each a handful of settings over one base config.

An arm is an ordinary run of the text game. All arms keep the base's model, batches, steps and optimiser; what
differs is the objective, what it is told, and so the tokens that play and referee forward. It runs nothing:
``benchmarks/text_arms.py`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.arms import Arm, with_settings
from tokenzero.selfplay.text.config import TextGameConfig

# KL pulls to the whole opinion of the referee, which sampling alone would find too slowly. It would rather be
# sure of one likely token than spread over several, and the reward for being right adds to that: the bonus of
# entropy takes it back.
_CLIPPED = {"rewards.hard": 1.0, "learner.kl_weight": 0.3, "learner.entropy_weight": 0.4}
# Advantages in standard deviations weigh more than rewards of 0 and 1 do.
_GROUP = {"rewards.hard": 1.0, "learner.kl_weight": 0.4, "learner.entropy_weight": 0.6}
# Here too the bonus of entropy takes back what the reward adds to likely tokens.
_VISITS = {
    "learner.objective": "visits",
    "learner.entropy_weight": 0.08,
    "rewards.hard": 3.0,
    "search.beta": 0.5,
    "search.candidates": 16,
}

ARMS = {
    arm.name: arm
    for arm in (
        Arm(
            "cross-entropy",
            "cross-entropy",
            {"learner.objective": "cross-entropy"},
            "the corpus's next token itself, the ceiling",
        ),
        Arm(
            "expected-reward",
            "expected reward, linear",
            {"learner.objective": "expected-reward", "rewards.hard": 1.0, "rewards.soft": 0.0},
            "right or not, of every action at once and without a bonus of entropy: it collapses",
        ),
        Arm(
            "clipped",
            "clipped surrogate",
            {"learner.objective": "clipped", **_CLIPPED},
            "sampled actions with an exact baseline, near the referee (Schulman et al., arXiv:1707.06347)",
        ),
        Arm(
            "group-relative",
            "group-relative",
            {"learner.objective": "group-relative", **_GROUP},
            "sampled actions against each other, near the referee (Shao et al., arXiv:2402.03300)",
        ),
        Arm(
            "product-of-experts",
            "product of experts",
            # Exponents that add up to less than 1 keep the target as sure as it is right: a bonus for the
            # truth that is added to an opinion makes likely tokens likelier than they are.
            {
                "learner.objective": "product-of-experts",
                "rewards.student": 0.2,
                "rewards.referee": 0.4,
                "rewards.truth": 2.0,
                "rewards.top": 16,
            },
            "student, referee and a bonus for the truth, multiplied",
        ),
        Arm(
            "visits",
            "search, two tokens ahead",
            {**_VISITS, "search.depth": 2, "search.simulations": 8},
            "a tree over each context, improved policies as targets",
        ),
        Arm(
            "visits-depth-1",
            "search, every candidate",
            {**_VISITS, "search.depth": 1, "search.simulations": 16},
            "every candidate scored and nothing ahead: the reward in the prior's exponent",
        ),
    )
}


def arm_config(base: TextGameConfig, name: str, settings: Mapping[str, Any] | None = None) -> TextGameConfig:
    """``base`` with the settings of the arm ``name``, and then ``settings`` by dotted key.

    Raises InputError for an unknown arm or key, naming the nearest, and for values the config refuses.
    """
    if name not in ARMS:
        near = get_close_matches(name, ARMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(ARMS)}"
        raise InputError(f"arm {name!r} does not exist; {hint}")
    return with_settings(base, {**ARMS[name].settings, **(settings or {})})
