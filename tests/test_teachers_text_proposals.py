"""Texts as proposals: mass on the right first token, whole continuations, merges at the boundary, ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import character_tokenizer, train_bpe, word_tokenizer
from tokenzero.teachers.base import Continuation
from tokenzero.teachers.text_proposals import TextContinuation, proposals_from_texts

CHARACTERS = character_tokenizer("abcdef +=")
EOS = 2
WORDS = word_tokenizer(["4", "7", "47", "+", "="])
BPE = train_bpe(["hello help held the hello theatre heath\nhello he"] * 20 + ["naïve naïf"] * 20, 290)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def propose(
    tokenizer: PreTrainedTokenizerFast,
    sequence: list[int],
    *texts: tuple[str, float] | TextContinuation,
    k: int = 4,
) -> tuple[dict[int, float], tuple[Continuation, ...]]:
    proposal = proposals_from_texts(tokenizer, [sequence], [texts], k, 7)
    assert proposal.tokens == 7
    assert proposal.actions.dtype == np.int64
    assert proposal.probs.dtype == np.float32
    row = zip(proposal.actions[0].tolist(), proposal.probs[0].tolist(), strict=True)
    return {token: pytest.approx(p) for token, p in row if token >= 0}, proposal.continuations[0]


def test_the_mass_goes_to_the_first_token_and_the_whole_text_is_kept() -> None:
    a, b, c = ids(CHARACTERS, "abc")
    mass, paths = propose(CHARACTERS, [1, a], ("bc", 0.5), ("ca", 0.2), ("bb", 0.3))
    assert mass == {b: 0.8, c: 0.2}
    assert paths == (Continuation((b, c), 0.5), Continuation((b, b), 0.3), Continuation((c, a), 0.2))


def test_the_best_k_first_tokens_stay_and_only_their_continuations() -> None:
    a, b, c = ids(CHARACTERS, "abc")
    mass, paths = propose(CHARACTERS, [], ("a", 0.3), ("b", 0.2), ("ba", 0.2), ("c", 0.3), k=2)
    assert mass == {b: 0.4, a: 0.3}, "ties go to the lowest token"
    assert {path.tokens[0] for path in paths} == {a, b}
    assert c not in mass


def test_rows_keep_to_themselves() -> None:
    a, b = ids(CHARACTERS, "ab")
    proposal = proposals_from_texts(CHARACTERS, [[a], [b], []], [[("b", 1.0)], [], [("a", 0.5)]], 2, 0)
    assert proposal.actions.tolist() == [[b, -1], [-1, -1], [a, -1]]
    assert proposal.continuations[1] == ()
    assert proposals_from_texts(CHARACTERS, [], [], 3, 0).actions.shape == (0, 3)


def test_ends_and_what_the_student_cannot_say() -> None:
    a, b = ids(CHARACTERS, "ab")
    for text in (("", 0.5), TextContinuation("", 0.5, ends=True)):
        assert propose(CHARACTERS, [a], text)[1] == (Continuation((EOS,), 0.5),)
    assert propose(CHARACTERS, [a], TextContinuation("b", 0.5, ends=True))[1] == (
        Continuation((b, EOS), 0.5),
    )
    assert propose(CHARACTERS, [a], ("b<eos>aa", 0.5))[1] == (Continuation((b, EOS), 0.5),)
    assert propose(CHARACTERS, [a], TextContinuation("b<pad>a", 0.5, ends=True))[1][0].tokens == (b,)
    assert propose(CHARACTERS, [a], ("bXb", 0.5))[1] == (Continuation((b,), 0.5),), "cut before the unknown"
    assert propose(CHARACTERS, [a], TextContinuation("X", 0.5, ends=True)) == ({}, ())
    assert propose(CHARACTERS, [a], ("\ud800", 0.5)) == ({}, ())
    endless = character_tokenizer("ab")
    endless.eos_token = None
    assert propose(endless, [4], ("", 0.5)) == ({}, ())


def test_closed_words_never_grow() -> None:
    four, seven, plus = ids(WORDS, "4 7 +")
    for text in ("7 +", " 7 +"):
        assert propose(WORDS, [1, four], (text, 1.0))[1] == (Continuation((seven, plus), 1.0),)


def test_a_merge_across_the_boundary_leaves_the_context_alone() -> None:
    context = ids(BPE, "he")
    assert ids(BPE, "hello")[: len(context)] != context, "or the test shows nothing"
    mass, (path,) = propose(BPE, [1, *context], ("llo", 1.0))
    assert BPE.decode([*context, *path.tokens]) == "hello"
    assert mass == {path.tokens[0]: 1.0}
    prefixed = PreTrainedTokenizerFast(tokenizer_object=_prefixed(), eos_token="<eos>")
    context = ids(prefixed, "he")
    assert ids(prefixed, "hello")[: len(context)] != context
    _, (path,) = propose(prefixed, context, ("llo", 1.0))
    assert prefixed.decode([*context, *path.tokens]).strip() == "hello", "not 'he llo'"


def _prefixed() -> object:
    """A tokenizer that puts a space before every text, as SentencePiece models do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["<eos>"], show_progress=False)
    backend.train_from_iterator(["hello help held the hello\nhe lo l o"] * 9, trainer)
    return backend


@settings(max_examples=150)
@given(
    st.text("helo tav\nï<", max_size=60), st.text("helo tav\nï", min_size=1, max_size=9), st.integers(0, 9)
)
def test_whatever_the_cut_the_text_is_the_same(context: str, text: str, extra: int) -> None:
    # a context in tokens of any cut, not only the tokenizer's own
    tokens = [*ids(BPE, context[: len(context) // 2]), *ids(BPE, context[len(context) // 2 :])]
    tokens += [token for letter in "hello"[: extra % 5] for token in ids(BPE, letter)]
    _, (path,) = propose(BPE, [1, *tokens], (text, 1.0))
    assert BPE.decode([*tokens, *path.tokens]) == BPE.decode(tokens) + text


def test_bad_probabilities_and_rows_are_refused() -> None:
    for p in (-0.1, float("nan"), float("inf"), 1.2):
        with pytest.raises(InputError):
            propose(CHARACTERS, [4], ("a", p))
    with pytest.raises(InputError, match="2 rows"):
        proposals_from_texts(CHARACTERS, [[4]], [[], []], 2, 0)
    with pytest.raises(InputError, match="k=0"):
        proposals_from_texts(CHARACTERS, [[4]], [[]], 0, 0)
