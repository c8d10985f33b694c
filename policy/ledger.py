"""The count of everything a method spends, in the same units for every method.

A ledger is written by whoever does the work (the engine counts its own forwards, the evaluator its verdicts)
and added up by whoever reports. It does not decide budgets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Ledger:
    """Token and call counts. Every field is a total since the ledger was made.

    ``prefill_tokens`` prompt tokens forwarded; ``decode_tokens`` answer tokens forwarded, duplicates
    included; ``cached_tokens`` tokens asked for again and served without a forward; ``value_tokens`` tokens
    forwarded only to estimate a value (rollouts); ``teacher_tokens`` and ``judge_tokens`` tokens forwarded by
    teachers and judges; ``wall_s`` seconds.
    """

    prefill_tokens: int = 0
    decode_tokens: int = 0
    cached_tokens: int = 0
    value_tokens: int = 0
    teacher_tokens: int = 0
    judge_tokens: int = 0
    judge_calls: int = 0
    verifier_calls: int = 0
    simulations: int = 0
    wall_s: float = 0.0

    @property
    def forwarded_tokens(self) -> int:
        """Tokens that went through a model: prefill + decode + value + teacher + judge."""
        asked = self.teacher_tokens + self.judge_tokens
        return self.prefill_tokens + self.decode_tokens + self.value_tokens + asked

    def add(self, other: Ledger) -> None:
        """Add ``other`` to this ledger, field by field."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def copy(self) -> Ledger:
        """An independent copy."""
        return Ledger(**self.as_dict())

    def since(self, earlier: Ledger) -> Ledger:
        """What was spent after the copy ``earlier`` was taken."""
        return Ledger(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
