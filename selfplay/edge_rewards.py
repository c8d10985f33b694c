"""Rewards on the edges of a search: how fluent an answer becomes to a chosen language model, token by token.

The potential of a partial answer is ``bound`` over its perplexity, and an edge earns the difference (see
``value.perplexity``), so that the edges of an answer sum to the same whatever way they are cut. PUCT and
Gumbel search add them to Q. They enter no training target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.selfplay.state_table import StateTable
from tokenzero.teachers.local_model import difference_of_tokenizers
from tokenzero.teachers.prefix_states import PrefixStates


@dataclass(frozen=True)
class EdgeRewardConfig:
    """``model``: a directory or hub name, with the student's tokenizer. ``bound``: what the edges of one
    answer may sum to, beside outcomes from -1 to 1."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    model: str
    bound: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.bound < float("inf"):
            raise InputError(f"edge_rewards.bound is {self.bound}; give a number above 0, or leave it out")


class EdgeRewards:
    """Log-probabilities of tokens under ``model``, through an engine of its own, as rewards within
    ``bound``."""

    def __init__(self, model: Student, bound: float) -> None:
        self._prefixes = PrefixStates(model, open_engine(model, EngineConfig()))
        self._bound = bound

    @classmethod
    def open(cls, config: EdgeRewardConfig, student: Student) -> EdgeRewards:
        """Raises InputError for a model that cannot be loaded or has another tokenizer than the student."""
        model = Student.load(config.model)
        different = difference_of_tokenizers(student.tokenizer, model.tokenizer)
        if different:
            raise InputError(
                f"edge_rewards.model {config.model} has another tokenizer than the student ({different}); "
                "use a model with the same one"
            )
        return cls(model, config.bound)

    def write(self, table: StateTable, rows: Ids, parents: Sequence[Sequence[int]], ledger: Ledger) -> None:
        """Set the rewards of new states ``rows`` i64 [L], reached from the sequences ``parents`` [L]."""
        before = self._prefixes.forwarded
        with torch.inference_mode():
            logits = self._prefixes.step([tuple(sequence) for sequence in parents]).logits
            tokens = torch.from_numpy(table.token[rows]).to(logits.device)
            found = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        ledger.judge_tokens += self._prefixes.forwarded - before
        above, length = table.parent[rows], table.length[rows]
        table.log_prob[rows] = table.log_prob[above] + found.double().cpu().numpy()
        potential = _potential(table.log_prob[rows], length)
        table.reward[rows] = self._bound * (potential - _potential(table.log_prob[above], length - 1))

    def close(self) -> None:
        """Let go of every state the engine holds."""
        self._prefixes.close()


def _potential(log_prob: npt.NDArray[np.float64], length: Ids) -> npt.NDArray[np.float64]:
    """One over the perplexity of answers of ``length`` tokens; 0 for none."""
    fluent: npt.NDArray[np.float64] = np.exp(np.minimum(log_prob / np.maximum(length, 1), 0.0))
    return np.where(length > 0, fluent, 0.0)
