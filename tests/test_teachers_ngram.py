"""The n-gram teacher against the textbook recursion on dicts, and against known numbers on real text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import top_k
from tokenzero.teachers.ngram import NgramTeacher, evaluate
from tokenzero.teachers.ngram_table import SMOOTHINGS

VOCAB = 4
CORPUS = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=25), min_size=1, max_size=4).filter(any)
SHAKESPEARE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"

Gram = tuple[int, ...]


class Naive:
    """Counts in dicts, one recursion per smoothing, written from the formulae."""

    def __init__(self, sequences: Sequence[Sequence[int]], order: int, vocab: int, smoothing: str) -> None:
        self.order, self.vocab, self.smoothing = order, vocab, smoothing
        self.counts: list[Counter[Gram]] = [Counter() for _ in range(order)]  # by context length
        before: list[dict[Gram, set[int]]] = [{} for _ in range(order)]
        for sequence in sequences:
            for i in range(len(sequence)):
                for c in range(min(i, order - 1) + 1):
                    gram = tuple(sequence[i - c : i + 1])
                    self.counts[c][gram] += 1
                    before[c].setdefault(gram, set()).add(sequence[i - c - 1] if i > c else -1)
        if smoothing != "witten-bell":
            for c in range(order - 1):
                self.counts[c] = Counter({gram: len(tokens) for gram, tokens in before[c].items()})
        self.discounts = [self.discount(c) for c in range(order)]

    def discount(self, c: int) -> dict[int, float]:
        n = Counter(self.counts[c].values())
        modified = self.smoothing == "modified-kneser-ney"
        flat = {1: 0.5, 2: 1.0, 3: 1.5} if modified else {1: 0.5, 2: 0.5, 3: 0.5}
        if n[1] == 0 or n[2] == 0:
            return flat
        y = n[1] / (n[1] + 2 * n[2])
        if not modified:
            return {1: y, 2: y, 3: y}
        d = {
            1: 1 - 2 * y * n[2] / n[1],
            2: 2 - 3 * y * n[3] / n[2],
            3: 3 - 4 * y * n[4] / n[3] if n[3] else 1.5,
        }
        return {times: value if 0 < value < times else flat[times] for times, value in d.items()}

    def prob(self, context: Gram, token: int) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        return self.level(context, token)

    def level(self, context: Gram, token: int) -> float:
        lower = self.level(context[1:], token) if context else 1.0 / self.vocab
        followers = {w: self.counts[len(context)][(*context, w)] for w in range(self.vocab)}
        followers = {w: count for w, count in followers.items() if count > 0}
        total = sum(followers.values())
        if total == 0:
            return lower
        count = followers.get(token, 0)
        if self.smoothing == "witten-bell":
            return (count + len(followers) * lower) / (total + len(followers))
        d = self.discounts[len(context)]
        freed = sum(d[min(3, c)] for c in followers.values())
        kept = count - d[min(3, count)] if count else 0.0
        return (kept + freed * lower) / total


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@settings(max_examples=60)
@given(corpus=CORPUS, order=st.integers(1, 4), context=st.lists(st.integers(0, VOCAB - 1), max_size=5))
def test_agrees_with_the_textbook(
    smoothing: str, corpus: list[list[int]], order: int, context: list[int]
) -> None:
    teacher = NgramTeacher.fit(corpus, order, VOCAB, smoothing)
    naive = Naive(corpus, order, VOCAB, smoothing)
    got = teacher.distribution(context)
    assert got.dtype == np.float64
    assert got.tolist() == pytest.approx([naive.prob(tuple(context), w) for w in range(VOCAB)], abs=1e-12)
    assert got.sum() == pytest.approx(1.0, abs=1e-12)
    assert (got > 0).all()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_agrees_with_the_textbook_where_every_discount_is_in_use(smoothing: str) -> None:
    corpus = [(np.random.default_rng(seed).zipf(1.5, 400) % 12).tolist() for seed in range(3)]
    teacher, naive = NgramTeacher.fit(corpus, 3, 12, smoothing), Naive(corpus, 3, 12, smoothing)
    if smoothing == "modified-kneser-ney":  # not the fallbacks, which the small corpora mostly meet
        assert any(not {0.5, 1.0, 1.5} & set(d.values()) for d in naive.discounts)
    for context in ([], [1], [2, 1], [1, 1], [9, 8]):
        expected = [naive.prob(tuple(context), w) for w in range(12)]
        assert teacher.distribution(context).tolist() == pytest.approx(expected, abs=1e-12)


def test_witten_bell_by_hand() -> None:
    # 0 1 0 1 0 2: followers of 0 are 1 (2x) and 2; unigrams 0: 3, 1: 2, 2: 1, kinds 3; vocabulary 4.
    teacher = NgramTeacher.fit([[0, 1, 0, 1, 0, 2]], 2, 4)
    unigram = [(3 + 3 / 4) / 9, (2 + 3 / 4) / 9, (1 + 3 / 4) / 9, (3 / 4) / 9]
    assert teacher.distribution([]).tolist() == pytest.approx(unigram)
    expected = [(count + 2 * lower) / 5 for count, lower in zip([0, 2, 1, 0], unigram, strict=True)]
    assert teacher.distribution([3, 0]).tolist() == pytest.approx(expected)
    assert teacher.distribution([3]).tolist() == pytest.approx(unigram)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@settings(max_examples=40)
@given(
    corpus=CORPUS,
    order=st.integers(1, 5),
    contexts=st.lists(st.lists(st.integers(0, VOCAB + 2), max_size=6), max_size=7),
    k=st.integers(1, VOCAB + 3),
)
def test_proposals_are_the_top_of_the_distribution(
    smoothing: str, corpus: list[list[int]], order: int, contexts: list[list[int]], k: int
) -> None:
    teacher = NgramTeacher.fit(corpus, order, VOCAB, smoothing)
    proposal = teacher.propose(contexts, k)
    assert proposal.tokens == 0
    assert proposal.actions.shape == proposal.probs.shape == (len(contexts), k)
    for row, context in enumerate(contexts):
        actions, probs = top_k(teacher.distribution(context)[None], k)
        assert proposal.actions[row].tolist() == actions[0].tolist()
        assert proposal.probs[row].tolist() == probs[0].tolist()


def test_a_wide_vocabulary() -> None:
    rng = np.random.default_rng(0)
    corpus = [rng.zipf(1.3, 400) % 3000 for _ in range(5)]
    teacher = NgramTeacher.fit(corpus, 4, 3000)
    contexts = [corpus[0][: int(length)].tolist() for length in rng.integers(0, 400, 60)]
    found = teacher.propose(contexts, 9)
    for row, context in enumerate(contexts):
        actions, probs = top_k(teacher.distribution(context)[None], 9)
        assert np.array_equal(found.actions[row], actions[0])
        assert np.array_equal(found.probs[row], probs[0])


def test_sequences_do_not_flow_into_each_other() -> None:
    apart = NgramTeacher.fit([[0, 1], [2, 3]], 2, 4)
    assert apart.distribution([1]).tolist() == apart.distribution([]).tolist()
    joined = NgramTeacher.fit([[0, 1, 2, 3]], 2, 4)
    assert joined.distribution([1])[2] > apart.distribution([1])[2]


def test_tokens_outside_the_vocabulary_are_unknown_and_do_not_alias() -> None:
    teacher = NgramTeacher.fit([[0, 1, 2, 3, 0, 1, 3, 3, 2]], 3, 4)
    for stranger in (4, 5, 7, 1000, -1):
        assert teacher.distribution([stranger, 1]).tolist() == teacher.distribution([1]).tolist()
        assert teacher.distribution([1, stranger]).tolist() == teacher.distribution([]).tolist()


@pytest.mark.parametrize(
    ("sequences", "order", "vocab", "smoothing", "message"),
    [
        ([[0]], 0, 3, "witten-bell", "order is 0"),
        ([[0]], 7, 3, "witten-bell", "order is 7"),
        ([[0]], 2, 0, "witten-bell", "vocab_size is 0"),
        ([[0, 3]], 2, 3, "witten-bell", "token 3"),
        ([[0, -1]], 2, 3, "witten-bell", "token -1"),
        ([], 2, 3, "witten-bell", "at least one token"),
        ([[], []], 2, 3, "witten-bell", "at least one token"),
        ([[0]], 2, 3, "laplace", "smoothing is 'laplace'"),
    ],
)
def test_bad_input_is_named(
    sequences: list[list[int]], order: int, vocab: int, smoothing: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        NgramTeacher.fit(sequences, order, vocab, smoothing)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tinyshakespeare.txt is not here")
@pytest.mark.parametrize(
    ("order", "nats", "top1"), [(2, 2.47, 0.273), (3, 2.04, 0.382), (4, 1.77, 0.471), (5, 1.66, 0.527)]
)
def test_characters_of_shakespeare(order: int, nats: float, top1: float) -> None:
    """Witten-Bell on the last tenth after fitting the rest; the numbers come from another program."""
    letters, text = np.unique(list(SHAKESPEARE.read_text(encoding="utf-8")), return_inverse=True)
    cut = len(text) * 9 // 10
    teacher = NgramTeacher.fit([text[:cut]], order, len(letters))
    score = evaluate(teacher, text[cut:])
    assert score.nats_per_token == pytest.approx(nats, abs=0.02)
    assert score.accuracy == pytest.approx(top1, abs=0.02)
