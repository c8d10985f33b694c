"""Where the tokens of several sequences lie in one rectangle of rows: one sequence a row, or several.

Rows are as wide as the longest sequence, so packing removes padding and never makes attention wider. It knows
lengths and ids only; which layout a model can be trained with is `training_forward`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Layout(NamedTuple):
    """``starts`` i64 [N]: index of each sequence's first token among the ``rows * width`` cells, counted row
    by row. ``packed``: some row holds several sequences.
    """

    starts: npt.NDArray[np.int64]
    rows: int
    width: int
    packed: bool

    @property
    def cells(self) -> int:
        """Tokens that a forward reads, padding included."""
        return self.rows * self.width


def pad(lengths: npt.NDArray[np.int64]) -> Layout:
    """One sequence a row, for ``lengths`` i64 [N] of at least 1."""
    width = int(lengths.max())
    return Layout(np.arange(len(lengths)) * width, len(lengths), width, False)


def pack(lengths: npt.NDArray[np.int64]) -> Layout:
    """First fit decreasing (Johnson 1973): longest first, each into the first row that has room for it.

    Equal lengths keep their order. No more rows than ``pad`` needs.
    """
    width = int(lengths.max())
    starts = np.zeros(len(lengths), np.int64)
    room = np.full(len(lengths), width, np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        row = int(np.argmax(room >= lengths[index]))
        starts[index] = (row + 1) * width - room[row]
        room[row] -= lengths[index]
    rows = int(np.count_nonzero(room < width))
    return Layout(starts, rows, width, rows < len(lengths))


def cells_of(layout: Layout, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cell i64 [sum of lengths] of every token, sequence by sequence, for ``lengths`` i64 [N]."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(layout.starts, lengths) + within


def spread(
    values: npt.NDArray[np.int64], cells: npt.NDArray[np.int64], layout: Layout, fill: int
) -> npt.NDArray[np.int64]:
    """``values`` i64 [T] at ``cells`` i64 [T] of [rows, width], and ``fill`` elsewhere."""
    spread = np.full(layout.cells, fill, np.int64)
    spread[cells] = values
    return spread.reshape(layout.rows, layout.width)


def place(
    sequences: Sequence[Sequence[int]], layout: Layout, fill: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and positions i64 [rows, width]. Each sequence's positions count from 0.

    A free cell holds ``fill`` at position 0: where positions tell sequences apart, it is one of its own.
    """
    lengths = np.asarray([len(sequence) for sequence in sequences])
    cells = cells_of(layout, lengths)
    ids = np.asarray([token for sequence in sequences for token in sequence])
    positions = cells - np.repeat(layout.starts, lengths)
    return spread(ids, cells, layout, fill), spread(positions, cells, layout, 0)
