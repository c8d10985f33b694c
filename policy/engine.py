"""Batched next-token inference over a tree of partial sequences.

An engine hands out *states*: integers that each stand for a sequence of tokens already forwarded. Extending a
state by one token yields a child state; siblings share everything above them. Two engines keep the same
promise: ``RecomputeEngine`` forwards the whole prefix again (slow, plainly right), ``GatherEngine`` keeps one
slot of keys and values per token and gathers each leaf's ancestors, so that a child costs one token. Both pay
into a ``Ledger``. Neither samples, scores nor decides when a sequence ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Output, Student

Ids = npt.NDArray[np.int64]


class Step(NamedTuple):
    """New states i64 [L] with the next-token ``logits`` f32 [L, V] and the ``hidden`` state [L, D] of
    each.
    """

    states: Ids
    logits: torch.Tensor
    hidden: torch.Tensor


class Engine(Protocol):
    """What search and decoding need from a model."""

    ledger: Ledger

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        """Forward whole prompts; one state each. Raises InputError for an empty or too long prompt."""
        ...

    def extend(self, states: Ids, tokens: Ids) -> Step:
        """Forward one token after each state."""
        ...

    def release(self, states: Ids) -> None:
        """Forget states. A state is released together with, or after, everything below it."""
        ...


def check_prompts(prompts: Sequence[Sequence[int]], student: Student) -> None:
    """Raise InputError for no prompt, an empty one, or one that leaves no room for an answer."""
    if len(prompts) == 0:
        raise InputError("there is no prompt to forward; give at least one")
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise InputError(f"prompt {index} is empty; give at least one token")
        if len(prompt) >= student.max_length:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens, the model takes {student.max_length - 1} "
                "at most; shorten it"
            )


def check_room(longest: int, student: Student) -> None:
    """Raise InputError when a sequence of ``longest`` tokens passes the model's positions."""
    if longest > student.max_length:
        raise InputError(
            f"a sequence would pass the model's {student.max_length} positions; lower the answer length"
        )


def released(state: int) -> InputError:
    """What to raise for a state that nobody holds."""
    return InputError(f"state {state} is unknown or was released; prefill its prompt again")


def _left_pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, 0/1 mask and position ids, each i64 [L, T]; the last column is every row's last token."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = row
        mask[index, width - len(row) :] = 1
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(positions)


class RecomputeEngine:
    """Forwards every prefix from its first token. The reference that faster engines are checked against.

    rows: sequences in one forward. pad: whether sequences of different lengths share a forward, padded on
    the left; some families are only right without.
    """

    def __init__(self, student: Student, *, rows: int = 512, pad: bool = True) -> None:
        self.ledger = Ledger()
        self._student = student
        self._rows = rows
        self._pad = pad
        self._sequences: dict[int, tuple[int, ...]] = {}
        self._next = 0

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        check_prompts(prompts, self._student)
        self.ledger.prefill_tokens += sum(len(prompt) for prompt in prompts)
        return self._forward([tuple(prompt) for prompt in prompts])

    def extend(self, states: Ids, tokens: Ids) -> Step:
        try:
            sequences = [
                (*self._sequences[s], t) for s, t in zip(states.tolist(), tokens.tolist(), strict=True)
            ]
        except KeyError as error:
            raise released(error.args[0]) from error
        check_room(max(map(len, sequences)), self._student)
        self.ledger.decode_tokens += sum(len(sequence) for sequence in sequences)
        return self._forward(sequences)

    def release(self, states: Ids) -> None:
        for state in states.tolist():
            self._sequences.pop(state, None)

    @torch.inference_mode()
    def _forward(self, sequences: list[tuple[int, ...]]) -> Step:
        order: list[int] = []
        logits, hidden = [], []
        for part in self._parts(sequences):
            output = self._forward_part([sequences[row] for row in part])
            order += part
            logits.append(output.logits[:, -1])
            hidden.append(output.hidden[:, -1])
        back = torch.from_numpy(np.argsort(order, kind="stable")).to(logits[0].device)
        states = np.arange(self._next, self._next + len(sequences), dtype=np.int64)
        self._next += len(sequences)
        self._sequences.update(zip(states.tolist(), sequences, strict=True))
        return Step(states, torch.cat(logits)[back], torch.cat(hidden)[back])

    def _parts(self, sequences: list[tuple[int, ...]]) -> Iterator[list[int]]:
        """Rows that go through the model together."""
        groups: dict[int, list[int]] = {}
        for row, sequence in enumerate(sequences):
            groups.setdefault(0 if self._pad else len(sequence), []).append(row)
        for group in groups.values():
            for start in range(0, len(group), self._rows):
                yield group[start : start + self._rows]

    def _forward_part(self, sequences: list[tuple[int, ...]]) -> Output:
        student = self._student
        ids, mask, positions = _left_pad(sequences, student.pad_id)
        if not self._pad:
            return student.forward(ids.to(student.device), use_cache=False)
        return student.forward(
            ids.to(student.device),
            attention_mask=mask.to(student.device),
            position_ids=positions.to(student.device),
            logits_to_keep=1,
        )


