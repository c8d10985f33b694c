"""Held prefixes against plain forwards: the same logits; what is missing is forwarded, and counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import RecomputeEngine
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.teachers.prefix_states import PrefixStates

STUDENT = make_student()
COUNTER = TokenCounter(STUDENT)

SEQUENCE = st.lists(st.integers(4, 6), min_size=1, max_size=6).map(lambda tail: (1, *tail))
CALLS = st.lists(st.lists(SEQUENCE, min_size=1, max_size=5), min_size=1, max_size=6)


def prefixes(sequence: tuple[int, ...]) -> set[tuple[int, ...]]:
    return {sequence[:n] for n in range(1, len(sequence) + 1)}


@settings(max_examples=25, deadline=None)
@given(calls=CALLS, most=st.sampled_from([1, 3, 100]))
def test_forwards_what_no_held_sequence_begins_with(calls: list[list[tuple[int, ...]]], most: int) -> None:
    states = PrefixStates(STUDENT, tree_engine(STUDENT), most)
    held: list[tuple[int, ...]] = []  # least recently used first
    for asked in calls:
        known = set().union(*map(prefixes, held))
        wanted = set().union(*map(prefixes, asked))
        expected = len(wanted - known) + len(set(asked) & known)
        before, counted = states.forwarded, COUNTER.tokens
        step = states.step(asked)
        assert states.forwarded - before == COUNTER.tokens - counted == expected
        for row, sequence in enumerate(asked):
            torch.testing.assert_close(step.logits[row], plain(STUDENT, sequence)[0], atol=1e-4, rtol=1e-4)
        COUNTER.tokens = counted + expected
        for sequence in asked:
            held = [other for other in held if other != sequence] + [sequence]
        held = held[-max(most, len(asked)) :]
        assert len(states) == len(held)


def test_a_search_pays_one_token_a_node() -> None:
    states = PrefixStates(STUDENT, tree_engine(STUDENT))
    states.step([[1, 4, 5, 6]])
    states.step([[1, 4, 5, 6, 4], [1, 4, 5, 6, 5]])
    states.step([[1, 4, 5, 6, 4, 4]])
    assert states.forwarded == 4 + 2 + 1


def test_letting_go_gives_everything_back() -> None:
    engine = tree_engine(STUDENT)
    states = PrefixStates(STUDENT, engine, most=2)
    states.step([[1, 4], [1, 5], [1, 5, 4], [1, 5]])
    assert len(states) == 3, "what was asked last stays whole, above the limit too"
    states.step([[1, 6]])
    assert len(states) == 2
    states.close()
    assert engine.known == engine.resident == len(states) == 0
    states.step([[1, 6]])
    assert len(states) == 1


def test_new_weights_void_everything() -> None:
    student = make_student(seed=5)
    states = PrefixStates(student, tree_engine(student))
    states.step([[1, 4], [1, 4, 5]])
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1.5)
    student.weights_changed()
    before = states.forwarded
    step = states.step([[1, 4]])
    torch.testing.assert_close(step.logits[0], plain(student, [1, 4])[0], atol=1e-4, rtol=1e-4)
    assert states.forwarded - before == 2
    assert len(states) == 1
    states.step([[1, 4], [1, 6]])
    states.close()


def test_under_a_memory_cap_evicted_tokens_are_paid_again() -> None:
    engine = open_engine(STUDENT, EngineConfig(lean=False, memory_mb=0.005))
    states = PrefixStates(STUDENT, engine)
    rng = np.random.default_rng(0)
    for _ in range(12):
        asked = [[1, *rng.integers(4, 10, size=6).tolist()] for _ in range(2)]
        before, counted = states.forwarded, COUNTER.tokens
        step = states.step(asked)
        assert states.forwarded - before == COUNTER.tokens - counted
        for row, sequence in enumerate(asked):
            torch.testing.assert_close(step.logits[row], plain(STUDENT, sequence)[0], atol=1e-4, rtol=1e-4)


def test_an_engine_without_a_cache_is_only_dearer() -> None:
    states = PrefixStates(STUDENT, RecomputeEngine(STUDENT), most=2)
    for _ in range(3):
        step = states.step([[1, 4, 5], [1, 6]])
        torch.testing.assert_close(step.logits[0], plain(STUDENT, [1, 4, 5])[0], atol=1e-4, rtol=1e-4)
    assert states.forwarded == 15
    assert len(states) == 2


def test_what_cannot_be_asked() -> None:
    states = PrefixStates(STUDENT, tree_engine(STUDENT))
    with pytest.raises(InputError, match="empty"):
        states.step([[1], []])
    with pytest.raises(InputError, match="at most"):
        states.step([[1] * STUDENT.max_length])
    assert len(states) == 0
    with pytest.raises(InputError, match="0 states"):
        PrefixStates(STUDENT, tree_engine(STUDENT), 0)
