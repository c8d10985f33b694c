"""Training on a corpus: what a batch is, equal gradients however it is split, resume, and held-out scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig, TokenizerConfig
from tokenzero.policy.corpora.corpus import Corpus, open_corpus
from tokenzero.policy.language_score import score_text
from tokenzero.policy.student import Student
from tokenzero.policy.train_on_corpus import CorpusBatches, CorpusTrainingConfig, pretrain_on_corpus
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.training_loop import METRICS_FILE, part_losses

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
CONFIG = CorpusTrainingConfig(
    steps=6,
    context=16,
    evaluate_every=4,
    evaluated=40,
    checkpoint_every=2,
    optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, batch_size=8),
)


def make_corpus(tmp_path: Path, text: str = "the cat sat on the mat. é\n" * 60, **options: Any) -> Corpus:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    return open_corpus(
        CorpusConfig(path=str(tmp_path / "text.txt"), cache=str(tmp_path / "cache"), **options)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def make_model(corpus: Corpus) -> Student:
    return Student.from_config(LLAMA, corpus.tokenizer, seed=2)


def weights(student: Student) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in student.model.parameters()])


def test_a_batch_is_windows_of_the_training_split_and_their_next_tokens(corpus: Corpus) -> None:
    forward = TrainingForward(make_model(corpus))
    tokens = np.arange(200, 300).astype(np.uint16)
    config = replace(CONFIG, optimizer=replace(CONFIG.optimizer, accumulate=2))
    parts = CorpusBatches(tokens, config, 3).parts(1, forward)
    assert [tuple(part.ids.shape) for part in parts] == [(4, 16), (4, 16)]
    for part in parts:
        assert (part.ids[:, 1:] == part.ids[:, :-1] + 1).all()
        assert (part.targets == part.ids.flatten()[part.cells] + 1).all()
        assert part.cells.tolist() == list(range(64))
        assert part.positions is None
    again = CorpusBatches(tokens, config, 3).parts(1, forward)
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(parts, again, strict=True))
    other_step = CorpusBatches(tokens, config, 3).parts(2, forward)
    assert not torch.equal(parts[0].ids, other_step[0].ids)


def test_accumulated_gradients_are_those_of_the_whole_batch(corpus: Corpus) -> None:
    def gradient(parts: int) -> torch.Tensor:
        student = make_model(corpus)
        config = replace(CONFIG, optimizer=replace(CONFIG.optimizer, accumulate=parts))
        forward = TrainingForward(student)
        seen: list[float] = []
        for loss in part_losses(
            forward, CorpusBatches(corpus.tokens("train"), config, 1).parts(0, forward), seen
        ):
            (loss / parts).backward()
        assert len(seen) == parts
        grads = [p.grad for p in student.model.parameters()]
        return torch.cat([g.flatten() for g in grads if g is not None])

    torch.testing.assert_close(gradient(4), gradient(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_an_interrupted_training_ends_with_the_same_bits(corpus: Corpus, tmp_path: Path, stop: int) -> None:
    whole, again = make_model(corpus), make_model(corpus)
    expected = pretrain_on_corpus(whole, corpus, CONFIG, 1)

    def interrupt(step: int, loss: float) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_on_corpus(make_model(corpus), corpus, CONFIG, 1, directory=tmp_path / "m", on_step=interrupt)
    steps: list[int] = []
    found = pretrain_on_corpus(
        again, corpus, CONFIG, 1, directory=tmp_path / "m", on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == (stop - 1) // 2 * 2 + 1, "it goes on from the last checkpoint"
    assert torch.equal(weights(whole), weights(again))
    assert found.records == expected.records
    lines = (tmp_path / "m" / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected.records


def test_scores_on_the_way_are_of_a_part_and_the_last_of_all(corpus: Corpus) -> None:
    student = make_model(corpus)
    heard: list[dict[str, Any]] = []
    held_out = corpus.tokens("validation")
    part: list[float] = []

    def look(step: int, loss: float) -> None:
        if step == 4:
            part.append(score_text(student, held_out[:40], 16).nats_per_token)

    progress = pretrain_on_corpus(student, corpus, CONFIG, 1, on_step=look, on_score=heard.append)
    assert heard == progress.records
    assert [record["step"] for record in heard] == [4, 6]
    score = score_text(student, held_out, 16, corpus.characters("validation"))
    assert heard[0]["nats_per_token"] == part[0]
    assert heard[1]["nats_per_token"] == score.nats_per_token
    assert heard[1]["nats_per_character"] == score.nats_per_character == score.nats_per_token
    assert heard[1]["accuracy"] == score.accuracy
    assert [record["evaluated"] for record in heard] == [39, len(held_out) - 1]
    assert heard[1]["perplexity"] == score.perplexity


def test_characters_of_a_part_are_those_its_tokens_spell(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, tokenizer=TokenizerConfig(kind="bpe", vocab_size=290))
    student = make_model(corpus)
    first = pretrain_on_corpus(student, corpus, replace(CONFIG, steps=5), 1).records[0]
    text = corpus.tokenizer.decode(corpus.tokens("validation")[:40].tolist())
    assert len(text) > 40, "a token is longer than a character"
    ratio = first["nats_per_character"] / first["nats_per_token"]
    assert ratio == pytest.approx(40 / len(text))


def test_it_learns_the_text(corpus: Corpus) -> None:
    student = make_model(corpus)
    config = replace(CONFIG, steps=80, evaluate_every=0, optimizer=replace(CONFIG.optimizer, ema=0.9))
    record = pretrain_on_corpus(student, corpus, config, 1).records[-1]
    assert record["nats_per_character"] < 0.9 < 2.5, "below its characters' entropy"
    assert record["accuracy"] > 0.75


def test_without_held_out_text_there_is_the_loss_alone(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, validation_share=0.0)
    records = pretrain_on_corpus(make_model(corpus), corpus, CONFIG, 1).records
    assert [set(record) for record in records] == [{"step", "loss"}] * 2


def test_a_training_is_not_gone_on_with_on_another_text(corpus: Corpus, tmp_path: Path) -> None:
    pretrain_on_corpus(make_model(corpus), corpus, CONFIG, 1, directory=tmp_path / "m")
    other = make_corpus(tmp_path, "the mat sat on the cat. é\n" * 60)
    with pytest.raises(InputError, match="begun on other data"):
        pretrain_on_corpus(make_model(other), other, replace(CONFIG, steps=8), 1, directory=tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 33}, "context is 33, the model takes 32 tokens"),
        ({"context": 0}, "context is 0"),
        ({"evaluate_every": -1}, "evaluate_every is -1"),
        ({"evaluated": 1}, "evaluated is 1"),
        ({"steps": -1}, "steps is -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(corpus: Corpus, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pretrain_on_corpus(make_model(corpus), corpus, replace(CONFIG, **change), 1)
