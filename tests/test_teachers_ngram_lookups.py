"""Look-ups of many contexts at once against one at a time; tables lacking an occurrence against recounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.ngram import Contexts, NgramConfig, NgramTeacher, evaluate
from tokenzero.teachers.ngram_table import SMOOTHINGS, build_table

VOCAB = 5
TEXT = st.lists(st.integers(0, VOCAB - 2), min_size=1, max_size=40)  # the last token is never counted


def random_text(size: int, vocab: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).zipf(1.5, size) % vocab


def recount(text: Sequence[int], gone: int, context: Sequence[int], order: int) -> list[float]:
    """Witten-Bell on ``text`` with the token at ``gone`` counted nowhere, by the formula, on dicts."""
    probs = [1.0 / VOCAB] * VOCAB
    for length in range(min(order - 1, len(context)) + 1):
        wanted = tuple(context[len(context) - length :])
        counts = Counter(
            text[i] for i in range(length, len(text)) if i != gone and tuple(text[i - length : i]) == wanted
        )
        total = sum(counts.values())
        if total > 0:
            probs = [
                (counts[w] + len(counts) * lower) / (total + len(counts)) for w, lower in enumerate(probs)
            ]
    return probs


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@settings(max_examples=40)
@given(
    text=TEXT,
    order=st.integers(1, 6),
    rows=st.integers(1, 3),
    width=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_rows_are_looked_up_like_single_contexts(
    smoothing: str, text: list[int], order: int, rows: int, width: int, seed: int
) -> None:
    teacher = NgramTeacher.fit([text], order, VOCAB, smoothing)
    ids = np.random.default_rng(seed).integers(0, VOCAB, (rows, width))
    expected = np.log([[teacher.distribution(row[: t + 1]) for t in range(width)] for row in ids.tolist()])
    np.testing.assert_allclose(teacher.row_log_probs(ids, dtype=np.float64), expected, atol=1e-12)
    single = teacher.row_log_probs(ids)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-6)
    last = teacher.next_log_probs(ids.tolist(), np.float64)
    np.testing.assert_allclose(last, expected[:, -1], atol=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_wide_vocabulary_and_ragged_sequences(smoothing: str) -> None:
    text = random_text(3000, 700)
    teacher = NgramTeacher.fit([text], 5, 900, smoothing)
    sequences = [[], [3], text[:100].tolist(), text[7:12].tolist(), [899, 1, 1], [-1, 1, 2], [1, 5000]]
    expected = np.log([teacher.distribution(sequence) for sequence in sequences])
    np.testing.assert_allclose(teacher.next_log_probs(sequences, np.float64), expected, atol=1e-12)
    places = Contexts(text, np.array([0, 5, 9]), np.array([0, 2, 4]))
    expected = np.log([teacher.distribution(text[a:b].tolist()) for a, b in ((0, 0), (3, 5), (5, 9))])
    np.testing.assert_allclose(teacher.log_probs(places, dtype=np.float64), expected, atol=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 6])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_every_token_of_a_text(
    smoothing: str, order: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenzero.teachers.ngram._CHUNK", 7)
    teacher = NgramTeacher.fit([random_text(500, 9)], order, 11, smoothing)
    text = random_text(60, 11, seed=1)
    told = [teacher.distribution(text[:i].tolist()) for i in range(len(text))]
    expected = [np.log(probs[token]) for probs, token in zip(told, text, strict=True)]
    np.testing.assert_allclose(teacher.token_log_probs(text.astype(dtype)), expected, atol=1e-12)
    best = [int(probs.astype(np.float32).argmax()) for probs in told]
    assert teacher.guesses(text.astype(dtype)).tolist() == best
    score = evaluate(teacher, text.astype(dtype))
    assert score.nats_per_token == pytest.approx(-np.mean(expected), abs=1e-12)
    assert score.accuracy == pytest.approx(np.mean(np.array(best) == text))


@settings(max_examples=60)
@given(text=TEXT, order=st.integers(1, 4))
def test_an_occurrence_that_is_left_out_was_never_counted(text: list[int], order: int) -> None:
    teacher = NgramTeacher.fit([text], order, VOCAB)
    expected = [recount(text, at, text[:at], order) for at in range(len(text))]
    own = np.log([probs[token] for probs, token in zip(expected, text, strict=True)])
    np.testing.assert_allclose(teacher.token_log_probs(np.array(text), held_out=True), own, atol=1e-12)
    ends = np.arange(len(text))
    whole = teacher.log_probs(Contexts(np.array(text), ends, ends), np.array(text), np.float64)
    np.testing.assert_allclose(whole, np.log(expected), atol=1e-12)


@settings(max_examples=40)
@given(text=TEXT.filter(lambda text: len(text) > 8), order=st.integers(2, 5), start=st.integers(0, 3))
def test_rows_begin_without_context_also_when_something_is_left_out(
    text: list[int], order: int, start: int
) -> None:
    teacher = NgramTeacher.fit([text], order, VOCAB)
    ids, truth = np.array([text[start : start + 5]]), np.array([text[start + 1 : start + 6]])
    truth[0, -1] = -1
    expected = [recount(text, start + t + 1, text[start : start + t + 1], order) for t in range(4)]
    expected.append(teacher.distribution(text[start : start + 5]).tolist())
    found = teacher.row_log_probs(ids, truth, np.float64)
    np.testing.assert_allclose(found[0], np.log(expected), atol=1e-12)


def test_what_was_never_counted_is_not_taken_away() -> None:
    teacher = NgramTeacher.fit([[0, 1, 2, 0, 1, 3]], 3, VOCAB)
    ids = np.array([[0, 1], [2, 2]])
    plain = teacher.row_log_probs(ids, dtype=np.float64)
    for stranger in (4, -1, VOCAB, 99):
        truth = np.full((2, 2), stranger)
        assert np.array_equal(teacher.row_log_probs(ids, truth, np.float64), plain)
    assert not np.array_equal(teacher.row_log_probs(ids, np.array([[1, 2], [2, 2]]), np.float64), plain)


def test_only_witten_bell_can_leave_out() -> None:
    teacher = NgramTeacher.fit([[0, 1, 2]], 2, VOCAB, "kneser-ney")
    with pytest.raises(InputError, match="witten-bell"):
        teacher.token_log_probs(np.array([0, 1]), held_out=True)
    with pytest.raises(InputError, match="witten-bell"):
        teacher.row_log_probs(np.array([[0, 1]]), np.array([[1, 2]]))


def test_a_memory_map_is_counted_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = random_text(5000, 50)
    text.astype(np.uint16).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", np.uint16, "r")
    seen = []

    def remember(read: Any, *arguments: Any) -> Any:
        seen.append(np.shares_memory(read, mapped))
        return count(read, *arguments)

    from tokenzero.teachers import ngram_table

    count = ngram_table._count
    monkeypatch.setattr(ngram_table, "_count", remember)
    found = NgramTeacher.fit([mapped], 4, 50).table
    assert seen == [True]
    for ours, theirs in zip(found, build_table([text.tolist()], 4, 50, "witten-bell"), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("tokens", [[0, VOCAB], [-1, 0]])
def test_a_text_of_another_vocabulary_is_refused(tokens: list[int]) -> None:
    teacher = NgramTeacher.fit([[0, 1, 2]], 2, VOCAB)
    for look_up in (teacher.token_log_probs, teacher.guesses):
        with pytest.raises(InputError, match="outside the vocabulary"):
            look_up(np.array(tokens))


def test_no_text_has_no_score() -> None:
    teacher = NgramTeacher.fit([[0, 1, 2]], 2, VOCAB)
    assert teacher.token_log_probs(np.zeros(0, np.int64)).shape == (0,)
    assert teacher.next_log_probs([]).shape == (0, VOCAB)
    assert teacher.row_log_probs(np.zeros((0, 3), np.int64)).shape == (0, 3, VOCAB)
    assert teacher.propose([], 3).actions.shape == (0, 3)
    with pytest.raises(InputError, match="without tokens"):
        evaluate(teacher, np.zeros(0, np.int64))


def test_a_config_names_a_saved_table_or_has_one_counted(tmp_path: Path) -> None:
    path = tmp_path / "five.safetensors"
    NgramTeacher.fit([[0, 1, 2, 0]], 5, VOCAB).save(path)
    config = NgramConfig(table=str(path))
    saved = NgramTeacher.open(config, VOCAB, list)
    assert (saved.order, saved.name, config.name, config.counted) == (5, "five", "five", False)
    counted = NgramTeacher.open(NgramConfig(order=2), VOCAB, lambda: [[0, 1]])
    assert (counted.order, counted.name, NgramConfig(order=2).counted) == (2, "2-gram", True)
    with pytest.raises(InputError, match="vocabulary of 5 tokens"):
        NgramTeacher.open(config, VOCAB + 1, list)
