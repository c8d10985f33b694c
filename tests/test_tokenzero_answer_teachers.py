"""Teachers at test time: who is heard, what they cost, and what cannot be one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_run import finished_run

import tokenzero
from tokenzero.answer_teachers import SHARE, ensemble_of
from tokenzero.answering import answer, build_method
from tokenzero.checkpoint import open_model
from tokenzero.cli import main
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.methods import METHODS, MethodConfig
from tokenzero.teachers import NgramTeacher, Proposal

PROMPT = "2 3 4 -> 10 :"


@pytest.fixture(scope="module")
def run() -> Path:
    return Path(finished_run())


@pytest.fixture(scope="module")
def table(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counted on one text, so that it is sure of what comes next."""
    student = open_model(run).parts.student
    ids = student.tokenizer("2 3 4 -> 10 : 4 * 3 = 12", add_special_tokens=True)["input_ids"]
    path = tmp_path_factory.mktemp("table") / "table.safetensors"
    NgramTeacher.fit([list(ids)] * 50, 3, student.vocab_size).save(path)
    return path


def test_a_search_hears_its_teachers_and_counts_their_tokens(run: Path, table: Path) -> None:
    alone = open_model(run)
    helped = open_model(run, teachers=[table, run], teacher_share=0.9)
    assert helped.parts.ensemble is not None
    assert helped.parts.ensemble.beta == 0.9
    assert helped.parts.ensemble.weights.of().tolist() == [0.5, 0.5]
    config = MethodConfig("puct", simulations=4)
    without = answer(alone, build_method(alone, config), PROMPT, 1)
    found = answer(helped, build_method(helped, config), PROMPT, 1)
    assert without.ledger["teacher_tokens"] == 0
    ensemble = helped.parts.ensemble
    assert (
        found.ledger["teacher_tokens"] == ensemble.tokens.total() > 0
    )  # of the model; a table forwards none
    assert ensemble.tokens["3-gram"] == 0
    assert min(ensemble.consulted.values()) > 0
    four = helped.parts.student.tokenizer.get_vocab()["4"]
    text = helped.parts.pieces.text([four]).strip()
    prior = {candidate.text: candidate.prior for candidate in found.candidates}
    assert prior[text] > {c.text: c.prior for c in without.candidates}.get(text, 0.0)
    assert prior[text] > 0.4  # 0.9 * half, by the table alone


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("puct", "gumbel", "frontier")])
def test_what_does_not_search_is_the_student_alone(run: Path, table: Path, name: str) -> None:
    alone, helped = open_model(run), open_model(run, teachers=[table], teacher_share=1.0)
    config = MethodConfig(name, n=2) if name != "greedy" else MethodConfig(name)
    texts = [answer(one, build_method(one, config), PROMPT, 3).tokens for one in (alone, helped)]
    assert texts[0] == texts[1]
    assert helped.parts.ensemble is not None
    assert helped.parts.ensemble.consulted.total() == 0


def test_from_python_and_from_the_command_line(
    run: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Mute:
        name = "mute"

        def propose(
            self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
        ) -> Proposal:
            return Proposal(np.full((len(sequences), k), -1), np.zeros((len(sequences), k), np.float32), 3)

    engine = tokenzero.load(run, teachers=[table, Mute()])
    found = engine.generate(PROMPT, tokenzero.Search(4, "puct"))
    assert found.ledger["teacher_tokens"] % 3 == 0
    assert found.ledger["teacher_tokens"] > 0
    asked = [str(run), "--prompt", PROMPT, "--method", "puct", "--simulations", "4", "--json"]
    assert main(["generate", *asked, "--teacher", str(table), "--teacher", str(run)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ledger"]["teacher_tokens"] > 0
    assert main(["generate", *asked, "--teacher-share", "0.5"]) == 2
    assert "name a teacher too" in capsys.readouterr().err
    assert main(["generate", *asked, "--teacher", str(run / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_model_with_another_tokenizer_is_bridged(run: Path, tmp_path: Path) -> None:
    spec = {"kind": "characters", "alphabet": "0123456789 +-*/=>:(),"}
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "max_position_embeddings": 128}
    other = Student.from_config({"model_type": "llama", **shape}, from_spec(spec), seed=0)
    other.save(tmp_path / "other")
    opened = open_model(run, teachers=[tmp_path / "other"])
    assert opened.parts.ensemble is not None
    assert opened.parts.ensemble.beta == SHARE
    found = answer(opened, build_method(opened, MethodConfig("puct", simulations=2)), PROMPT, 1)
    assert found.ledger["teacher_tokens"] > 0


def test_what_is_no_teacher_is_refused(run: Path, table: Path, tmp_path: Path) -> None:
    student = open_model(run).parts.student
    assert ensemble_of([], student) is None
    with pytest.raises(InputError, match="all called differently"):
        ensemble_of([table, table], student)
    with pytest.raises(InputError, match="beta is 2"):
        ensemble_of([table], student, 2.0)
    small = NgramTeacher.fit([[0, 1, 2]], 2, 5)
    small.save(tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="knows 5 tokens and the student"):
        ensemble_of([tmp_path / "small.safetensors"], student)
    (tmp_path / "text.txt").write_text("no table")
    with pytest.raises(InputError, match=r"text\.txt"):
        ensemble_of([tmp_path / "text.txt"], student)
