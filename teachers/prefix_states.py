"""Which sequences a teacher's engine goes on from: states that are held between consultations.

A search asks a teacher about a tree of sequences, each one token longer than one it asked about before. The
engine keeps prefixes as a tree and forwards what is missing below the longest one it knows, all rows in one
batch; this file holds its states so that they stay known, and lets go of the least recently used. It
proposes nothing and knows no texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, Step
from tokenzero.policy.student import Student

DEFAULT_STATES = 1 << 16


class PrefixStates:
    """States of ``engine``, which is this table's alone, at most ``most`` of them held between calls (their
    prefixes not counted).

    ``forwarded`` counts the tokens forwarded so far, and what the caller extends the states by. When the
    weights of ``student`` change, everything is forgotten. Raises InputError for ``most`` below 1.
    """

    def __init__(self, student: Student, engine: Engine, most: int = DEFAULT_STATES) -> None:
        if most < 1:
            raise InputError(f"a teacher was told to hold {most} states; give at least 1")
        self.engine = engine
        self._student = student
        self._version = student.version
        self._most = most
        self._held: OrderedDict[int, None] = OrderedDict()  # by handle, least recently used first

    def __len__(self) -> int:
        return len(self._held)

    @property
    def forwarded(self) -> int:
        """Tokens that this engine forwarded so far."""
        return self.engine.ledger.forwarded_tokens

    def step(self, sequences: Sequence[Sequence[int]]) -> Step:
        """States, next-token logits and hidden states after each of L >= 1 ``sequences``.

        Forwards what is not known of each; of a sequence that is known in full, its last token, whose logits
        nobody kept. An engine without a cache forwards all of it. The states stay valid until the next call
        (of this or of `close`). Raises InputError for an empty or too long sequence.
        """
        if self._version != self._student.version:
            self._held.clear()  # void by now, and the engine has forgotten them
            self._version = self._student.version
        step = self.engine.prefill(sequences)
        again = []
        for state in step.states.tolist():
            if state in self._held:
                again.append(state)  # the engine counts holds, and one is enough
            self._held[state] = None
            self._held.move_to_end(state)
        surplus = len(self._held) - max(self._most, len(sequences))
        again += [self._held.popitem(last=False)[0] for _ in range(surplus)]
        self.engine.release(np.asarray(again, np.int64))
        return step

    def close(self) -> None:
        """Let go of every state; the table can be used again."""
        self.engine.release(np.fromiter(self._held, np.int64, len(self._held)))
        self._held.clear()
