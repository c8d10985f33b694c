"""The model teacher against plain forwards; its tokenizer compared; its end token carried over; its cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import character_tokenizer, train_bpe
from tokenzero.teachers import local_model
from tokenzero.teachers.base import Teacher
from tokenzero.teachers.local_model import ModelConfig, ModelTeacher, difference_of_tokenizers
from tokenzero.teachers.prefix_states import PrefixStates

SEQUENCES = [[1, 5, 6], [1, 4, 4, 7, 9], [1, 5, 6, 6]]


def make_teacher(student: Student, temperature: float = 1.0, eos: int | None = None) -> ModelTeacher:
    return ModelTeacher("expert", student, PrefixStates(student, tree_engine(student)), temperature, eos)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_top_k_of_the_whole_distribution(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "_LOGITS", 20)  # two rows a batch
    student = make_student()
    teacher: Teacher = make_teacher(student, temperature)
    proposal = teacher.propose(SEQUENCES, 4)
    assert proposal.tokens == 3 + 4 + 1
    for row, sequence in enumerate(SEQUENCES):
        probs = (plain(student, sequence)[0] / temperature).softmax(-1)
        best = probs.argsort(descending=True)[:4]
        assert proposal.actions[row].tolist() == best.tolist()
        np.testing.assert_allclose(proposal.probs[row], probs[best].numpy(), atol=1e-5)
    assert teacher.propose(SEQUENCES, 99).actions[:, 10:].tolist() == [[-1] * 89] * 3


def test_a_sequence_that_does_not_fit_is_passed_over() -> None:
    student = make_student()
    proposal = make_teacher(student).propose([[], [1, 4], [1] * student.max_length], 2)
    assert (proposal.actions[[0, 2]] == -1).all()
    assert (proposal.actions[1] >= 0).all()
    assert proposal.tokens == 2
    assert make_teacher(student).propose([], 3).actions.shape == (0, 3)


def test_another_end_token_is_carried_over() -> None:
    student = make_student()
    own = plain(student, [1, 5])[0].softmax(-1)
    proposal = make_teacher(student, eos=9).propose([[1, 5]], 10)
    probs = dict(zip(proposal.actions[0].tolist(), proposal.probs[0].tolist(), strict=True))
    assert probs[9] == pytest.approx(float(own[9] + own[2]), abs=1e-5)
    assert 2 not in probs


def test_damaged_weights_are_named() -> None:
    student = make_student()
    with torch.no_grad():
        next(student.model.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="expert: its output is not a number"):
        make_teacher(student).propose([[1, 4]], 2)


def test_closing_lets_go() -> None:
    student = make_student()
    engine = tree_engine(student)
    teacher = ModelTeacher("expert", student, PrefixStates(student, engine))
    teacher.propose(SEQUENCES, 2)
    teacher.close()
    assert engine.known == 0


def test_opening_from_a_directory(tmp_path: Path) -> None:
    student = make_student(seed=8)
    student.save(tmp_path / "expert")
    config = ModelConfig(load=str(tmp_path / "expert"), memory_mb=1.0)
    teacher = ModelTeacher.open(config, make_student().tokenizer)
    assert teacher.name == "expert"
    expected = plain(student, [1, 5])[0].softmax(-1)
    assert teacher.propose([[1, 5]], 1).probs[0, 0] == pytest.approx(float(expected.max()), abs=1e-5)


def test_another_tokenizer_is_refused_with_what_differs(tmp_path: Path) -> None:
    make_student().save(tmp_path)
    with pytest.raises(InputError, match=r"teacher x has another tokenizer.*kind bridge"):
        ModelTeacher.open(ModelConfig(load=str(tmp_path), label="x"), character_tokenizer("abc"))


def test_what_differs_between_tokenizers() -> None:
    abc = character_tokenizer("abc")
    assert difference_of_tokenizers(abc, character_tokenizer("abc")) == ""
    swapped = difference_of_tokenizers(abc, character_tokenizer("acb"))
    assert swapped == "7 and 7 tokens; 'b' is token 5 here and token 6 there"
    assert "'c' is token 6 here and absent there" in difference_of_tokenizers(abc, character_tokenizer("abd"))
    assert "'d' is token 7 there and absent here" in difference_of_tokenizers(
        abc, character_tokenizer("abcd")
    )
    assert difference_of_tokenizers(abc, train_bpe(["abc"], 260))


@pytest.mark.parametrize(
    "wrong",
    [{"load": ""}, {"temperature": 0.0}, {"temperature": float("nan")}, {"memory_mb": 0.0}, {"states": 0}],
)
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ModelConfig(**({"load": "x"} | wrong))  # type: ignore[arg-type]
