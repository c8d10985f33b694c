"""Packed and padded rows against one plain forward per sequence: logits, hidden states and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, LETTERS, MORE_FAMILIES, make_student, plain

from tokenzero.policy import onednn_linear, training_forward
from tokenzero.policy.pretrain import clone
from tokenzero.policy.sequence_packing import Layout, pack, place
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.policy.training_forward import CELLS, TrainingForward
from tokenzero.policy.tree_packing import PackedTrees, Way, forest, unfold

MORE: dict[str, dict[str, Any]] = {
    "qwen2": {**FAMILIES["llama-gqa"], "model_type": "qwen2"},
    "olmo2": {**FAMILIES["llama-gqa"], "model_type": "olmo2"},
    "cohere": {**FAMILIES["llama-gqa"], "model_type": "cohere", "logit_scale": 0.25},
    "gemma2": {
        **FAMILIES["llama-gqa"],
        "model_type": "gemma2",
        "head_dim": 8,
        "sliding_window": 4,
        "final_logit_softcapping": 2.0,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
}
PACKS = ["llama-mha", "llama-gqa", "qwen2", "qwen3", "mistral", "gpt2", "olmo2", "cohere", "gemma2"]
SEQUENCES = [[1, 5, 6, 7, 4, 9, 8, 4, 5, 5, 6, 2], [1, 8, 4], [1, 4, 4, 6, 2, 7, 7], [1], [1, 9, 5, 5, 2]]


# Depths 0 to 9, beyond the sliding windows of 4; siblings at the root, below it and at the end; a chain and a
# single token beside it.
PARENTS = [
    np.asarray(parents)
    for parents in (
        [-1, 0, 1, 2, 3, 3, 1, 6, 4, 8, 9, 10, 11, 5, 13, 13, 7, 16, 12, 12],
        [-1, 0, 1, 2, 3, 4, 5, 6],
        [-1],
        [-1, 0, 0, 0, 2, 2],
        [-1, 0, 1, 1],
    )
]
IDS = [np.random.default_rng(5).integers(0, 9, size=len(parents)) for parents in PARENTS]
COMPILED = [*FAMILIES, "qwen2", "gpt-neox", "gemma3", "phi3", "opt", "olmo2", "cohere"]
MASKED = ["gemma2", "gptj", "falcon"]
UNFOLDED = ["mpt", "mamba", "bloom"]


def student_of(family: str) -> Student:
    if family in FAMILIES or family in MORE_FAMILIES:
        return make_student(family)
    tokenizer = from_spec({"kind": "characters", "alphabet": LETTERS})
    return Student.from_config(MORE[family], tokenizer, seed=3)


def run(forward: TrainingForward, layout: Layout, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ids, positions = place(SEQUENCES, layout, fill=0)
    given = torch.from_numpy(positions) if layout.packed else None
    return forward(torch.from_numpy(ids), given, wanted)


def cells_of(layout: Layout) -> torch.Tensor:
    """Cells of every token, sequence by sequence."""
    both = zip(layout.starts.tolist(), SEQUENCES, strict=True)
    return torch.tensor([start + i for start, sequence in both for i in range(len(sequence))])


LENGTHS = np.asarray([len(sequence) for sequence in SEQUENCES])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("family", PACKS)
def test_packed_rows_are_the_sequences_one_by_one(family: str, double: bool) -> None:
    student, truth = student_of(family), student_of(family)
    if double:
        student.model.double()
        truth.model.double()
    forward = TrainingForward(student)
    assert forward.packs
    layout = pack(LENGTHS)
    assert layout.packed
    cells = cells_of(layout)
    logits, hidden = run(forward, layout, cells)
    # Most families compute their norms in float32 whatever the type; GPT-2 alone is double throughout.
    tolerance = (1e-9 if family == "gpt2" else 2e-6) if double else 2e-5
    outputs = [
        truth.model(input_ids=torch.tensor([s]), use_cache=False, output_hidden_states=True)
        for s in SEQUENCES
    ]
    expected = torch.cat([output.logits[0] for output in outputs])
    features = torch.cat([output.hidden_states[-1][0] for output in outputs])
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(hidden[cells], features, atol=tolerance, rtol=tolerance)

    mask = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=logits.dtype)
    (logits * mask).sum().backward()  # type: ignore[no-untyped-call]
    (expected * mask).sum().backward()  # type: ignore[no-untyped-call]
    for mine, true in zip(student.model.parameters(), truth.model.parameters(), strict=True):
        assert mine.grad is not None
        assert true.grad is not None
        scale = max(1.0, float(true.grad.abs().max()))
        torch.testing.assert_close(mine.grad / scale, true.grad / scale, atol=tolerance, rtol=0)


def test_a_family_that_cannot_be_packed_is_padded() -> None:
    """Bloom knows no positions: what lies to the left of a sequence in its row would be seen."""
    student, truth = student_of("bloom"), student_of("bloom")
    forward = TrainingForward(student)
    assert not forward.packs
    layout = forward.layout(LENGTHS)
    assert not layout.packed
    logits, _ = run(forward, layout, cells_of(layout))
    expected = torch.cat([truth.forward(torch.tensor([s])).logits[0] for s in SEQUENCES])
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-5)


def test_only_wanted_cells_meet_the_output_embedding() -> None:
    student = make_student()
    forward = TrainingForward(student)
    layout = pack(LENGTHS)
    cells = cells_of(layout)
    seen: list[tuple[int, ...]] = []
    head: Any = student.model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    everything, _ = run(forward, layout, cells)
    some, hidden = run(forward, layout, cells[[3, 20]])
    none, _ = run(forward, layout, cells[:0])
    read = (CELLS, CELLS, 0) if forward.fast else (len(cells), 2, 0)
    assert seen == [(1, count, student.vocab_size) for count in read]
    assert (len(everything), len(some)) == (len(cells), 2)
    torch.testing.assert_close(some, everything[[3, 20]], atol=1e-5, rtol=1e-5)
    assert hidden.shape == (layout.cells, student.hidden_size)
    assert none.shape == (0, student.vocab_size)


def test_packing_is_used_where_it_saves() -> None:
    forward = TrainingForward(make_student())
    assert not forward.layout(np.asarray([20] * 8)).packed
    assert not forward.layout(np.asarray([20] * 7 + [12])).packed, "nothing to share a row with"
    packed = forward.layout(np.asarray([20, 8, 12, 6, 6, 6]))
    assert packed.packed
    assert packed.rows == 3


def test_other_forwards_of_the_model_go_on_as_before() -> None:
    student = make_student()
    tokens = SEQUENCES[0]
    before, _ = plain(student, tokens)
    forward = TrainingForward(student)
    run(forward, pack(LENGTHS), torch.tensor([0]))
    assert student.forward(torch.tensor([tokens])).logits.shape == (1, len(tokens), student.vocab_size)
    torch.testing.assert_close(plain(student, tokens)[0], before, atol=1e-5, rtol=1e-5)
    with pytest.raises(IndexError):
        run(forward, pack(LENGTHS), torch.tensor([10**6]))
    assert student.forward(torch.tensor([tokens])).logits.shape == (1, len(tokens), student.vocab_size)


def test_a_clone_in_training_does_not_change_how_its_origin_computes() -> None:
    student = make_student()
    before = student.model.config._attn_implementation
    TrainingForward(clone(student))
    assert student.model.config._attn_implementation == before
    assert all("forward" not in vars(module) for module in student.model.modules())


@pytest.mark.skipif(not onednn_linear.available(), reason="torch was built without oneDNN")
def test_fast_layers_that_compute_something_else_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainingForward(make_student()).fast
    own = onednn_linear.linear
    monkeypatch.setattr(onednn_linear, "linear", lambda x, w, b: own(x, w, b) * 1.01)
    student, truth = make_student(), make_student()
    before = student.model.config._attn_implementation
    forward = TrainingForward(student)
    assert not forward.fast
    assert forward.packs
    assert student.model.config._attn_implementation == before
    tokens = SEQUENCES[0]
    assert torch.equal(plain(student, tokens)[0], plain(truth, tokens)[0])


def read(forward: TrainingForward, packed: PackedTrees) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [T, V] and hidden states [T, D] of every token of the trees."""
    wanted = torch.from_numpy(packed.cells)
    logits, hidden = forward(packed.ids, packed.positions, wanted, packed.mask)
    return logits, hidden[wanted]


