"""Packed and padded rows against one plain forward per sequence: logits, hidden states and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, LETTERS, make_student, plain

from tokenzero.policy import onednn_linear
from tokenzero.policy.pretrain import clone
from tokenzero.policy.sequence_packing import Layout, pack, place
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.policy.training_forward import CELLS, TrainingForward

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


def student_of(family: str) -> Student:
    if family in FAMILIES:
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
