"""Layouts against a plain first-fit-decreasing loop over lists, and tokens put into them and read back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.policy.sequence_packing import pack, pad, place

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def naive_rows(lengths: list[int]) -> list[list[int]]:
    """Indices of the sequences in each row, in the order in which they lie there."""
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row in rows:
            if sum(lengths[i] for i in row) + lengths[index] <= max(lengths):
                row.append(index)
                break
        else:
            rows.append([index])
    return rows


@given(LENGTHS)
def test_packing_is_first_fit_decreasing(lengths: list[int]) -> None:
    layout = pack(np.asarray(lengths))
    expected = np.zeros(len(lengths), np.int64)
    rows = naive_rows(lengths)
    for number, row in enumerate(rows):
        start = number * max(lengths)
        for index in row:
            expected[index] = start
            start += lengths[index]
    assert layout.starts.tolist() == expected.tolist()
    assert (layout.rows, layout.width) == (len(rows), max(lengths))
    assert layout.packed == (len(rows) < len(lengths))
    assert layout.cells == len(rows) * max(lengths)


@given(LENGTHS, st.sampled_from([pad, pack]))
def test_what_is_placed_can_be_read_back(lengths: list[int], layout_of: object) -> None:
    assert callable(layout_of)
    layout = layout_of(np.asarray(lengths))
    sequences = [[100 * row + i for i in range(length)] for row, length in enumerate(lengths, 1)]
    ids, positions = place(sequences, layout, fill=7)
    assert ids.shape == positions.shape == (layout.rows, layout.width)
    free = np.ones(layout.cells, bool)
    for start, sequence in zip(layout.starts.tolist(), sequences, strict=True):
        own = slice(start, start + len(sequence))
        assert start // layout.width == (start + len(sequence) - 1) // layout.width, "within one row"
        assert free[own].all()
        free[own] = False
        assert ids.ravel()[own].tolist() == sequence
        assert positions.ravel()[own].tolist() == list(range(len(sequence)))
    assert (ids.ravel()[free] == 7).all()
    assert (positions.ravel()[free] == 0).all()


def test_padding_gives_each_sequence_a_row() -> None:
    layout = pad(np.asarray([2, 5, 3]))
    assert layout.starts.tolist() == [0, 5, 10]
    assert (layout.rows, layout.width, layout.packed) == (3, 5, False)
