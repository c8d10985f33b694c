"""Which token sequences an engine knows, and where their keys and values lie: the bookkeeping of a KV
cache.

A *state* is a sequence of tokens, kept as (parent state, last token); state 0 is the empty sequence. A
state is *resident* while its last token has a slot in the pool of keys and values, and only if its parent
is. States are counted references: one for whoever holds the handle, one for each child. Statistics of a
search do not live here, and nothing here touches a key, a value or a model.

The kernels are compiled without reference counts and do not allocate; `StateStore` grows the arrays for
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenzero.policy import state_kernels as kernels
from tokenzero.policy.state_kernels import EMPTY, NONE, Stacks, States

__all__ = ["EMPTY", "NONE", "Missing", "StateStore"]

Ids = NDArray[np.int64]
I32 = NDArray[np.int32]


class Missing(NamedTuple):
    """A forward to make: states ``nodes`` i64 [N], ancestors first, and the prompt of each, ``trees`` i64
    [N]; ``targets`` i64 [R], where among them the R rows are that it serves; ``slots`` all of this needs
    in the pool.
    """

    nodes: Ids
    trees: Ids
    targets: Ids
    slots: int


class StateStore:
    """States and slots with their free lists. ``slots`` is the pool's size in tokens; it grows on demand.

    A forward is prepared by :meth:`missing` (what to forward) and :meth:`place` (where to); :meth:`paths`
    then says what every forwarded token attends to.
    """

    def __init__(self, slots: int) -> None:
        self._mark = 0
        self._clock = 0
        self.slots = 0
        self.states = States(*_empty())
        self._stacks = Stacks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(2, np.int64))
        self._grow_states(1024)
        self._stacks.left[0] -= 1  # state 0 is the empty sequence and never free
        self.states.length[EMPTY] = 0
        self.grow_slots(slots)

    @property
    def resident(self) -> int:
        """Slots in use, in tokens."""
        return self.slots - self.free_slots

    @property
    def free_slots(self) -> int:
        """Slots not in use."""
        return int(self._stacks.left[1])

    @property
    def known(self) -> int:
        """States in use."""
        return len(self.states.length) - 1 - int(self._stacks.left[0])

    def arrays(self) -> list[NDArray[Any]]:
        """All memory of the bookkeeping, for those who measure it."""
        return [*self.states, *self._stacks[:2], self._heap]

    def grow_slots(self, slots: int) -> None:
        """Raise the number of slots to ``slots``; the new ones are free."""
        free = np.zeros(slots, np.int32)
        left = int(self._stacks.left[1])
        fresh = slots - self.slots
        free[:fresh] = np.arange(slots - 1, self.slots - 1, -1)  # low slots are taken first
        free[fresh : fresh + left] = self._stacks.slots[:left]
        self._stacks = self._stacks._replace(slots=free)
        self._stacks.left[1] = left + fresh
        self.slots = slots

    def _grow_states(self, count: int) -> None:
        old = len(self.states.length)
        grown: list[Any] = []
        for name, array in self.states._asdict().items():
            fill = -1 if name in ("length", "slot", "first", "next", "previous") else 0
            wider = np.full(count, fill, array.dtype)
            wider[:old] = array
            grown.append(wider)
        self.states = States(*grown)
        left = int(self._stacks.left[0])
        free = np.zeros(count, np.int32)
        free[: count - old] = np.arange(count - 1, old - 1, -1)
        free[count - old : count - old + left] = self._stacks.states[:left]
        self._stacks = self._stacks._replace(states=free)
        self._stacks.left[0] = left + count - old
        self._heap = np.zeros(count, np.int32)

    def _room_for(self, states: int) -> None:
        if self._stacks.left[0] < states:
            self._grow_states(max(2 * len(self.states.length), len(self.states.length) + states))

    def prompts(self, prompts: Sequence[Sequence[int]]) -> Ids:
        """States of whole prompts i64 [R], each held once more; common beginnings are shared."""
        ends = np.cumsum([len(prompt) for prompt in prompts])
        tokens = np.fromiter((token for prompt in prompts for token in prompt), np.int64, int(ends[-1]))
        self._room_for(len(tokens))
        found = np.empty(len(prompts), np.int64)
        kernels.find_prompts(self.states, self._stacks, tokens, ends, found)
        return found

    def children(self, parents: Ids, tokens: Ids) -> Ids:
        """New states i64 [L], one under each of ``parents``, held once."""
        self._room_for(len(parents))
        found = np.empty(len(parents), np.int64)
        kernels.add_children(self.states, self._stacks, parents, tokens, found)
        return found

    def unknown(self, wanted: Ids) -> int:
        """Index of the first of ``wanted`` that nobody holds; NONE if all are held."""
        return int(kernels.unknown(self.states, wanted))

    def missing(self, wanted: Ids, room: int, most: int) -> Missing:
        """What a forward must hold to have the first rows of ``wanted`` resident: as many as fit ``room``
        slots and ``most`` forwards.
        """
        self._mark += 1
        longest = int(self.states.length[wanted].max())
        nodes, trees = np.empty((2, most + longest + 1), np.int64)
        counts = np.zeros(2, np.int64)
        rows = kernels.missing(self.states, wanted, self._mark, room, most, nodes, trees, counts)
        targets = self.states.order[wanted[:rows]].astype(np.int64)
        return Missing(nodes[: counts[0]], trees[: counts[0]], targets, int(counts[1]))

    def place(self, nodes: Ids) -> None:
        """Give ``nodes`` slots. There must be enough free ones."""
        self._clock += 1
        kernels.place(self.states, self._stacks, nodes, self._clock)

    def unplace(self, nodes: Ids) -> None:
        """Take the slots of ``nodes`` back."""
        kernels.unplace(self.states, self._stacks, nodes)

    def paths(self, nodes: Ids) -> tuple[I32, I32]:
        """Slots i32 [N, P] from each of ``nodes`` up to its first token, its own first; lengths i32 [N]."""
        lengths = np.empty(len(nodes), np.int32)
        read = np.zeros((len(nodes), int(self.states.length[nodes].max())), np.int32)
        kernels.paths(self.states, nodes, read, lengths)
        return read, lengths

    def release(self, handles: Ids, keep: bool) -> None:
        """Give up one hold on each of ``handles``; unknown ones are passed over."""
        kernels.release(self.states, self._stacks, handles, keep)

    def evict(self, wanted: int, *, unused_only: bool) -> int:
        """Free up to ``wanted`` slots that the forward in hand does not need; returns how many."""
        return int(kernels.evict(self.states, self._stacks, self._heap, self._mark, wanted, unused_only))

    def forget_unused(self) -> None:
        """Forget every state that nobody holds, with its slot."""
        self._mark += 1  # no forward is in hand
        self.evict(self.slots, unused_only=True)


def _empty() -> Iterator[Any]:
    for name in States._fields:
        yield np.zeros(0, np.int64 if name in ("touched", "batch") else np.int32)