class _PoolLayer(CacheLayerMixin):
    """One layer's keys and values, one slot per token: f32 [slots, heads, head_dim], shaped by the first
    update.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, pool: _Pool) -> None:
        super().__init__()
        self._pool = pool

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots = self._pool.capacity
        self.keys = key_states.new_zeros((slots, key_states.shape[1], key_states.shape[3]))
        self.values = value_states.new_zeros((slots, value_states.shape[1], value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens into their slots and return what the queries attend to, [L, heads, T,
        head_dim].
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        pool = self._pool
        assert self.keys is not None
        assert self.values is not None
        self.keys[pool.write_slots] = key_states.transpose(1, 2)[pool.write_mask]
        self.values[pool.write_slots] = value_states.transpose(1, 2)[pool.write_mask]
        if pool.read_slots is None:
            return key_states, value_states
        return self._gather(self.keys, pool.read_slots), self._gather(self.values, pool.read_slots)

    @staticmethod
    def _gather(store: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        rows = store.reshape(store.shape[0], -1).index_select(0, slots.reshape(-1))
        return rows.view(*slots.shape, *store.shape[1:]).transpose(1, 2)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` slots, keeping what is there."""
        if self.is_initialized:
            assert self.keys is not None
            assert self.values is not None
            extra = capacity - self.keys.shape[0]
            self.keys = torch.cat([self.keys, self.keys.new_zeros((extra, *self.keys.shape[1:]))])
            self.values = torch.cat([self.values, self.values.new_zeros((extra, *self.values.shape[1:]))])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length if self._pool.read_slots is None else int(self._pool.read_slots.shape[1])), 0

    def get_seq_length(self) -> int:
        return 0 if self._pool.read_slots is None else int(self._pool.read_slots.shape[1]) - 1

    def get_max_length(self) -> int:
        return -1


