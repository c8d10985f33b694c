"""Rewards of one answer: exact match, overlap to the last digit, repetition, length, the verifier."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tokenzero.mcts.errors import InputError
from tokenzero.value.answer_length import length_in
from tokenzero.value.length_penalty import BudgetSchedule, LengthReward
from tokenzero.value.repetition import repeated_share, repetition_reward
from tokenzero.value.rewards import (
    Given,
    RowReward,
    VerifierReward,
    against_reference,
    exact_match,
    normalised,
)
from tokenzero.value.text_overlap import bleu_measure, corpus_overlap, rouge_measure

WORDS = (
    *("the", "The", "cat", "cats", "running", "ran", "sat", "on", "a", "mat", "3.14", "1,000", "don't"),
    *(
        "caf\u00e9",
        "na\u00efve",
        "\u4f60\u597d",
        "\u043c\u0438\u0440",
        "\U0001f600",
        "e\u0301",
        "(x)",
        ".",
        "!",
    ),
    *("\u00bd", "&quot;", "<eos>", "\u2014", "\u3002"),
)
FIXED = [("", ""), ("", "a cat"), ("a cat", ""), (" ", "\n"), ("a", "a"), ("\u4f60\u597d", "\u4f60\u597d")]


def random_pairs() -> list[tuple[str, str]]:
    """200 pairs of texts that share some of their words, the fixed ones first."""
    rng = np.random.default_rng(7)
    pairs = list(FIXED)
    while len(pairs) < 200:
        reference = rng.choice(WORDS, rng.integers(0, 14)).tolist()
        changed = [word if rng.random() < 0.7 else str(rng.choice(WORDS)) for word in reference]
        answer = changed[rng.integers(0, 3) :] + rng.choice(WORDS, rng.integers(0, 3)).tolist()
        pairs.append((" ".join(answer), " ".join(reference)))
    return pairs


# ---- overlap


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
def test_bleu_is_sacrebleus_to_the_last_digit(lowercase: bool, tokenize: str) -> None:
    measure = bleu_measure(lowercase=lowercase, tokenize=tokenize)  # type: ignore[arg-type]
    pairs = random_pairs()
    wanted = [
        sacrebleu.sentence_bleu(answer, [reference], lowercase=lowercase, tokenize=tokenize).score / 100.0
        for answer, reference in pairs
    ]
    found = [measure(answer, reference) for answer, reference in pairs]
    assert found == [min(1.0, score) for score in wanted]  # a perfect match is 1.0000000000000004 there
    assert len({round(score, 6) for score in found}) > 50


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_scores_to_the_last_digit(kind: str, stem: bool) -> None:
    measure = rouge_measure(kind, stem=stem)  # type: ignore[arg-type]
    library = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
    pairs = random_pairs()
    found = [measure(answer, reference) for answer, reference in pairs]
    assert found == [library.score(reference, answer)[kind].fmeasure for answer, reference in pairs]
    assert len({round(score, 6) for score in found}) > 30


def test_overlap_of_a_corpus_counts_its_pairs_together() -> None:
    answers = ["the cat sat on the mat", "a b c d e"]
    references = ["on the mat the cat sat down", "a b c d e"]
    found = corpus_overlap(answers, references)
    assert found.bleu == sacrebleu.corpus_bleu(answers, [references]).score
    # of 11, 9, 7 and 5 n-grams all words are found, 8 pairs, 5 threes and 2 fours; 11 words answer 12
    assert found.bleu == pytest.approx(100 * math.exp(1 - 12 / 11) * (8 / 9 * 5 / 7 * 2 / 5) ** 0.25)
    assert found.rouge_l == pytest.approx((2 * 3 / (6 + 7) + 1) / 2)  # three words in order, either three
    for pair in (([], []), (["a"], [])):
        with pytest.raises(InputError, match="give as many, at least one"):
            corpus_overlap(*pair)


def test_overlap_agrees_with_pen_and_paper() -> None:
    assert bleu_measure()("a b c d", "a b c d e") == pytest.approx(math.exp(1 - 5 / 4))  # brevity penalty
    assert bleu_measure()("a b c d e", "a b c d") == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert rouge_measure("rouge1")("the cat sat", "the cat") == pytest.approx(0.8)
    assert rouge_measure("rouge2")("the cat sat", "the cat") == pytest.approx(2 / 3)
    assert rouge_measure("rougeL")("c b a", "a b c") == pytest.approx(1 / 3)


def test_stems_count_as_equal_only_when_asked() -> None:
    assert rouge_measure("rouge1")("running cats", "runs cat") == 0.0
    assert rouge_measure("rouge1", stem=True)("running cats", "runs cat") == 1.0


def test_unknown_kinds_of_overlap_are_refused() -> None:
    with pytest.raises(InputError, match="bleu tokenize is 'zh'; use one of 13a"):
        bleu_measure(tokenize="zh")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rouge kind is 'rougeLsum'; use one of rouge1"):
        rouge_measure("rougeLsum")  # type: ignore[arg-type]


def test_a_reward_against_references_wants_one_for_each_row() -> None:
    reward = against_reference("bleu", bleu_measure())
    assert reward.score(["p", "q"], ["a b", "c"], ["a b", "d"]).tolist() == [1.0, 0.0]
    with pytest.raises(InputError, match="'bleu' needs a reference"):
        reward.score(["p"], ["a"], [None])
    with pytest.raises(InputError, match="1 prompts, 2 answers and 1 references"):
        reward.score(["p"], ["a", "b"], ["a"])


# ---- exact match


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Paris", " paris. "),
        ("\u201cNew  York\u201d", "new\nyork"),
        ("caf\u00e9", "cafe\u0301"),
        ("1,000", "1000.0"),
        ("1e3", "1000"),
        (".5", "1/2"),
        ("2 / 4", "0.50"),
        ("\u22123", "-3.0"),
        ("+7", "7"),
        ("-0", "0"),
        ("1,234,567.", "1234567"),
        ("9" * 60 + ".0", "9" * 60),
    ],
)
def test_equal_answers(answer: str, reference: str) -> None:
    assert exact_match(answer, reference) == exact_match(reference, answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "0"),
        ("Paris", "Pari"),
        ("10\u00b2", "102"),
        ("0.33", "1/3"),
        ("1,00", "100"),
        ("1_000", "1000"),
        ("1/0", "2/0"),
        ("nan", "inf"),
        ("1e9999", "1e9998"),
        ("12 13", "1213"),
        ("3", "3.0000000000000000001"),
        ("$5", "5"),
        ("9" * 6000, "9" * 6000 + ".0"),  # beyond what Python converts; not a number to us, and no error
    ],
)
def test_unequal_answers(answer: str, reference: str) -> None:
    assert exact_match(answer, reference) == exact_match(reference, answer) == 0.0


def test_without_numbers_only_the_text_counts() -> None:
    assert exact_match("1.0", "1", numbers=False) == 0.0
    assert exact_match("One", "one", numbers=False) == 1.0


@given(st.text())
def test_every_text_equals_itself_and_normal_form_is_final(text: str) -> None:
    assert exact_match(text, text) == 1.0
    assert exact_match(f" {text}\n", text) == 1.0
    assert normalised(text) == normalised(f"  {text} ")


@given(st.fractions(max_denominator=500), st.fractions(max_denominator=500))
def test_fractions_match_exactly_when_they_are_equal(left: object, right: object) -> None:
    assert exact_match(str(left), str(right)) == float(left == right)


# ---- verifier and rows


def test_the_verifiers_scores_are_handed_through() -> None:
    reward = VerifierReward()
    scores = reward.score(["p"] * 2, ["a", "b"], [None] * 2, Given(verified=[0.25, 1.0]))
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.25, 1.0]
    for verified, held in ((None, "none"), ([1.0], "1")):
        with pytest.raises(InputError, match=f"needs 2 verifier scores and got {held}"):
            reward.score(["p"] * 2, ["a", "b"], [None] * 2, Given(verified=verified))


def test_a_row_function_sees_its_own_row() -> None:
    reward = RowReward("r", lambda prompt, answer, reference: float(prompt + answer == reference))
    assert reward.score(["a", "a"], ["b", "c"], ["ab", "ab"]).tolist() == [1.0, 0.0]
    assert reward.score([], [], []).shape == (0,)


def test_what_is_given_can_be_cut_down_to_some_rows() -> None:
    assert Given(3, [0.1, 0.2, 0.3]).of([2, 0]) == Given(3, [0.3, 0.1])
    assert Given(3).of([5]) == Given(3)
    with pytest.raises(InputError, match="round index is -1"):
        Given(-1)


# ---- repetition


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [("", 1, 0.0), ("a b", 3, 0.0), ("a a a a", 1, 0.75), ("a b a b a", 2, 0.5), ("a b c a", 2, 0.0)],
)
def test_repeated_share_by_hand(text: str, n: int, share: float) -> None:
    assert repeated_share(text, n) == share
    assert repetition_reward(n).score(["p"], [text], [None]).tolist() == [1.0 - share]


def test_repetition_within_a_word_is_seen_by_characters() -> None:
    assert repeated_share("aaaaa", 2) == 0.0
    assert repeated_share("aaaaa", 2, "characters") == 0.75


@given(st.lists(st.sampled_from("ab"), max_size=20), st.integers(1, 4))
def test_repeated_share_counts_each_gram_seen_before(words: list[str], n: int) -> None:
    grams = [words[i : i + n] for i in range(len(words) - n + 1)]
    seen_before = sum(gram in grams[:i] for i, gram in enumerate(grams))
    assert repeated_share(" ".join(words), n) == pytest.approx(seen_before / max(1, len(grams)))


def test_repetition_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="0-grams"):
        repetition_reward(0)
    with pytest.raises(InputError, match="'lines'"):
        repetition_reward(2, "lines")  # type: ignore[arg-type]


# ---- length


def test_the_budget_moves_linearly_or_along_a_cosine_and_then_stays() -> None:
    linear = BudgetSchedule(100, 20, 4)
    assert [linear.at(r) for r in range(6)] == pytest.approx([100, 80, 60, 40, 20, 20])
    cosine = BudgetSchedule(100, 20, 4, "cosine")
    quarter = 40 * math.sqrt(0.5)
    assert [cosine.at(r) for r in range(6)] == pytest.approx([100, 60 + quarter, 60, 60 - quarter, 20, 20])
    assert BudgetSchedule(10, 30, 2).at(1) == 20  # upwards is allowed as well


def test_length_is_free_within_the_budget_and_worth_nothing_at_twice_of_it() -> None:
    reward = LengthReward(BudgetSchedule(8, 4, 2), length_in("characters"))
    answers = ["", "x" * 8, "x" * 12, "x" * 16, "x" * 40]
    rows = (["p"] * 5, answers, [None] * 5)
    assert reward.score(*rows).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert reward.score(*rows, Given(round_index=2)).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert reward.score(*rows, Given(round_index=1)).tolist() == pytest.approx([1.0, 2 / 3, 0.0, 0.0, 0.0])


def test_lengths_in_each_unit() -> None:
    assert length_in("characters")("a bc ") == 5
    assert length_in("words")(" a  bc ") == 2
    assert length_in("tokens", lambda text: 9)("a") == 9
    with pytest.raises(InputError, match="nothing counts them"):
        length_in("tokens")
    with pytest.raises(InputError, match="length unit is 'lines'"):
        length_in("lines")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [(0, 1), (1, 0), (math.nan, 1), (1, math.inf), (1, 1, 0), (1, 1, 1, "step")],
)
def test_budgets_that_make_no_sense_are_refused(wrong: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="length"):
        BudgetSchedule(*wrong)  # type: ignore[arg-type]
