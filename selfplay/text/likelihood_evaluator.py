"""Leaves of a search over plain text, where nobody can say that an answer is right: what is searched for is
text that is likely and does not repeat itself.

The edge into a state is worth the log-probability of its token under the prior that the search itself uses,
the student's mixed with its teachers', so no model is asked twice. Likelihood alone leads into loops, which
are likely under every model, hence the price of repeats. Verdicts, judges and stand-ins keep their say about
ends; no text is drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step
from tokenzero.selfplay.evaluator import LeafEvaluator
from tokenzero.selfplay.outcomes import Grader
from tokenzero.selfplay.parts import LeafConfig, Parts
from tokenzero.selfplay.stand_in import StandIn

SCALE = 10.0
"""Nats in one unit of the search's values, which are to lie near [-1, 1]."""


@dataclass(frozen=True)
class LikelihoodConfig:
    """What a token is worth to the search, in nats: its log-probability + ``level``, less ``penalty`` where
    it ends an n-gram of ``repeat`` tokens that stood in prompt or answer before.

    With ``level`` near the nats that good text costs a token, paths of different lengths compare: what is
    beyond a path's end is taken for text of that level. ``ahead`` is the share of the best next token's worth
    that a leaf has for its value; its candidates are known once it is forwarded. Where there is a value head
    its value is added, times ``value`` nats.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    level: float = 1.0
    repeat: int = 8
    penalty: float = 2.0
    ahead: float = 1.0
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"likelihood.repeat is {self.repeat}; give n-grams of at least 1 token")
        for name in ("level", "penalty", "ahead", "value"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"likelihood.{name} is {getattr(self, name)}; give a number of at least 0")


class LikelihoodEvaluator(LeafEvaluator):
    """`LeafEvaluator` whose edges carry likelihood; bound to its config it is a ``player.EvaluatorFactory``.

    A value head says how good a text is beside its likelihood; ``value`` 0 leaves it out.
    """

    def __init__(
        self,
        likelihood: LikelihoodConfig,
        parts: Parts,
        config: LeafConfig,
        candidates: int,
        places: int,
        grader: Grader | None = None,
        stand_in: StandIn | None = None,
    ) -> None:
        self._likelihood = likelihood
        super().__init__(parts, config, candidates, places, grader, stand_in)

    def _fill(self, rows: Ids, step: Step) -> None:
        super()._fill(rows, step)
        table, config = self.table, self._likelihood
        above = np.maximum(table.parent[rows], 0)
        slot = (table.actions[above] == table.token[rows][:, None]).argmax(axis=1)
        nats = table.logits[above, slot].astype(np.float64) + config.level
        nats -= config.penalty * np.asarray([self._repeats(row) for row in rows.tolist()])
        table.reward[rows] = np.where(table.parent[rows] < 0, 0.0, nats / SCALE)
        ahead = table.logits[rows].max(axis=1).astype(np.float64) + config.level
        own = config.value * table.value[rows].astype(np.float64)
        going = ~table.terminal[rows]
        table.value[rows] = np.where(going, config.ahead * ahead + own, own) / SCALE

    def _repeats(self, row: int) -> bool:
        """Whether the last ``repeat`` tokens of a state stood anywhere in it before."""
        size = self._likelihood.repeat
        tokens = self.sequence(row)
        if len(tokens) <= size:
            return False
        last = np.asarray(tokens[-size:], np.int32).tobytes()
        before = np.asarray(tokens[:-1], np.int32).tobytes()
        at = before.find(last)
        while at >= 0 and at % 4:
            at = before.find(last, at + 1)
        return at >= 0
