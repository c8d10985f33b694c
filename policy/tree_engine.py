"""The engine that forwards every token once: keys and values of all states lie in one pool, shared by what
shares tokens.

A child costs one token, a prompt's beginning that another prompt has costs none. Under a memory cap,
leaves with the fewest forwards below them lose their place first; a state that lost it is forwarded again,
with whatever is missing above it, in the same call as what needs it. When the student's weights change,
everything is void. How a batch goes through the model is the `Way`'s business (see `tiers`), which state
is where the `StateStore`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step, check_prompts, check_room, concatenate, released
from tokenzero.policy.key_value_pool import Batch, Way
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.state_store import NONE, Missing, StateStore
from tokenzero.policy.student import Output, Student

_EPOCH = (
    1 << 32
)  # a handle is epoch * _EPOCH + state: handles from before a change of weights stay recognisable


class TreeEngine:
    """An `Engine` over a pool of keys and values.

    memory: most bytes of keys and values, None for as many as are asked for. rows: most tokens in one
    forward (a longer path still goes in one). slots: tokens there is room for at the start. keep_prompts:
    keep released prompts while nothing needs their room, for later ones that begin alike; the ledger then
    depends on what came before.
    """

    def __init__(
        self,
        student: Student,
        way: Way,
        *,
        slots: int = 4096,
        rows: int = 1024,
        memory: int | None = None,
        keep_prompts: bool = False,
    ) -> None:
        self.ledger = Ledger()
        self.way = way
        self._student = student
        self._rows = rows
        self._memory = memory
        self._keep = keep_prompts
        self._epoch = 0
        most = self._most_slots()
        self._empty(slots if most is None else max(1, min(slots, most)))
        self.way.resize(self._store.slots)

    def _empty(self, slots: int) -> None:
        self._store = StateStore(slots)
        self._version = self._student.version
        self._epoch += 1

    def _most_slots(self) -> int | None:
        """Slots the memory cap allows; None without a cap, or before the model has shown how large a slot
        is.
        """
        size = self.way.bytes_per_slot
        return None if self._memory is None or size == 0 else self._memory // size

    @property
    def resident(self) -> int:
        """Slots in use, in tokens."""
        return self._store.resident

    @property
    def slots(self) -> int:
        """Slots there are, in tokens."""
        return self._store.slots

    @property
    def known(self) -> int:
        """States in use, resident or not."""
        return self._store.known

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        """Forward what is new of whole prompts; one state each. Raises InputError for an empty or too long
        prompt.
        """
        check_prompts(prompts, self._student)
        if self._version != self._student.version:
            self._empty(self._store.slots)
        wanted = self._store.prompts(prompts)
        step, forwarded = self._run(wanted)
        self.ledger.prefill_tokens += forwarded
        self.ledger.cached_tokens += max(0, sum(map(len, prompts)) - forwarded)
        return step

    def extend(self, states: Ids, tokens: Ids) -> Step:
        """Forward one token after each state, and what eviction took from above it. Raises InputError for
        a state that was released or made before the weights changed, and for a path that the memory cap
        has no room for.
        """
        if self._version != self._student.version:
            raise InputError("the weights changed after these states were made; prefill the prompts again")
        parents = states - self._epoch * _EPOCH
        stranger = self._store.unknown(parents)
        if stranger != NONE:
            raise released(int(states[stranger]))
        check_room(int(self._store.states.length[parents].max()) + 1, self._student)
        wanted = self._store.children(parents, tokens)
        step, forwarded = self._run(wanted)
        self.ledger.decode_tokens += forwarded
        return step

    def release(self, states: Ids) -> None:
        """Give handles back, in any order; what is above a state stays as long as the state is held."""
        if self._version == self._student.version:
            self._store.release(states - self._epoch * _EPOCH, self._keep)

    def drop_prompts(self) -> None:
        """Let go of the released prompts that were kept."""
        self._store.forget_unused()

    def _run(self, wanted: Ids) -> tuple[Step, int]:
        """Make ``wanted`` resident, with their logits; they are given back when that fails."""
        outputs, forwarded, done = [], 0, 0
        try:
            while done < len(wanted):
                plan = self._plan(wanted[done:])
                outputs.append(self._forward(plan))
                done += len(plan.targets)
                forwarded += len(plan.nodes)
        except BaseException:
            self._store.release(wanted, keep=False)
            raise
        states = wanted + self._epoch * _EPOCH
        logits = [output.logits for output in outputs]
        hidden = [output.hidden for output in outputs]
        return Step(states, concatenate(logits), concatenate(hidden)), forwarded

    def _plan(self, wanted: Ids) -> Missing:
        """The next forward: as many rows as fit, with slots free for them."""
        store, states = self._store, self._store.states
        rows = wanted[: self._rows]
        news = (states.slot[rows] == NONE) & (states.slot[states.parent[rows]] != NONE)
        if store.free_slots >= len(rows) and bool(news.all()) and not self._shared(rows):
            return Missing(rows, states.root[rows].astype(np.int64), np.arange(len(rows)), len(rows))
        most = self._most_slots()
        plan = store.missing(wanted, 2**62 if most is None else most, self._rows)
        if not len(plan.targets):
            needed, size = int(states.length[wanted[0]]), self.way.bytes_per_slot / 1024
            raise InputError(
                f"a sequence of {needed} tokens has no room: the memory cap allows {most} of {size:g} KiB; "
                "raise it (--memory-mb, engine.memory_mb)"
            )
        self._make_room(int(np.count_nonzero(states.slot[plan.nodes] == NONE)), most)
        return plan

    def _shared(self, rows: Ids) -> bool:
        """Whether a state is wanted twice, which only prompts are."""
        states = self._store.states
        return bool((states.held[rows] > 1).any())

    def _make_room(self, count: int, most: int | None) -> None:
        store = self._store
        short = count - store.free_slots
        if short > 0 and self._keep:
            short -= store.evict(max(short, store.slots // 16), unused_only=True)
        if short > 0 and (most is None or store.slots < most):
            slots = max(2 * store.slots, store.slots + short)
            slots = slots if most is None else min(slots, most)
            self.way.resize(slots)
            store.grow_slots(slots)
            short = count - store.free_slots
        if short > 0:
            store.evict(max(short, store.slots // 16), unused_only=False)

    def _forward(self, plan: Missing) -> Output:
        store, states = self._store, self._store.states
        nodes = plan.nodes
        fresh = nodes[states.slot[nodes] == NONE]
        store.place(nodes)
        read, lengths = store.paths(nodes)
        batch = Batch(
            tokens=states.token[nodes].astype(np.int64),
            positions=lengths.astype(np.int64) - 1,
            slots=read[:, 0].astype(np.int64),
            read=read,
            lengths=lengths,
            trees=plan.trees,
            targets=plan.targets,
        )
        try:
            return self.way.forward(batch)
        except BaseException:
            store.unplace(fresh)
            raise
