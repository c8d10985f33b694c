"""The attention kernels against softmax written out in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.policy import kernels
from tokenzero.policy import paged_attention as paged
from tokenzero.policy.key_value_pool import Batch
from tokenzero.policy.tree_union import OUT_OF_SIGHT, unite


def case(
    seed: int, tokens: int, heads: int, groups: int, depth: int, width: int, most: int
) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    slots = tokens + 2 * most
    query = rng.normal(size=(tokens, heads, depth)).astype(np.float32) * 2
    keys = rng.normal(size=(slots, groups, depth)).astype(np.float32)
    values = rng.normal(size=(slots, groups, width)).astype(np.float32)
    lengths = rng.integers(1, most + 1, size=tokens).astype(np.int32)
    read = np.stack([rng.permutation(slots)[:most] for _ in range(tokens)]).astype(np.int32)
    return query, keys, values, read, lengths


def plain(query: Any, keys: Any, values: Any, read: Any, lengths: Any, window: int, scale: float) -> Any:
    out = np.zeros((*query.shape[:2], values.shape[2]))
    share = query.shape[1] // keys.shape[1]
    for n, h in np.ndindex(*query.shape[:2]):
        seen = read[n, : min(lengths[n], window)]
        logits = keys[seen, h // share].astype(np.float64) @ query[n, h].astype(np.float64) * scale
        weight = np.exp(logits - logits.max())
        out[n, h] = (weight / weight.sum()) @ values[seen, h // share]
    return out


def run(arguments: tuple[Any, ...], window: int, scale: float, threads: int, out: Any) -> None:
    query, keys, values, read, lengths = arguments
    paged.Attend(read, lengths, threads)(query, keys, values, window, np.float32(scale), out)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    st.sampled_from([2, 5, 16, 33]),
    st.sampled_from([3, 8]),
    st.integers(1, 40),
    st.sampled_from([1, 3, paged.NO_WINDOW]),
)
def test_attention_is_softmax_over_the_path(
    seed: int, tokens: int, heads: tuple[int, int], depth: int, width: int, most: int, window: int
) -> None:
    arguments = case(seed, tokens, *heads, depth, width, most)
    out = np.full((tokens, heads[0], width), np.nan, np.float32)
    run(arguments, window, 0.3, 1, out)
    np.testing.assert_allclose(out, plain(*arguments, window, 0.3), atol=2e-6)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "WORK_PER_THREAD", 1)
    arguments = case(1, 50, 4, 2, 16, 16, 30)
    outs = [np.zeros((50, 4, 16), np.float32) for _ in range(3)]
    for threads, out in zip((1, 2, 3), outs, strict=True):
        run(arguments, paged.NO_WINDOW, 0.25, threads, out)
    assert outs[0].tobytes() == outs[1].tobytes() == outs[2].tobytes()
    np.testing.assert_allclose(outs[0], plain(*arguments, paged.NO_WINDOW, 0.25), atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    st.sampled_from([2, 5, 16, 33]),
    st.sampled_from([3, 8]),
    st.integers(1, 40),
    st.sampled_from([1, 3, paged.NO_WINDOW]),
)
def test_gradients_are_those_of_softmax_over_the_path(
    seed: int, tokens: int, heads: tuple[int, int], depth: int, width: int, most: int, window: int
) -> None:
    query, keys, values, read, lengths = case(seed, tokens, *heads, depth, width, most)
    gradient = np.random.default_rng(seed).normal(size=(tokens, heads[0], width)).astype(np.float32)
    q, k, v = (torch.from_numpy(array).double().requires_grad_() for array in (query, keys, values))
    share = heads[0] // heads[1]
    for n in range(tokens):
        seen = torch.from_numpy(read[n, : min(lengths[n], window)]).long()
        of_head = [k[seen].repeat_interleave(share, 1), v[seen].repeat_interleave(share, 1)]
        weight = torch.softmax(torch.einsum("hd,phd->hp", q[n], of_head[0]) * 0.3, 1)
        out = torch.einsum("hp,phd->hd", weight, of_head[1])
        (out * torch.from_numpy(gradient[n])).sum().backward()  # type: ignore[no-untyped-call]
    found = paged.Attend(read, lengths, 1).backward(query, keys, values, window, np.float32(0.3), gradient)
    for mine, true in zip(found, (q.grad, k.grad, v.grad), strict=True):
        assert true is not None
        np.testing.assert_allclose(mine, true, atol=2e-5)


def test_the_number_of_threads_changes_no_bit_of_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "WORK_PER_THREAD", 1)
    query, keys, values, read, lengths = case(1, 50, 4, 4, 16, 16, 30)
    gradient = np.random.default_rng(0).normal(size=query.shape).astype(np.float32)
    found = [
        paged.Attend(read, lengths, threads).backward(
            query, keys, values, paged.NO_WINDOW, np.float32(0.25), gradient
        )
        for threads in (1, 2, 3)
    ]
    assert len({tuple(part.tobytes() for part in parts) for parts in found}) == 1


def test_extreme_scores_neither_overflow_nor_vanish() -> None:
    query = np.asarray([[[1.0]], [[-1.0]]], np.float32)
    keys = np.asarray([[[1000.0]], [[-1000.0]], [[999.0]]], np.float32)
    values = np.asarray([[[1.0]], [[2.0]], [[4.0]]], np.float32)
    read, lengths = np.asarray([[0, 1, 2], [0, 1, 2]], np.int32), np.full(2, 3, np.int32)
    out = np.zeros((2, 1, 1), np.float32)
    run((query, keys, values, read, lengths), paged.NO_WINDOW, 1.0, 1, out)
    np.testing.assert_allclose(out, plain(query, keys, values, read, lengths, 9, 1.0), rtol=1e-6)


def test_the_exponential_is_good_to_two_parts_in_ten_million() -> None:
    x = -np.linspace(0, 86, 20001, dtype=np.float32)
    ours = np.asarray([kernels.exp(value) for value in x])
    np.testing.assert_allclose(ours, np.exp(x.astype(np.float64)), rtol=2e-7)


def test_rotation_and_storage_are_those_of_llama() -> None:
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rng = np.random.default_rng(0)
    heads, groups, depth, tokens = 4, 2, 6, 5
    projected = rng.normal(size=(tokens, (heads + 2 * groups) * depth)).astype(np.float32)
    angle = rng.normal(size=(9, depth // 2)).repeat(2, 0).reshape(9, 2, depth // 2).reshape(9, depth)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    positions, slots = rng.integers(0, 9, tokens), np.asarray([3, 0, 6, 1, 5])
    query = np.zeros((tokens, heads, depth), np.float32)
    keys, values = np.zeros((2, 8, groups, depth), np.float32)
    kernels.rotate_and_write(projected, cos, sin, positions, slots, query, keys, values)
    parts = torch.from_numpy(projected).view(tokens, -1, depth)
    q, k = apply_rotary_pos_emb(
        parts[:, :heads],
        parts[:, heads : heads + groups],
        torch.from_numpy(cos[positions]),
        torch.from_numpy(sin[positions]),
    )
    np.testing.assert_allclose(query, q.numpy(), atol=1e-6)
    np.testing.assert_allclose(keys[slots], k.numpy(), atol=1e-6)
    np.testing.assert_array_equal(values[slots], parts[:, heads + groups :].numpy())
    assert not keys[[2, 4, 7]].any()


def test_a_union_holds_every_slot_of_a_tree_once_with_its_distance() -> None:
    read = np.asarray([[4, 2, 1, 0], [5, 2, 1, 0], [9, 8, 0, 0], [6, 5, 2, 1], [1, 0, 0, 0]], np.int32)
    lengths = np.asarray([3, 3, 2, 4, 1], np.int32)
    zeros = np.zeros(5, np.int64)
    batch = Batch(
        zeros, zeros, read[:, 0].astype(np.int64), read, lengths, np.asarray([7, 7, 3, 7, 3]), zeros
    )
    union = unite(batch)
    assert len(set(union.place.tolist())) == 5
    rows = union.distance.shape[1]
    for n in range(5):
        tree, query = divmod(int(union.place[n]), rows)
        seen = {
            int(union.slots[tree, u]): int(union.distance[tree, query, u])
            for u in range(union.slots.shape[1])
            if union.distance[tree, query, u] != OUT_OF_SIGHT
        }
        assert seen == {int(slot): p for p, slot in enumerate(read[n, : lengths[n]])}
    used = {divmod(int(place), rows) for place in union.place}
    for tree, query in np.ndindex(*union.distance.shape[:2]):
        if (tree, query) not in used:
            assert union.distance[tree, query, 0] == -1
