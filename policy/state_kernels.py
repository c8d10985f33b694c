"""Compiled bookkeeping of states: find, add, enlist, place, release, evict.

What the arrays mean stands at `States`; `state_store` owns them, grows them and calls these kernels. They
trust their inputs, allocate nothing and are compiled without reference counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Ids = NDArray[np.int64]
I32 = NDArray[np.int32]

EMPTY = 0  # the state of no tokens, above every prompt
NONE = -1


def kernel(function: F) -> F:
    """Compile a kernel that neither allocates nor counts references to its arrays."""
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
    return cast("F", njit(**options)(function))


class States(NamedTuple):
    """Arrays over states [S]; a free state has ``length`` -1. Owned by `StateStore`, written by the
    kernels.

    ``parent``, ``token`` and ``length`` (in tokens) say what a state is. ``slot`` is its place in the
    pool, NONE when it is not resident. ``held`` counts handles given out, ``children`` the states below,
    ``resident`` those of them that are resident. ``root`` is the prompt a state descends from (itself
    inside a prompt). ``below`` counts forwards in the subtree, its own included: what a search calls
    visits. ``touched`` is the clock of the last use. ``first``, ``next``, ``previous`` link the children
    that prompts may share. ``batch`` marks the states that the forward in hand needs, ``order`` is their
    place in it, NONE for those that are only read.
    """

    parent: I32
    token: I32
    length: I32
    slot: I32
    held: I32
    children: I32
    resident: I32
    root: I32
    below: I32
    touched: Ids
    first: I32
    next: I32
    previous: I32
    order: I32
    batch: Ids


class Stacks(NamedTuple):
    """Free states i32 [S] and free slots i32 [C]; ``left`` i64 [2] says how many of each."""

    states: I32
    slots: I32
    left: Ids


@kernel
def _take_state(states: States, stacks: Stacks, parent: int, token: int) -> int:
    stacks.left[0] -= 1
    state = int(stacks.states[stacks.left[0]])
    states.parent[state] = parent
    states.token[state] = token
    states.length[state] = states.length[parent] + 1
    states.slot[state] = NONE
    states.held[state] = 0
    states.children[state] = 0
    states.resident[state] = 0
    states.root[state] = state
    states.below[state] = 0
    states.first[state] = NONE
    states.next[state] = NONE
    states.previous[state] = NONE
    states.children[parent] += 1
    return state


@kernel
def _drop_slot(states: States, stacks: Stacks, state: int) -> None:
    stacks.slots[stacks.left[1]] = states.slot[state]
    stacks.left[1] += 1
    states.slot[state] = NONE
    states.resident[states.parent[state]] -= 1


@kernel
def _forget(states: States, stacks: Stacks, state: int) -> int:
    """Free a state that nobody holds and that has no children; returns its parent."""
    if states.slot[state] != NONE:
        _drop_slot(states, stacks, state)
    parent, before, after = int(states.parent[state]), states.previous[state], states.next[state]
    if before != NONE:
        states.next[before] = after
    elif states.first[parent] == state:
        states.first[parent] = after
    if after != NONE:
        states.previous[after] = before
    states.length[state] = -1
    stacks.states[stacks.left[0]] = state
    stacks.left[0] += 1
    states.children[parent] -= 1
    return parent


@kernel
def find_prompts(states: States, stacks: Stacks, tokens: Ids, ends: Ids, found: Ids) -> int:
    """States of whole prompts into ``found`` i64 [R], each held once more; returns how many states are
    new.

    ``tokens`` holds the prompts one after the other, prompt r up to ``ends[r]``. Prompts share the states
    of what they have in common.
    """
    start, made = 0, 0
    for r in range(ends.shape[0]):
        state = EMPTY
        for t in range(start, ends[r]):
            child = states.first[state]
            while child != NONE and states.token[child] != tokens[t]:
                child = states.next[child]
            if child == NONE:
                child = _take_state(states, stacks, state, tokens[t])
                after = states.first[state]
                states.next[child] = after
                if after != NONE:
                    states.previous[after] = child
                states.first[state] = child
                made += 1
            state = int(child)
        states.held[state] += 1
        found[r] = state
        start = ends[r]
    return made


@kernel
def add_children(states: States, stacks: Stacks, parents: Ids, tokens: Ids, found: Ids) -> None:
    """A new state under each of ``parents`` i64 [L], held once, into ``found`` i64 [L]; twins stay apart."""
    for i in range(parents.shape[0]):
        state = _take_state(states, stacks, int(parents[i]), int(tokens[i]))
        states.root[state] = states.root[parents[i]]
        states.held[state] = 1
        found[i] = state


@kernel
def unknown(states: States, wanted: Ids) -> int:
    """Index of the first of ``wanted`` that is not a live, held state; NONE if all are."""
    for i in range(wanted.shape[0]):
        state = wanted[i]
        if state <= EMPTY or state >= states.length.shape[0] or states.held[state] <= 0:
            return i
    return NONE


@kernel
def _enlist(states: States, state: int, root: int, nodes: Ids, trees: Ids, count: int) -> int:
    nodes[count] = state
    trees[count] = root
    states.order[state] = count
    return count + 1


@kernel
def missing(
    states: States, wanted: Ids, mark: int, room: int, most: int, nodes: Ids, trees: Ids, counts: Ids
) -> int:
    """The states that must be forwarded to have ``wanted`` resident, ancestors first, into ``nodes`` i64
    [N].

    Takes rows of ``wanted`` while they need at most ``room`` slots in all (resident ancestors included)
    and ``most`` forwards, the first row however many forwards it needs; returns how many rows were taken.
    A wanted state is always forwarded, for its logits. ``trees`` i64 [N] gets the root of each node's row,
    ``counts`` i64 [2] gets the number of nodes and of slots. Every state on the way is marked ``mark``.
    """
    count, needed = 0, 0
    for i in range(wanted.shape[0]):
        state, fresh, absent = int(wanted[i]), 0, 0
        while state != EMPTY and states.batch[state] != mark:
            fresh += 1
            absent += states.slot[state] == NONE
            state = int(states.parent[state])
        if needed + fresh > room or (i > 0 and count + absent + 1 > most):
            counts[0], counts[1] = count, needed
            return i
        needed += fresh
        first, state = count, int(wanted[i])
        while state != EMPTY and states.batch[state] != mark:
            states.batch[state] = mark
            states.order[state] = NONE
            if states.slot[state] == NONE:
                count = _enlist(states, state, int(states.root[wanted[i]]), nodes, trees, count)
            state = int(states.parent[state])
        low, high = first, count - 1
        while low < high:
            nodes[low], nodes[high] = nodes[high], nodes[low]
            states.order[nodes[low]], states.order[nodes[high]] = low, high
            low, high = low + 1, high - 1
        if states.order[wanted[i]] == NONE:
            count = _enlist(states, int(wanted[i]), int(states.root[wanted[i]]), nodes, trees, count)
    counts[0], counts[1] = count, needed
    return int(wanted.shape[0])


@kernel
def place(states: States, stacks: Stacks, nodes: Ids, clock: int) -> None:
    """Give every one of ``nodes`` a slot if it has none, and count the forward along its path."""
    for i in range(nodes.shape[0]):
        state = int(nodes[i])
        if states.slot[state] == NONE:
            stacks.left[1] -= 1
            states.slot[state] = stacks.slots[stacks.left[1]]
            states.resident[states.parent[state]] += 1
        while state != EMPTY:
            states.below[state] += 1
            states.touched[state] = clock
            state = int(states.parent[state])


@kernel
def unplace(states: States, stacks: Stacks, nodes: Ids) -> None:
    """Take the slots of ``nodes`` back, last first: their forward failed."""
    for i in range(nodes.shape[0] - 1, -1, -1):
        if states.slot[nodes[i]] != NONE:
            _drop_slot(states, stacks, int(nodes[i]))


@kernel
def paths(states: States, nodes: Ids, read: I32, lengths: I32) -> None:
    """Slots from each of ``nodes`` up to its first token into ``read`` i32 [N, P], the node's own slot
    first.
    """
    for i in range(nodes.shape[0]):
        state, column = int(nodes[i]), 0
        while state != EMPTY:
            read[i, column] = states.slot[state]
            column += 1
            state = int(states.parent[state])
        lengths[i] = column


@kernel
def release(states: States, stacks: Stacks, handles: Ids, keep: bool) -> None:
    """Take one hold from each of ``handles`` i64 [R]; states that nobody needs any more are freed, upwards.

    With ``keep``, states that prompts may share stay, resident, until `evict` needs their room.
    """
    for i in range(handles.shape[0]):
        state = int(handles[i])
        if state <= EMPTY or state >= states.length.shape[0] or states.held[state] <= 0:
            continue
        states.held[state] -= 1
        while state != EMPTY and states.held[state] == 0 and states.children[state] == 0:
            parent = int(states.parent[state])
            shared = states.previous[state] != NONE or states.first[parent] == state
            if keep and shared and states.slot[state] != NONE:
                break
            state = _forget(states, stacks, state)


@kernel
def _less(states: States, a: int, b: int) -> bool:
    """Whether ``a`` is to be evicted before ``b``: what nobody holds, then fewest forwards below, then
    oldest.
    """
    kept_a, kept_b = states.held[a] + states.children[a] > 0, states.held[b] + states.children[b] > 0
    if kept_a != kept_b:
        return bool(kept_b)
    if kept_a and states.below[a] != states.below[b]:
        return bool(states.below[a] < states.below[b])
    if states.touched[a] != states.touched[b]:
        return bool(states.touched[a] < states.touched[b])
    return bool(a < b)


@kernel
def _sift(states: States, heap: I32, size: int, at: int) -> None:
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _less(states, int(heap[child + 1]), int(heap[child])):
            child += 1
        if not _less(states, int(heap[child]), int(heap[at])):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@kernel
def _evictable(states: States, state: int, mark: int, unused_only: bool) -> bool:
    if states.length[state] <= 0 or states.slot[state] == NONE or states.resident[state] > 0:
        return False
    if states.batch[state] == mark:
        return False
    unheld = states.held[state] == 0 and states.children[state] == 0
    return bool(unheld or not unused_only)


@kernel
def evict(states: States, stacks: Stacks, heap: I32, mark: int, wanted: int, unused_only: bool) -> int:
    """Free up to ``wanted`` slots, leaf first, fewest forwards below first; returns how many were freed.

    Never a state with a resident child or one marked ``mark``. Unheld states are forgotten, others can
    come back by a forward. With ``unused_only`` only the former go. ``heap`` i32 [S] is scratch.
    """
    size = 0
    for state in range(1, states.length.shape[0]):
        if _evictable(states, state, mark, unused_only):
            heap[size] = state
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift(states, heap, size, at)
    freed = 0
    while freed < wanted and size > 0:
        state = int(heap[0])
        parent = int(states.parent[state])
        if states.held[state] == 0 and states.children[state] == 0:
            _forget(states, stacks, state)
        else:
            _drop_slot(states, stacks, state)
        freed += 1
        if parent != EMPTY and _evictable(states, parent, mark, unused_only):
            heap[0] = parent
        else:
            size -= 1
            heap[0] = heap[size]
        _sift(states, heap, size, 0)
    return freed
