"""The bookkeeping of states against a plain model of it, under random histories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.policy.state_store import EMPTY, NONE, StateStore


class Plain:
    """What must be known: which sequence a handle stands for, how often it is held, and how often
    forwarded.
    """

    def __init__(self) -> None:
        self.sequence: dict[
            int, tuple[tuple[int, int], ...]
        ] = {}  # (token, twin number) from the first token on
        self.held: dict[int, int] = {}
        self.twins = 0

    def prompt(self, tokens: list[int], state: int) -> None:
        path = tuple((token, 0) for token in tokens)
        assert not self.held.get(state) or self.sequence[state] == path, (
            "a handle in use was given to another"
        )
        self.sequence[state] = path
        assert all(s == state for s, other in self.sequence.items() if other == path and self.held.get(s)), (
            "the same prompt must be the same state"
        )
        self.held[state] = self.held.get(state, 0) + 1

    def child(self, parent: int, token: int, state: int) -> None:
        assert not self.held.get(state)
        self.twins += 1
        self.sequence[state] = (*self.sequence[parent], (token, self.twins))
        self.held[state] = 1

    def alive(self) -> set[tuple[tuple[int, int], ...]]:
        """Every sequence that someone holds, and all its beginnings."""
        return {
            self.sequence[s][:end]
            for s, n in self.held.items()
            if n
            for end in range(1, len(self.sequence[s]) + 1)
        }


def forward(store: StateStore, wanted: np.ndarray, most: int) -> None:
    """What an engine does with a store of fixed size."""
    done = 0
    while done < len(wanted):
        plan = store.missing(wanted[done:], most, 3)
        assert len(plan.targets) > 0
        assert plan.slots <= most
        states = store.states
        assert (plan.nodes[plan.targets] == wanted[done : done + len(plan.targets)]).all()
        position = {int(node): place for place, node in enumerate(plan.nodes)}
        for node in plan.nodes.tolist():
            parent = int(states.parent[node])
            assert parent == EMPTY or states.slot[parent] != NONE or position[parent] < position[node]
        short = int((states.slot[plan.nodes] == NONE).sum()) - store.free_slots
        if short > 0:
            before = {
                int(n): int(states.slot[n])
                for n in range(len(states.length))
                if states.batch[n] == states.batch.max()
            }
            assert store.evict(short, unused_only=False) >= short
            assert all(states.slot[n] == slot for n, slot in before.items()), (
                "what the forward needs was evicted"
            )
        store.place(plan.nodes)
        done += len(plan.targets)


def check(store: StateStore, plain: Plain) -> None:
    states = store.states
    live = np.flatnonzero(states.length > 0)
    assert store.known == len(live) == len(plain.alive())
    slots = states.slot[live]
    taken = slots[slots != NONE].tolist()
    assert len(set(taken)) == len(taken) == store.resident, "two states share a slot, or one leaked"
    for state in live.tolist():
        parent = int(states.parent[state])
        if states.slot[state] != NONE and parent != EMPTY:
            assert states.slot[parent] != NONE, "a resident state under one that is not"
        below = live[states.parent[live] == state]
        assert states.children[state] == len(below)
        assert states.resident[state] == (states.slot[below] != NONE).sum()


operations = st.lists(
    st.tuples(st.sampled_from(["prompts", "children", "release"]), st.integers(0, 2**31)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(operations, st.integers(8, 40))
def test_random_histories_keep_every_promise(history: list[tuple[str, int]], most: int) -> None:
    store, plain = StateStore(most), Plain()
    for what, seed in history:
        rng = np.random.default_rng(seed)
        held = [s for s, n in plain.held.items() if n]
        if what == "prompts":
            prompts = [
                rng.integers(0, 2, size=rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, 4))
            ]
            found = store.prompts(prompts)
            for tokens, state in zip(prompts, found.tolist(), strict=True):
                plain.prompt(tokens, state)
            forward(store, found, most)
        elif what == "children" and held:
            short = [s for s in held if len(plain.sequence[s]) < 8]
            if short:
                parents = rng.choice(short, size=rng.integers(1, 5)).astype(np.int64)
                tokens = rng.integers(0, 3, size=len(parents))
                found = store.children(parents, tokens)
                for parent, token, state in zip(
                    parents.tolist(), tokens.tolist(), found.tolist(), strict=True
                ):
                    plain.child(parent, token, state)
                forward(store, found, most)
        elif what == "release" and held:
            given_up = rng.choice(held, size=rng.integers(1, len(held) + 1), replace=False).astype(np.int64)
            store.release(given_up, keep=False)
            for state in given_up.tolist():
                plain.held[state] -= 1
        check(store, plain)
    everyone = np.asarray([s for s, n in plain.held.items() for _ in range(n)], np.int64)
    store.release(everyone, keep=False)
    assert store.resident == store.known == 0
    assert store.free_slots == most


def test_paths_go_from_a_state_up_to_its_first_token() -> None:
    store = StateStore(16)
    root = store.prompts([[7, 8, 9]])
    forward(store, root, 16)
    child = store.children(root, np.asarray([5]))
    forward(store, child, 16)
    read, lengths = store.paths(np.concatenate([root, child]))
    assert lengths.tolist() == [3, 4]
    tokens = {int(store.states.slot[s]): int(store.states.token[s]) for s in range(1, 5)}
    assert [tokens[slot] for slot in read[1].tolist()] == [5, 9, 8, 7]
    assert [tokens[slot] for slot in read[0, :3].tolist()] == [9, 8, 7]


def test_the_leaf_with_fewest_forwards_below_goes_first_and_the_oldest_of_equals() -> None:
    store = StateStore(16)
    root = store.prompts([[7]])
    forward(store, root, 16)
    left, right, third = store.children(root.repeat(3), np.asarray([1, 2, 3]))
    for state in (left, right, third):
        forward(store, np.asarray([state]), 16)
    under_left = store.children(np.asarray([left]), np.asarray([4]))
    forward(store, under_left, 16)
    order = []
    while store.resident:
        before = set(np.flatnonzero(store.states.slot != NONE).tolist())
        store.missing(root, 16, 1)  # the forward in hand needs the root alone
        if store.evict(1, unused_only=False) == 0:
            break
        (gone,) = before - set(np.flatnonzero(store.states.slot != NONE).tolist())
        order.append(gone)
    assert order == [right, third, under_left[0], left]


def test_kept_prompts_go_before_anything_that_is_held() -> None:
    store = StateStore(4)
    first = store.prompts([[1, 2]])
    forward(store, first, 4)
    kept = store.prompts([[3, 4]])
    forward(store, kept, 4)
    store.release(kept, keep=True)
    assert (store.resident, store.known) == (4, 4)
    again = store.prompts([[3]])
    assert store.known == 4, "a kept prompt serves one that begins alike"
    store.release(again, keep=True)
    store.missing(first, 4, 1)
    assert store.evict(4, unused_only=True) == 2
    assert (store.resident, store.known) == (2, 2)


@pytest.mark.parametrize("state", [-1, 0, 3, 10**6])
def test_states_that_nobody_holds_are_unknown(state: int) -> None:
    store = StateStore(4)
    forward(store, store.prompts([[1, 2]]), 4)
    assert store.unknown(np.asarray([2, state])) == 1
    store.release(np.asarray([state]), keep=False)
    assert store.known == 2


def test_stores_grow_and_keep_what_they_hold() -> None:
    store = StateStore(2)
    root = store.prompts([[1, 2]])
    forward(store, root, 2)
    store.grow_slots(4000)
    for start in range(3):
        forward(store, store.children(root.repeat(1000), np.arange(1000) + start), 4000)
    assert store.resident == store.known == 3002
    assert sorted(store.states.slot[store.states.slot != NONE].tolist()) == list(range(3002))