class _Pool(Cache):
    """All layers' slots and the addresses of the forward in flight. Owned and addressed by ``GatherEngine``
    only.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.write_slots = torch.empty(0, dtype=torch.int64)
        self.write_mask = torch.empty((0, 0), dtype=torch.bool)
        self.read_slots: torch.Tensor | None = None
        super().__init__(layers=[_PoolLayer(self) for _ in range(layers)])

    def grow(self, capacity: int) -> None:
        for layer in self.layers:
            assert isinstance(layer, _PoolLayer)
            layer.grow(capacity)
        self.capacity = capacity


class GatherEngine:
    """One slot of keys and values per token; a leaf gathers its ancestors and forwards one token.

    A state *is* the slot of its last token. ``_path[slot]`` lists the slots from the first prompt token to
    itself. When the student's weights change, every state is void and the pool starts empty.
    """

    def __init__(self, student: Student, *, slots: int = 4096, rows: int = 1024) -> None:
        self.ledger = Ledger()
        self._student = student
        self._rows = rows
        self._slots = slots
        self._reset()

    def _reset(self) -> None:
        layers = int(self._student.model.config.get_text_config(decoder=True).num_hidden_layers)
        self._pool = _Pool(layers, self._slots)
        self._version = self._student.version
        self._free = list(range(self._slots - 1, -1, -1))
        self._length = np.zeros(self._slots, np.int32)
        self._path = np.zeros((self._slots, 16), np.int32)
        self._prompt_slots: dict[int, list[int]] = {}

    @property
    def resident(self) -> int:
        """Slots in use, in tokens."""
        return self._pool.capacity - len(self._free)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        if self._version != self._student.version:
            self._reset()
        check_prompts(prompts, self._student)
        self.ledger.prefill_tokens += sum(len(prompt) for prompt in prompts)
        steps = [self._prefill(prompts[i : i + self._rows]) for i in range(0, len(prompts), self._rows)]
        return _concatenate(steps)

    def extend(self, states: Ids, tokens: Ids) -> Step:
        if self._version != self._student.version:
            raise InputError("the weights changed after these states were made; prefill the prompts again")
        steps = [
            self._extend(states[i : i + self._rows], tokens[i : i + self._rows])
            for i in range(0, len(states), self._rows)
        ]
        self.ledger.decode_tokens += len(states)
        return _concatenate(steps)

    def release(self, states: Ids) -> None:
        if self._version != self._student.version:
            return
        for state in states.tolist():
            if self._length[state]:  # a second release must not hand the slot out twice
                self._length[state] = 0
                self._free.extend(self._prompt_slots.pop(state, (state,)))

    @torch.inference_mode()
    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        ids, mask, positions = _left_pad(prompts, self._student.pad_id)
        slots = self._allocate(int(mask.sum()))
        states = np.empty(len(prompts), np.int64)
        start = 0
        for row, prompt in enumerate(prompts):
            own = slots[start : start + len(prompt)]
            start += len(prompt)
            states[row] = own[-1]
            self._widen(len(prompt))
            self._path[own[-1], : len(prompt)] = own
            self._length[own[-1]] = len(prompt)
            self._prompt_slots[int(own[-1])] = own.tolist()
        output = self._forward(ids, mask, positions, slots, mask.bool(), None)
        return Step(states, output.logits[:, -1], output.hidden[:, -1])

    @torch.inference_mode()
    def _extend(self, states: Ids, tokens: Ids) -> Step:
        lengths = self._length[states]
        longest = int(lengths.max())
        if not lengths.all() or states.min() < 0:
            raise released(int(states[np.argmin(np.where(states < 0, -1, lengths))]))
        check_room(longest + 1, self._student)
        new = self._allocate(len(states))
        self._widen(longest + 1)
        self._path[new] = self._path[states]
        self._path[new, lengths] = new
        self._length[new] = lengths + 1
        # Right-align every path: column c of the row is token c - (longest - length).
        column = np.arange(longest + 1)[None, :] - (longest - lengths)[:, None]
        read = self._path[new[:, None], np.maximum(column, 0)]
        ids = torch.from_numpy(tokens.astype(np.int64)).view(-1, 1)
        mask = torch.from_numpy((column >= 0).astype(np.int64))
        positions = torch.from_numpy(lengths.astype(np.int64)).view(-1, 1)
        written = torch.ones((len(new), 1), dtype=torch.bool)
        output = self._forward(ids, mask, positions, new, written, torch.from_numpy(read.astype(np.int64)))
        return Step(new, output.logits[:, -1], output.hidden[:, -1])

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        write: Ids,
        written: torch.Tensor,
        read: torch.Tensor | None,
    ) -> Output:
        device = self._student.device
        pool = self._pool
        pool.write_slots = torch.from_numpy(write).to(device)
        pool.write_mask = written.to(device)
        pool.read_slots = None if read is None else read.to(device)
        return self._student.forward(
            ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=pool,
            use_cache=True,
            logits_to_keep=1,
        )

    def _allocate(self, count: int) -> Ids:
        if count > len(self._free):
            old = self._pool.capacity
            capacity = max(2 * old, old + count)
            self._pool.grow(capacity)
            self._free = list(range(capacity - 1, old - 1, -1)) + self._free
            self._length = np.concatenate([self._length, np.zeros(capacity - old, np.int32)])
            self._path = np.concatenate(
                [self._path, np.zeros((capacity - old, self._path.shape[1]), np.int32)]
            )
        taken = self._free[-count:][::-1]
        del self._free[-count:]
        return np.asarray(taken, np.int64)

    def _widen(self, length: int) -> None:
        width = self._path.shape[1]
        if length > width:
            extra = np.zeros((self._path.shape[0], max(width, length - width)), np.int32)
            self._path = np.concatenate([self._path, extra], axis=1)


def _concatenate(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]
    return Step(
        np.concatenate([step.states for step in steps]),
        torch.cat([step.logits for step in steps]),
        torch.cat([step.hidden for step in steps]),
    )


def concatenate(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all; the tensor itself when it is the only one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
