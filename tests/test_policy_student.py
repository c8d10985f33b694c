"""The student: building, saving, loading, and errors a user can mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES, LETTERS, make_student, plain
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.value import ValueHead


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_gives_the_logits_and_what_the_output_embedding_reads(family: str) -> None:
    student = make_student(family)
    tokens = [1, 5, 7, 4]
    logits, hidden = plain(student, tokens)
    with torch.no_grad():
        output = student.forward(torch.tensor([tokens]))
        head: Any = student.model.get_output_embeddings()
        torch.testing.assert_close(head(output.hidden[0, -1]), logits)
    torch.testing.assert_close(output.logits[0, -1], logits)
    torch.testing.assert_close(output.hidden[0, -1], hidden)
    assert output.logits.shape == (1, 4, student.vocab_size)
    assert output.hidden.shape == (1, 4, student.hidden_size)


def test_sizes_are_those_of_the_model_and_the_tokenizer() -> None:
    student = make_student("llama-gqa")
    assert (student.vocab_size, student.hidden_size, student.max_length) == (len(LETTERS) + 4, 32, 32)
    assert make_student("gpt2").max_length == 32
    assert (student.eos_id, student.pad_id) == (
        student.tokenizer.eos_token_id,
        student.tokenizer.pad_token_id,
    )
    assert student.parameters() == sum(p.numel() for p in student.model.parameters())
    assert not student.model.training


def test_the_seed_decides_the_weights_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = make_student(seed=1), make_student(seed=1), make_student(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.model.parameters(), same.model.parameters(), other.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_a_saved_student_is_a_hugging_face_directory_with_the_same_bits(tmp_path: Path) -> None:
    student = make_student("llama-gqa")
    student.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded = Student.load(tmp_path)
    for name, tensor in student.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == student.tokenizer.get_vocab()
    assert not loaded.model.training
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_loaded_weights_lie_where_fresh_ones_would(tmp_path: Path) -> None:
    """Products over memory that is aligned otherwise differ in their last bits on some processors."""
    make_student().save(tmp_path)
    ValueHead(32).save(tmp_path)
    parameters = [*Student.load(tmp_path).model.parameters(), *ValueHead.load(tmp_path).parameters()]
    assert {parameter.data_ptr() % 64 for parameter in parameters} == {0}


def test_half_precision_weights_become_float32_on_the_cpu(tmp_path: Path) -> None:
    student = make_student()
    student.model.to(torch.bfloat16)
    student.save(tmp_path)
    assert next(Student.load(tmp_path).model.parameters()).dtype == torch.float32


def test_logits_come_back_as_float32() -> None:
    student = make_student()
    student.model.to(torch.bfloat16)
    with torch.no_grad():
        assert student.forward(torch.tensor([[1, 5]])).logits.dtype == torch.float32


def test_changed_weights_are_counted() -> None:
    student = make_student()
    student.weights_changed()
    student.weights_changed()
    assert student.version == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model_type is None"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "llama", "hiden_size": 8}, "did you mean 'hidden_size'"),
        ({"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"model_type": "llama", "hidden_size": "wide"}, "expected int"),
    ],
)
def test_a_wrong_architecture_says_what_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Student.from_config(config, character_tokenizer("ab"), seed=0)
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        Student.load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Student.load(tmp_path / "nowhere")


@pytest.mark.parametrize("victim", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_an_input_error(tmp_path: Path, victim: str) -> None:
    make_student().save(tmp_path)
    content = (tmp_path / victim).read_bytes()
    (tmp_path / victim).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError):
        Student.load(tmp_path)


def test_a_model_without_an_output_embedding_is_refused() -> None:
    student = make_student()

    class Headless:
        def get_output_embeddings(self) -> None:
            return None

    headless: Any = Headless()
    with pytest.raises(InputError, match="no output embedding"):
        Student(headless, student.tokenizer)
    assert isinstance(student.model.get_output_embeddings(), nn.Module)
