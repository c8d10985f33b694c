"""The likeliest tokens against sorting a softmax in float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.policy.candidates import likeliest


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.sampled_from([1, 7, 63, 64, 65, 200, 500]),
    st.integers(1, 20),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.booleans(),
)
def test_the_kernel_takes_the_top_of_a_softmax(
    seed: int, rows: int, vocabulary: int, count: int, temperature: float, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    count = min(count, vocabulary)
    logits = rng.normal(size=(rows, vocabulary)).astype(np.float32) * 4
    if ties:
        logits = np.round(logits)
    mask = np.where(rng.random(vocabulary) < 0.2, -np.inf, 0.0).astype(np.float32)
    mask[int(rng.integers(vocabulary))] = 0.0
    ids, values = likeliest(torch.from_numpy(logits), torch.from_numpy(mask), count, temperature)
    scores = logits.astype(np.float32) * np.float32(1 / temperature) + mask
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(
        np.where(np.isfinite(values), ids, -1), np.where(np.isfinite(values), order, -1)
    )
    exact = scores.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(values, np.take_along_axis(exact, order, 1), atol=3e-6, rtol=1e-6)


def test_torch_and_the_kernel_agree() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(300)
    mask[:5] = -torch.inf
    ids, values = likeliest(logits, mask, 9, 0.7)
    other_ids, other_values = likeliest(logits.double(), mask, 9, 0.7)
    np.testing.assert_array_equal(ids, other_ids)
    np.testing.assert_allclose(values, other_values, atol=3e-6)


def test_a_damaged_row_says_so_and_the_others_do_not() -> None:
    logits = torch.zeros(3, 100)
    logits[1, 70] = torch.nan
    _, values = likeliest(logits, torch.zeros(100), 4)
    assert np.isnan(values[1]).all()
    assert np.isfinite(values[[0, 2]]).all()
    logits[1, 70] = torch.inf
    assert np.isnan(likeliest(logits, torch.zeros(100), 4)[1][1]).all()
