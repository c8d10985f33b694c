"""Batched next-token inference over a tree of partial sequences: the protocol, and the plain truth.

An engine hands out *states*: integers that each stand for a sequence of tokens already forwarded. Extending a
state by one token yields a child state. ``RecomputeEngine`` forwards the whole prefix again, slow and plainly
right; `tree_engine` keeps the same promise at one token a child. Both pay into a ``Ledger``. Neither samples,
scores nor decides when a sequence ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

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


def concatenate(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all; the tensor itself when it is the only one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