def one_by_one(student: Student) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from one plain forward of each leaf's path, every token read where it stands first."""
    seen: list[torch.Tensor] = []
    head: Any = student.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    chains = unfold(forest(PARENTS))
    paths = np.split(np.concatenate(IDS)[chains.tokens], np.cumsum(chains.lengths)[:-1])
    logits = [student.model(input_ids=torch.from_numpy(p)[None], use_cache=False).logits[0] for p in paths]
    hook.remove()
    at = torch.from_numpy(chains.read)
    return torch.cat(logits)[at], torch.cat(seen)[at]


def loss_of(logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with soft targets at every token, and a squared error read off the hidden states."""
    draw = torch.Generator().manual_seed(1)
    target = torch.softmax(torch.randn(logits.shape, generator=draw), 1).to(logits.dtype)
    weight, value = torch.randn(hidden.shape[1], generator=draw), torch.randn(len(hidden), generator=draw)
    error = hidden @ weight.to(hidden.dtype) / hidden.shape[1] - value.to(hidden.dtype)
    policy = -(target * torch.log_softmax(logits, 1)).sum(1).mean()
    return policy + error.square().mean().to(policy.dtype)


def check_trees(family: str, way: Way, double: bool, tolerance: float) -> None:
    student, truth = student_of(family), student_of(family)
    if double:
        student.model.double()
        truth.model.double()
    forward = TrainingForward(student)
    assert forward.way == way
    packed = forward.pack(IDS, PARENTS)
    tokens = sum(map(len, IDS))
    assert len(np.unique(packed.cells)) == tokens
    if way == Way.PATHS:
        assert packed.ids.numel() == 128, "each token once, and what rounds them up"
    elif way == Way.MASK:
        assert packed.ids.shape == (2, 20)
    logits, hidden = read(forward, packed)
    expected, features = one_by_one(truth)
    torch.testing.assert_close(logits, expected.to(logits.dtype), atol=4 * tolerance, rtol=tolerance)
    mine, true = loss_of(logits, hidden), loss_of(expected.to(logits.dtype), features)
    torch.testing.assert_close(mine, true, atol=0, rtol=tolerance)
    mine.backward()  # type: ignore[no-untyped-call]
    true.backward()  # type: ignore[no-untyped-call]
    # A bias of keys moves all scores of a softmax alike: its true gradient is 0, so the model's is the scale.
    scale = max(float(p.grad.abs().max()) for p in truth.model.parameters() if p.grad is not None)
    for one, other in zip(student.model.parameters(), truth.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad / scale, other.grad / scale, atol=tolerance, rtol=0)


WAYS = (
    [(f, Way.PATHS) for f in COMPILED] + [(f, Way.MASK) for f in MASKED] + [(f, Way.CHAINS) for f in UNFOLDED]
)


@pytest.mark.parametrize(("family", "way"), WAYS)
def test_a_packed_tree_is_its_paths_one_by_one(family: str, way: Way) -> None:
    """Loss and gradients to 1e-5, whichever way the family is served."""
    check_trees(family, way, double=False, tolerance=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2", "gpt-neox", "gemma3", "opt", "gemma2"])
def test_a_masked_tree_is_its_paths_to_double_precision(family: str) -> None:
    # Norms and softmax are computed in float32 whatever the type by most families.
    check_trees(family, Way.MASK, double=True, tolerance=1e-10 if family == "gpt2" else 2e-6)


def test_every_family_of_the_tests_has_a_way() -> None:
    assert {*COMPILED, *MASKED, *UNFOLDED} == {*FAMILIES, *MORE_FAMILIES, *MORE}


def test_chains_are_laid_out_as_sequences() -> None:
    """The same bits as without any tree: no mask, and packed where that saves."""
    parents = [np.arange(-1, len(sequence) - 1) for sequence in SEQUENCES]
    forward = TrainingForward(make_student())
    packed = forward.pack([np.asarray(sequence) for sequence in SEQUENCES], parents)
    layout = forward.layout(LENGTHS)
    ids, positions = place(SEQUENCES, layout, 0)
    assert packed.mask is None
    assert packed.positions is not None
    assert np.array_equal(packed.ids, ids)
    assert np.array_equal(packed.positions, positions)
    assert packed.cells.tolist() == cells_of(layout).tolist()
    even = forward.pack([np.asarray([1, 5])] * 3, [np.asarray([-1, 0])] * 3)
    assert even.mask is even.positions is None
    assert even.ids.tolist() == [[1, 5]] * 3


def test_the_same_trees_give_the_same_bits() -> None:
    found = []
    for _ in range(2):
        student = make_student()
        forward = TrainingForward(student)
        loss_of(*read(forward, forward.pack(IDS, PARENTS))).backward()  # type: ignore[no-untyped-call]
        found.append([p.grad for p in student.model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_models_that_share_layouts_read_trees_in_a_way_that_both_know() -> None:
    one, other, unfolded = (TrainingForward(make_student(f)) for f in ("llama-gqa", "gpt2", "mpt"))
    one.share_layouts(other)
    assert (one.way, one.packs) == (other.way, other.packs) == (Way.PATHS, True)
    one.share_layouts(unfolded)
    assert (one.way, one.packs) == (unfolded.way, unfolded.packs) == (Way.CHAINS, False)
    packed = one.pack(IDS, PARENTS)
    assert packed.mask is packed.positions is None
    expected, _ = one_by_one(student_of("mpt"))
    torch.testing.assert_close(read(unfolded, packed)[0], expected, atol=2e-5, rtol=1e-5)


def test_a_planted_wrong_ancestor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    paths_of, mask_of = training_forward.paths_of, training_forward.mask_of

    def wrong_path(*arguments: Any) -> Any:
        paths = paths_of(*arguments)
        paths[7, 2] = paths[7, 3]
        return paths

    def wrong_mask(*arguments: Any) -> Any:
        mask = mask_of(*arguments)
        mask[0, 7, 2] = False
        return mask

    monkeypatch.setattr(training_forward, "paths_of", wrong_path)
    assert TrainingForward(make_student()).way == Way.MASK
    monkeypatch.setattr(training_forward, "mask_of", wrong_mask)
    assert TrainingForward(make_student()).way == Way.CHAINS


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_window_that_is_ignored_is_seen(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(TrainingForward, "_windows", lambda self: (set(), None))
    student = make_student(family)
    student.model.double()
    assert TrainingForward(student).way == Way.CHAINS


def test_models_with_hardly_any_positions_can_be_tried() -> None:
    student = make_student()
    student.model.config.max_position_embeddings = 1
    assert TrainingForward(student).way == Way.PATHS
