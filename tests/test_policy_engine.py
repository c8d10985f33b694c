"""Both engines against one plain forward per sequence, and the bookkeeping of their states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, TokenCounter, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, RecomputeEngine, Step
from tokenzero.policy.gather_attention import GatherWay
from tokenzero.policy.lean_forward import LeanWay
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import open_engine
from tokenzero.policy.tree_attention import DenseAttention, PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine


def lean(student: Student, slots: int = 64, **options: Any) -> TreeEngine:
    return TreeEngine(student, LeanWay(student, slots), slots=slots, **options)


def paged(student: Student, slots: int = 64, **options: Any) -> TreeEngine:
    return TreeEngine(student, TreeAttentionWay(student, PagedAttention(), slots), slots=slots, **options)


def dense(student: Student, slots: int = 64, **options: Any) -> TreeEngine:
    return TreeEngine(student, TreeAttentionWay(student, DenseAttention(), slots), slots=slots, **options)


def gathered(student: Student, slots: int = 64, **options: Any) -> TreeEngine:
    return TreeEngine(student, GatherWay(student, slots), slots=slots, **options)


TREES = [lean, paged, dense, gathered]
ENGINES = [*TREES, RecomputeEngine]
PAIRS = [(k, f) for k in ENGINES for f in FAMILIES if k is not lean or f not in ("qwen3", "gpt2")]


class Forest:
    """Random trees on an engine: `step()` grows some leaves and remembers what each state stands for."""

    def __init__(self, engine: Engine, vocab: int, seed: int) -> None:
        self.engine = engine
        self.rng = np.random.default_rng(seed)
        self.vocab = vocab
        self.sequence: dict[int, list[int]] = {}
        self.below: dict[int, int] = {}

    def plant(self, lengths: list[int]) -> None:
        prompts = [self.rng.integers(1, self.vocab, size=length).tolist() for length in lengths]
        self._keep(self.engine.prefill(prompts), prompts)

    def step(self, leaves: int, deepest: bool = False) -> None:
        known = sorted(self.sequence, key=lambda s: len(self.sequence[s]))
        pool = known[-4:] if deepest else known
        states = self.rng.choice(pool, size=leaves).astype(np.int64)
        tokens = self.rng.integers(1, self.vocab, size=leaves)
        step = self.engine.extend(states, tokens)
        longer = [[*self.sequence[s], t] for s, t in zip(states.tolist(), tokens.tolist(), strict=True)]
        self._keep(step, longer)

    def _keep(self, step: Step, sequences: list[list[int]]) -> None:
        assert step.states.dtype == np.int64
        self.logits = {**getattr(self, "logits", {})}
        self.hidden = {**getattr(self, "hidden", {})}
        for row, (state, tokens) in enumerate(zip(step.states.tolist(), sequences, strict=True)):
            assert state not in self.sequence, "a state in use was handed out again"
            self.sequence[state] = tokens
            self.logits[state], self.hidden[state] = step.logits[row], step.hidden[row]

    def check(self, student: Student) -> None:
        for state, tokens in self.sequence.items():
            logits, hidden = plain(student, tokens)
            torch.testing.assert_close(self.logits[state], logits, atol=1e-4, rtol=0)
            torch.testing.assert_close(self.hidden[state], hidden, atol=1e-4, rtol=0)

    def leaf_first(self) -> np.ndarray:
        return np.asarray(sorted(self.sequence, key=lambda s: -len(self.sequence[s])), np.int64)


def grow(engine: Engine, vocab: int, seed: int = 0) -> Forest:
    forest = Forest(engine, vocab, seed)
    forest.plant([1, 3, 7])
    for _ in range(3):
        forest.step(6)
    for _ in range(6):  # a long thin part: paths of 13 tokens and more
        forest.step(3, deepest=True)
    return forest


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_every_state_of_a_random_tree_equals_a_plain_forward(kind: Any, family: str) -> None:
    student = make_student(family)
    forest = grow(kind(student), student.vocab_size)
    assert max(map(len, forest.sequence.values())) >= 13
    forest.check(student)


def test_the_comparison_would_see_a_wrong_ancestor_or_window() -> None:
    """What the test above rests on: one changed early token, or no window, moves the logits far more than
    1e-4.
    """
    for family in FAMILIES:
        student = make_student(family)
        tokens = [1, 5, 6, 7]
        assert (plain(student, tokens)[0] - plain(student, [1, 5, 8, 7])[0]).abs().max() > 1e-2
    windowed = make_student("mistral")
    tokens = [1, 5, 6, 7, 8, 9, 4, 5]
    with_window = plain(windowed, tokens)[0]
    windowed.model.config.sliding_window = None
    assert (plain(windowed, tokens)[0] - with_window).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ENGINES)
def test_batches_are_cut_into_rows_without_a_trace(kind: Any) -> None:
    student = make_student()
    forest = grow(kind(student, rows=2), student.vocab_size)
    forest.check(student)


@pytest.mark.parametrize("kind", TREES)
def test_a_small_pool_grows_and_keeps_what_it_holds(kind: Any) -> None:
    student = make_student()
    engine = kind(student, slots=4)
    forest = grow(engine, student.vocab_size)
    forest.check(student)
    assert engine.resident == 1 + 3 + 7 + len(forest.sequence) - 3, "one slot per token, prompts in full"


def test_two_engines_on_the_same_tree_give_the_same_numbers() -> None:
    student = make_student("qwen3")
    one = grow(open_engine(student), student.vocab_size, seed=4)
    other = grow(RecomputeEngine(student), student.vocab_size, seed=4)
    by_tokens = {tuple(tokens): other.logits[s] for s, tokens in other.sequence.items()}
    assert {tuple(t) for t in one.sequence.values()} == set(by_tokens)
    for state, tokens in one.sequence.items():
        torch.testing.assert_close(one.logits[state], by_tokens[tuple(tokens)], atol=1e-4, rtol=0)


def test_released_slots_all_come_back_and_are_used_again() -> None:
    student = make_student()
    engine = paged(student, slots=128)
    for seed in range(3):
        forest = grow(engine, student.vocab_size, seed)
        forest.check(student)
        for state in forest.rng.permutation(list(forest.sequence)):
            engine.release(np.asarray([state]))
        assert engine.resident == engine.known == 0
    assert engine.slots == 128, "the second and third forest fit into the slots of the first"


def test_a_part_released_leaves_the_rest_alone() -> None:
    student = make_student()
    engine = open_engine(student)
    assert isinstance(engine, TreeEngine)
    root = engine.prefill([[1, 5, 6]])
    left, right = engine.extend(root.states.repeat(2), np.asarray([4, 7])).states
    engine.release(np.asarray([left]))
    engine.extend(root.states, np.asarray([9]))  # takes the slot of the one that left
    after = engine.extend(np.asarray([right]), np.asarray([8]))
    torch.testing.assert_close(after.logits[0], plain(student, [1, 5, 6, 7, 8])[0], atol=1e-4, rtol=0)


def test_a_state_released_twice_is_free_once() -> None:
    student = make_student()
    engine = open_engine(student)
    assert isinstance(engine, TreeEngine)
    state = engine.prefill([[1, 5]]).states
    leaf = engine.extend(state, np.asarray([6])).states
    engine.release(leaf)
    engine.release(leaf)
    engine.release(state)
    engine.release(state)
    assert engine.resident == 0
    forest = grow(engine, student.vocab_size)
    forest.check(student)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_released_state_cannot_be_extended(kind: Any) -> None:
    student = make_student()
    engine = kind(student)
    state = engine.prefill([[1, 5]]).states
    engine.release(state)
    with pytest.raises(InputError, match="released"):
        engine.extend(state, np.asarray([6]))
    with pytest.raises(InputError, match="state -1"):
        engine.extend(np.asarray([-1]), np.asarray([6]))


def test_new_weights_make_every_state_void() -> None:
    student = make_student()
    engine = open_engine(student)
    assert isinstance(engine, TreeEngine)
    state = engine.prefill([[1, 5, 6]]).states
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1.3)
    student.weights_changed()
    with pytest.raises(InputError, match="weights changed"):
        engine.extend(state, np.asarray([7]))
    engine.release(state)
    forest = grow(engine, student.vocab_size)
    forest.check(student)
    engine.release(forest.leaf_first())
    assert engine.resident == 0


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt"),
        ([[1], []], "prompt 1 is empty"),
        ([[1] * 32], "prompt 0 has 32 tokens, the model takes 31 at most"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(kind: Any, prompts: list[list[int]], message: str) -> None:
    engine = kind(make_student())
    with pytest.raises(InputError, match=message):
        engine.prefill(prompts)
    assert engine.ledger.forwarded_tokens == 0


@pytest.mark.parametrize(("kind", "family"), [pair for pair in PAIRS if pair[1] in ("llama-gqa", "gpt2")])
def test_a_sequence_may_fill_the_positions_and_no_more(kind: Any, family: str) -> None:
    student = make_student(family)
    engine = kind(student)
    state = engine.prefill([[1] * 31]).states
    full = engine.extend(state, np.asarray([5]))
    torch.testing.assert_close(full.logits[0], plain(student, [1] * 31 + [5])[0], atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="32 positions"):
        engine.extend(full.states, np.asarray([6]))


@pytest.mark.parametrize("kind", [k for k in ENGINES if k is not lean])
def test_the_ledger_counts_the_tokens_that_the_model_saw(kind: Any) -> None:
    student = make_student()
    engine = kind(student, rows=4)
    counter = TokenCounter(student)
    forest = Forest(engine, student.vocab_size, 1)
    forest.plant([2, 5, 1])
    assert engine.ledger.prefill_tokens == counter.tokens == 8
    for _ in range(4):
        forest.step(7)
    assert engine.ledger.forwarded_tokens == counter.tokens
    if kind is not RecomputeEngine:
        assert engine.ledger.decode_tokens == 28, "one token for each child"


def test_prompts_share_what_they_begin_with() -> None:
    student = make_student()
    engine = paged(student)
    first = engine.prefill([[1, 5, 6, 7], [1, 5, 6, 8], [1, 5, 6, 7]])
    assert engine.resident == 5
    assert (engine.ledger.prefill_tokens, engine.ledger.cached_tokens) == (5, 7)
    assert first.states[0] == first.states[2], "the same prompt is the same state, held twice"
    later = engine.prefill([[1, 5]])
    torch.testing.assert_close(later.logits[0], plain(student, [1, 5])[0], atol=1e-4, rtol=0)
    assert engine.ledger.prefill_tokens == 6, "a known prompt is forwarded once more for its last logits"
    engine.release(first.states[:1])
    child = engine.extend(first.states[2:], np.asarray([9]))
    torch.testing.assert_close(child.logits[0], plain(student, [1, 5, 6, 7, 9])[0], atol=1e-4, rtol=0)
    engine.release(np.concatenate([first.states[1:], later.states, child.states]))
    assert engine.resident == engine.known == 0


def test_twins_are_two_states_and_both_are_paid() -> None:
    engine = paged(make_student())
    root = engine.prefill([[1, 5]]).states
    twins = engine.extend(root.repeat(2), np.asarray([6, 6]))
    assert twins.states[0] != twins.states[1]
    assert engine.ledger.decode_tokens == 2


def test_released_prompts_are_kept_for_later_ones_when_asked() -> None:
    student = make_student()
    engine = paged(student, slots=8, keep_prompts=True)
    engine.release(engine.prefill([[1, 5, 6, 7]]).states)
    assert engine.resident == 4
    again = engine.prefill([[1, 5, 6, 8]])
    assert (engine.ledger.prefill_tokens, engine.ledger.cached_tokens) == (5, 3)
    torch.testing.assert_close(again.logits[0], plain(student, [1, 5, 6, 8])[0], atol=1e-4, rtol=0)
    engine.release(again.states)
    for start in range(20):  # others come and go: what is kept never makes the pool grow
        engine.release(engine.prefill([[start % 5 + 1, start % 3 + 1, 6, 7, 8]]).states)
    assert engine.slots == 8
    held = engine.prefill([[1, 5]]).states
    engine.drop_prompts()
    assert engine.resident == engine.known == 2
    engine.release(held)
    engine.drop_prompts()
    assert engine.resident == engine.known == 0


@pytest.mark.parametrize("kind", TREES)
def test_under_a_memory_cap_states_come_back_right_and_are_paid_again(kind: Any) -> None:
    student = make_student()
    free = kind(student)
    free.prefill([[1]])
    engine = kind(student, slots=8, rows=4, memory=32 * free.way.bytes_per_slot)
    capped = grow(engine, student.vocab_size, seed=2)
    for _ in range(12):
        capped.step(4)
    assert len(capped.sequence) > 2 * 32 >= 2 * engine.resident
    assert engine.slots == 32
    capped.check(student)
    assert engine.ledger.decode_tokens > len(capped.sequence) - 3 + 12, "what came back was paid for"
    engine.release(np.asarray(list(capped.sequence)))
    assert engine.resident == engine.known == 0


def test_a_path_that_no_room_can_be_made_for_is_refused_and_nothing_leaks() -> None:
    student = make_student()
    size = paged(student)
    size.prefill([[1]])
    engine = paged(student, slots=2, memory=6 * size.way.bytes_per_slot)
    root = engine.prefill([[1, 5, 6, 7, 8, 9]]).states
    with pytest.raises(InputError, match="a sequence of 7 tokens has no room: the memory cap allows 6"):
        engine.extend(root, np.asarray([4]))
    assert engine.known == 6
    engine.release(root)
    assert engine.resident == engine.known == 0


def test_a_forward_that_fails_leaves_the_engine_as_it_was() -> None:
    student = make_student()
    engine = paged(student)
    root = engine.prefill([[1, 5, 6]]).states
    known, resident = engine.known, engine.resident

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    hook = student.model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        engine.extend(root.repeat(2), np.asarray([4, 5]))
    with pytest.raises(MemoryError):
        engine.prefill([[1, 5, 7, 8]])
    hook.remove()
    assert (engine.known, engine.resident) == (known, resident)
    assert student.model.config._attn_implementation == "sdpa", "the model is as its owner left it"
    after = engine.extend(root, np.asarray([9]))
    torch.testing.assert_close(after.logits[0], plain(student, [1, 5, 6, 9])[0], atol=1e-4, rtol=0)


def test_handles_from_before_a_change_of_weights_do_no_harm() -> None:
    student = make_student()
    engine = paged(student)
    old = engine.prefill([[1, 5, 6]]).states
    student.weights_changed()
    new = engine.prefill([[1, 5, 6]]).states
    engine.release(old)
    assert engine.resident == 3
    with pytest.raises(InputError, match="released"):
        engine.extend(old, np.asarray([4]))
    engine.release(new)
    assert engine.resident == 0


def test_the_lean_forward_takes_new_weights_and_longer_positions() -> None:
    student = make_student()
    engine = lean(student)
    engine.release(engine.prefill([[1, 5, 6]]).states)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1.1)
    student.weights_changed()
    tokens = [1, *([5, 6, 7] * 10)]
    step = engine.prefill([tokens])
    torch.testing.assert_close(step.logits[0], plain(student, tokens)[0], atol=1e-4, rtol=0)
