"""Shapes by name: built on torch's meta device, they have the weights they claim."""

from __future__ import annotations

import pytest
import torch
from tiny import make_student
from transformers import AutoConfig, AutoModelForCausalLM

from tokenzero.mcts.errors import InputError
from tokenzero.policy.model_presets import MODEL_PRESETS, ModelShape, model_shape
from tokenzero.policy.student import Student


@pytest.mark.parametrize("name", MODEL_PRESETS)
@pytest.mark.parametrize("vocab_size", [None, 77])
def test_a_shape_has_the_weights_it_claims(name: str, vocab_size: int | None) -> None:
    shape = model_shape(name)
    fields = shape.architecture()
    config = AutoConfig.for_model(
        fields.pop("model_type"), vocab_size=vocab_size or shape.vocab_size, **fields
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters(vocab_size)
    millions = float(name.removesuffix("m"))
    assert shape.parameters() / 1e6 == pytest.approx(millions, rel=0.1)
    assert config.max_position_embeddings == shape.context


def test_the_ends_are_those_that_were_promised() -> None:
    small, large = MODEL_PRESETS["0.8m"], MODEL_PRESETS["124m"]
    assert (small.layers, small.heads, small.width) == (4, 4, 128)
    assert (large.layers, large.heads, large.width, large.context) == (12, 12, 768, 1024)
    assert large.vocab_size == 50_257
    assert round(large.parameters() / 1e6) == 124
    sizes = [shape.parameters() for shape in MODEL_PRESETS.values()]
    assert sizes == sorted(sizes)


def test_a_student_is_built_from_a_shape() -> None:
    shape = ModelShape(1, 2, 8, 12, 16, 10)
    student = Student.from_config(shape.architecture(positions=5), make_student().tokenizer, seed=1)
    assert student.parameters() == shape.parameters()
    assert student.max_length == 5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'125m' does not exist; did you mean '124m'\? there are 0\.8m"):
        model_shape("125m")
