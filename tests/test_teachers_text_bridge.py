"""The bridge against the exact next-character distribution of a finite language, known string by string."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import FAMILIES, plain
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import (
    byte_fallback_tokenizer,
    character_tokenizer,
    train_bpe,
    word_tokenizer,
)
from tokenzero.teachers.base import Teacher
from tokenzero.teachers.text_bridge import BridgeConfig, BridgeTeacher
from tokenzero.teachers.token_bytes import spell, token_bytes

ALPHABET = "ab "
LENGTH = 6
CHARACTERS = character_tokenizer(ALPHABET)
BPE = train_bpe(["abab aab abba ab\nabab ba aab", "bbb aaa bab abab abba"] * 9, 275)
EOS = 2


def language(seed: int = 0) -> dict[str, float]:
    """Every string of LENGTH characters or one less, with random probabilities."""
    rng = np.random.default_rng(seed)
    texts = ["".join(t) for n in (LENGTH - 1, LENGTH) for t in itertools.product(ALPHABET, repeat=n)]
    mass = rng.dirichlet(np.full(len(texts), 0.2))
    return dict(zip(texts, mass.tolist(), strict=True))


class Table:
    """The token model that a language and a tokenizer make: each string in its one cut, then the end."""

    max_length = 99

    def __init__(self, texts: dict[str, float], tokenizer: PreTrainedTokenizerFast) -> None:
        self.forwarded = 0
        self.asked: list[tuple[int, ...]] = []
        self.mass: dict[tuple[int, ...], float] = {}
        self.vocab_size = len(tokenizer)
        for text, mass in texts.items():
            path = (1, *tokenizer(text, add_special_tokens=False)["input_ids"], EOS)
            for length in range(1, len(path) + 1):
                self.mass[path[:length]] = self.mass.get(path[:length], 0.0) + mass

    def __call__(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        probs = np.zeros((len(sequences), self.vocab_size), np.float32)
        for row, sequence in enumerate(map(tuple, sequences)):
            self.forwarded += 1
            self.asked.append(sequence)
            whole = self.mass.get(sequence, 0.0)
            for token in range(self.vocab_size if whole else 0):
                probs[row, token] = self.mass.get((*sequence, token), 0.0) / whole
        return probs

    def close(self) -> None: ...


def exact(texts: dict[str, float], context: str) -> dict[str, float]:
    """What follows `context`, by character; "" for the end."""
    total = sum(p for text, p in texts.items() if text.startswith(context))
    result = {
        c: sum(p for text, p in texts.items() if text.startswith(context + c)) / total for c in ALPHABET
    }
    return result | {"": texts.get(context, 0.0) / total}


def sequence_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def bridged(teacher: Teacher, context: str) -> dict[str, float]:
    proposal = teacher.propose([sequence_of(CHARACTERS, context)], 9)
    row = zip(proposal.actions[0].tolist(), proposal.probs[0].tolist(), strict=True)
    given = {CHARACTERS.decode([a], skip_special_tokens=True): p for a, p in row if a >= 0}
    return {c: given.get(c, 0.0) for c in [*ALPHABET, ""]}


def contexts() -> list[str]:
    return ["".join(t) for n in range(LENGTH) for t in itertools.product(ALPHABET, repeat=n)]


def largest_errors(heal: int) -> NDArray[np.float64]:
    texts = language()
    table = Table(texts, BPE)
    teacher = BridgeTeacher("bpe", CHARACTERS, BPE, table, heal=heal, width=300)
    errors = []
    for context in contexts():
        wanted, given = exact(texts, context), bridged(teacher, context)
        errors.append(max(abs(wanted[c] - given[c]) for c in wanted))
    return np.asarray(errors)


def test_the_tokenizer_cuts_across_characters() -> None:
    assert any(len(t) > 2 for t in token_bytes(BPE)), "or nothing here needs healing"


def test_healing_two_tokens_gives_the_exact_marginal_here() -> None:
    errors = largest_errors(heal=2)
    assert errors.max() < 0.01, "ways to spell a text that bring less than 1 % are not followed"
    assert np.median(errors) < 1e-6
    np.testing.assert_array_equal(errors, largest_errors(heal=9))


def test_without_healing_it_does_not() -> None:
    none, one = (largest_errors(heal).mean() for heal in (0, 1))
    assert one < 0.25 * none
    assert none > 0.3


def test_rows_and_calls_do_not_matter() -> None:
    table = Table(language(), BPE)
    teacher = BridgeTeacher("bpe", CHARACTERS, BPE, table)
    sequences = [sequence_of(CHARACTERS, context) for context in contexts()[:60]]
    together = teacher.propose(sequences, 4)
    for row, sequence in enumerate(sequences):
        alone = teacher.propose([sequence], 4)
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
        np.testing.assert_array_equal(alone.probs[0], together.probs[row])
        assert alone.continuations[0] == together.continuations[row]


def test_equal_questions_are_asked_once_and_tokens_are_passed_on() -> None:
    table = Table(language(), BPE)
    proposal = BridgeTeacher("bpe", CHARACTERS, BPE, table).propose([[1, 4], [1, 4, 5], [1, 4]], 4)
    assert len(table.asked) == len(set(table.asked)) + sum(
        n > 1 for n in map(table.asked.count, set(table.asked))
    )
    assert proposal.tokens == table.forwarded == len(table.asked)


def test_whole_teacher_tokens_become_continuations() -> None:
    texts = {"abab": 0.75, "abba": 0.25}
    teacher = BridgeTeacher("bpe", CHARACTERS, BPE, Table(texts, BPE), heal=9)
    (paths,) = teacher.propose([[1]], 4).continuations
    said = {CHARACTERS.decode(path.tokens): path.probability for path in paths}
    assert all("abab".startswith(text) or "abba".startswith(text) for text in said)
    assert any(len(text) > 1 for text in said)
    assert sum(said.values()) == pytest.approx(1.0)


def test_the_likeliest_continuation_goes_on_and_no_mass_is_lost() -> None:
    texts = {"abab": 0.75, "abba": 0.25}
    one, more = (
        BridgeTeacher("bpe", CHARACTERS, BPE, Table(texts, BPE), heal=9, ahead=ahead).propose([[1]], 4)
        for ahead in (0, 8)
    )
    np.testing.assert_array_equal(one.actions, more.actions)
    np.testing.assert_allclose(one.probs, more.probs, atol=1e-6)
    best = more.continuations[0][0]
    assert CHARACTERS.decode(best.tokens) == "abab<eos>"
    assert best.probability == pytest.approx(0.75)
    assert more.tokens > one.tokens


def test_a_real_model_of_another_tokenizer(tmp_path: Path) -> None:
    expert = Student.from_config(FAMILIES["llama-gqa"], BPE, seed=4)
    expert.save(tmp_path / "expert")
    teacher = BridgeTeacher.open(BridgeConfig(load=str(tmp_path / "expert"), heal=0, width=400), CHARACTERS)
    assert teacher.name == "expert"
    proposal = teacher.propose([[1]], 4)
    probs = plain(expert, [1])[0].softmax(-1).numpy()
    texts = token_bytes(BPE)
    total = sum(float(p) for token, p in enumerate(probs) if texts[token] or token == EOS)
    for action, p in zip(proposal.actions[0].tolist(), proposal.probs[0].tolist(), strict=True):
        if action == EOS:
            wanted = float(probs[EOS])
        else:
            letter = CHARACTERS.decode([action]).encode()
            wanted = sum(float(q) for token, q in enumerate(probs) if texts[token].startswith(letter))
        assert p == pytest.approx(wanted / total, abs=1e-5)
    assert proposal.tokens == 1
    assert teacher.propose([[1], [1]], 4).tokens == 0, "remembered"
    teacher.close()
    assert teacher.propose([[1]], 4).tokens == 1


def test_what_cannot_be_said_proposes_nothing() -> None:
    table = Table(language(), BPE)
    byte_student = train_bpe(["ab"], 260)
    half = byte_student("é", add_special_tokens=False)["input_ids"][:1]
    teacher = BridgeTeacher("bpe", byte_student, BPE, table)
    assert (teacher.propose([[1, *half]], 3).actions == -1).all(), "within a character"
    blind = BridgeTeacher("abc", CHARACTERS, character_tokenizer("a"), table)
    assert (blind.propose([sequence_of(CHARACTERS, "ab")], 3).actions == -1).all(), "unknown to the teacher"
    table.max_length = 4
    assert (BridgeTeacher("bpe", CHARACTERS, BPE, table).propose([[1, 4, 6] * 9], 3).actions == -1).all()
    assert BridgeTeacher("bpe", CHARACTERS, BPE, table).propose([], 3).actions.shape == (0, 3)
    assert table.asked == []
    with pytest.raises(InputError, match="vocabulary of words"):
        BridgeTeacher("words", CHARACTERS, word_tokenizer(["ab"]), table)


def test_a_student_of_words_does_not_lengthen_a_word() -> None:
    words = word_tokenizer(["a", "ab", "b"])
    texts = {"a b": 0.5, "ab": 0.5}
    proposal = BridgeTeacher("bpe", words, BPE, Table(texts, BPE), heal=9).propose([[1, 4]], 3)
    assert [a for a in proposal.actions[0].tolist() if a >= 0] == [6], "'a' then ' b', never 'a' then 'b'"


@pytest.mark.parametrize("text", ["naïve ünï 日本", "a\n b\t", ""])
def test_bytes_of_tokens(text: str) -> None:
    for tokenizer in (BPE, train_bpe([text + "x"], 300)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert spell(token_bytes(tokenizer), [1, *ids, EOS, 10**6]) == text.encode()
    assert spell(token_bytes(CHARACTERS), sequence_of(CHARACTERS, "ab a")) == b"ab a"


def test_bytes_of_sentencepiece_tokens_and_of_wordpiece() -> None:
    from tokenizers import Tokenizer, decoders, models

    pieces = {"<eos>": 0, "\u2581a": 1, "<0x0A>": 2, "b": 3, "<unk>": 4}
    backend = Tokenizer(models.BPE(vocab=pieces, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")
    assert token_bytes(tokenizer) == [b"", b" a", b"\n", b"b", b""]
    wordpiece = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordPiece({"a": 0}, unk_token="a")))
    with pytest.raises(InputError, match="WordPiece"):
        token_bytes(wordpiece)


@pytest.mark.parametrize("wrong", [{"heal": -1}, {"width": 0}, {"ahead": -1}, {"load": ""}])
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        BridgeConfig(**({"load": "x"} | wrong))  # type: ignore[arg-type]


def test_the_mark_of_a_space_is_a_character_where_the_decoder_does_not_know_it() -> None:
    tokenizer = byte_fallback_tokenizer("a\u2581")
    table = token_bytes(tokenizer)
    ids = tokenizer("a\u2581", add_special_tokens=False)["input_ids"]
    assert b"".join(table[token] for token in ids) == "a\u2581".encode()
