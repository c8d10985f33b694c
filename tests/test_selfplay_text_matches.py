"""Matches of checkpoints on text: the trained beats the random, a copy is even, loops lose their claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import Corpus, CorpusConfig, open_corpus
from tokenzero.policy.corpora.windows import windows
from tokenzero.policy.pretrain import Example, PretrainConfig, clone, pretrain
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.elo import ratings
from tokenzero.selfplay.text import matches
from tokenzero.selfplay.text.config import MatchConfig
from tokenzero.selfplay.text.matches import play_matches
from tokenzero.teachers import NgramTeacher

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
}
CONFIG = MatchConfig(prompts=40, prompt_tokens=6, tokens=20, order=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    place = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    nouns, verbs = ["the cat", "a dog", "my aunt", "the king"], ["sees", "likes", "fears", "leaves"]
    lines = [f"{rng.choice(nouns)} {rng.choice(verbs)} {rng.choice(nouns)}." for _ in range(600)]
    (place / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    return open_corpus(
        CorpusConfig(path=str(place / "text.txt"), validation_share=0.3, cache=str(place / "cache"))
    )


@pytest.fixture(scope="module")
def untrained(corpus: Corpus) -> Student:
    return Student.from_config(LLAMA, corpus.tokenizer, seed=1)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, untrained: Student) -> Student:
    student = clone(untrained)
    rows = windows(corpus.tokens("train"), 200, 31, np.random.default_rng(3))
    config = PretrainConfig(
        steps=150, optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, batch_size=16, ema=0.9)
    )
    pretrain(student, [Example(row.tolist(), 1) for row in rows], config, 5)
    return student


def _saved(student: Student, directory: Path) -> Path:
    directory.mkdir()
    student.save(directory)
    return directory


def test_a_trained_checkpoint_beats_a_random_one(
    corpus: Corpus, trained: Student, untrained: Student, tmp_path: Path
) -> None:
    opponents = {0: _saved(untrained, tmp_path / "random"), 3: _saved(trained, tmp_path / "copy")}
    found = play_matches(trained, opponents, corpus, CONFIG, 11)
    assert [pairing[:2] for pairing in found] == [(4, 0), (4, 3)]
    against_random, against_copy = found
    assert sum(against_random[2:]) == sum(against_copy[2:]) == 40
    assert against_random.wins >= 36
    assert against_copy.ties == 40  # the same weights and the same streams write the same texts
    assert play_matches(trained, opponents, corpus, CONFIG, 11) == found
    elo = ratings(found)
    assert elo[4].elo > elo[0].elo + 100
    assert abs(elo[4].elo - elo[3].elo) < 60


def test_a_copy_that_draws_otherwise_is_about_even(
    corpus: Corpus, trained: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = matches._written, iter(range(1, 10))
    monkeypatch.setattr(
        matches,
        "_written",
        lambda student, prompts, tokens, seed: write(student, prompts, tokens, next(calls)),
    )
    (pairing,) = play_matches(trained, {0: _saved(trained, tmp_path / "copy")}, corpus, CONFIG, 11)
    assert pairing.ties < 10
    assert abs(pairing.wins - pairing.losses) <= 20  # three standard deviations of 40 fair games


def test_a_loop_has_no_claim() -> None:
    table = NgramTeacher.fit([[1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5, 6]], 2, 8)
    loop, plain = [1, 2, 3, 1, 2, 3, 1, 2, 3], [4, 5, 6]
    free = matches._claims(table, [[3]] * 3, [loop, plain, []], 9)
    assert free[0] > free[1]  # likelier, as loops are
    assert free[2] == -np.inf
    held = matches._claims(table, [[3]] * 2, [loop, plain], 5)
    assert held.tolist() == [-np.inf, free[1]]
    expected = [np.log(table.distribution([before])[token]) for before, token in ((3, 4), (4, 5), (5, 6))]
    assert free[1] == pytest.approx(np.mean(expected))


def test_what_cannot_be_matched_is_refused(corpus: Corpus, trained: Student, tmp_path: Path) -> None:
    assert play_matches(trained, {}, corpus, CONFIG, 1) == []
    copy = _saved(trained, tmp_path / "copy")
    with pytest.raises(InputError, match="student and opponent"):
        play_matches(trained, {2: copy}, corpus, CONFIG, 1, number=2)
    with pytest.raises(InputError, match="hold out more"):
        play_matches(trained, {2: copy}, corpus, MatchConfig(tokens=100_000), 1)
