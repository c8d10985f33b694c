"""The ledger: fields add up, differences come back, and nothing is shared between copies."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from tokenzero.policy.ledger import Ledger

COUNTS = st.lists(st.integers(0, 10**9), min_size=10, max_size=10)


def test_it_has_the_fields_that_the_command_line_promises() -> None:
    assert list(Ledger().as_dict()) == [
        "prefill_tokens",
        "decode_tokens",
        "cached_tokens",
        "value_tokens",
        "teacher_tokens",
        "judge_tokens",
        "judge_calls",
        "verifier_calls",
        "simulations",
        "wall_s",
    ]
    assert json.loads(json.dumps(Ledger(wall_s=0.5).as_dict()))["wall_s"] == 0.5


@given(COUNTS, COUNTS)
def test_what_is_added_is_what_was_spent_since(before: list[int], spent: list[int]) -> None:
    ledger = Ledger(*before)
    mark = ledger.copy()
    ledger.add(Ledger(*spent))
    assert list(ledger.as_dict().values()) == [a + b for a, b in zip(before, spent, strict=True)]
    assert ledger.since(mark) == Ledger(*spent)
    assert mark == Ledger(*before), "a copy must not move with the original"


def test_forwarded_tokens_are_those_that_went_through_a_model() -> None:
    powers = Ledger(*(10**index for index in range(len(fields(Ledger)))))
    assert powers.forwarded_tokens == 111_011  # prefill, decode, value, teacher, judge; cached are not
