"""Tokens as text: pieces that are sent never have to be taken back, and offsets fit the text."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tokenzero.policy.tokenizers import train_bpe, word_tokenizer
from tokenzero.server.spelling import Growing, Spelling, cut


@cache
def bpe() -> PreTrainedTokenizerFast:
    return train_bpe(["the quick brown fox", "naïve café 漢字 🙂"], 290)


@cache
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer(["4", "7", "+", "stop"])


def streamed(spelling: Spelling, tokens: list[int], stops: tuple[str, ...], seed: int) -> list[str]:
    """What is sent when tokens come in random bunches."""
    rng = random.Random(seed)
    growing, sent, left = Growing(spelling, stops), [], list(tokens)
    while left:
        size = rng.randint(1, 3)
        growing.add(left[:size])
        del left[:size]
        sent.append(growing.take())
    sent.append(growing.rest(spelling.text(tokens, stops)))
    return sent


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="abc é漢🙂", max_size=12),
    st.lists(st.text(alphabet="abé漢", min_size=1, max_size=3), max_size=2),
    st.integers(0, 99),
)
def test_the_pieces_of_a_stream_are_the_answer(text: str, stops: list[str], seed: int) -> None:
    tokens = list(bpe()(text, add_special_tokens=False)["input_ids"])
    spelling = Spelling(bpe())
    wanted = cut(text, stops)
    assert spelling.text(tokens, stops) == wanted
    assert "".join(streamed(spelling, tokens, tuple(stops), seed)) == wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 289), max_size=12), st.integers(0, 99))
def test_any_ids_stream_as_they_read_at_last(tokens: list[int], seed: int) -> None:
    spelling = Spelling(bpe())
    assert "".join(streamed(spelling, tokens, (), seed)) == spelling.text(tokens)


def test_nothing_unfinished_is_sent() -> None:
    spelling = Spelling(bpe())
    growing = Growing(spelling, ("END",))
    smile = list(bpe()("a🙂", add_special_tokens=False)["input_ids"])
    assert len(smile) > 2
    growing.add(smile[:-1])
    assert growing.take() == "a"
    growing.add(smile[-1:])
    assert growing.take() == "🙂"
    growing.add(bpe()("xEN", add_special_tokens=False)["input_ids"])
    assert growing.take() == "x"
    growing.add(bpe()("Q", add_special_tokens=False)["input_ids"])
    assert growing.take() == "ENQ"


def test_words_are_joined_by_spaces() -> None:
    spelling = Spelling(words())
    tokens = list(words()("4 + 7 stop 4", add_special_tokens=False)["input_ids"])
    assert spelling.text(tokens) == "4 + 7 stop 4"
    assert spelling.text(tokens, ("stop",)) == "4 + 7 "
    assert "".join(streamed(spelling, tokens, (), 1)) == "4 + 7 stop 4"
    names = [spelling.name(token, first=at == 0) for at, token in enumerate(tokens)]
    assert names == ["4", " +", " 7", " stop", " 4"]
    assert spelling.offsets(tokens, 0, True) == [0, 1, 3, 5, 10]


def test_offsets_and_names_of_bytes() -> None:
    spelling = Spelling(bpe())
    tokens = list(bpe()("a漢b", add_special_tokens=False)["input_ids"])
    offsets = spelling.offsets(tokens, 3, True)
    assert (offsets[0], offsets[-1]) == (3, 5)
    assert offsets == sorted(offsets)
    joined = b"".join(spelling.bytes(token, first=False) for token in tokens)
    assert joined.decode() == "a漢b"
    assert spelling.name(bpe().eos_token_id, True) == "<eos>"
    broken = [spelling.name(token, False) for token in tokens if spelling.name(token, False)[:6] == "bytes:"]
    assert all(name.startswith("bytes:\\x") for name in broken)
    assert spelling.name(10_000, False) == ""


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("abc", (), "abc"),
        ("abc", ("c", "b"), "a"),
        ("abc", ("x",), "abc"),
        ("abc", ("a",), ""),
        ("aab", ("ab", "aab"), ""),
    ],
)
def test_the_first_stop_string_ends_a_text(text: str, stops: tuple[str, ...], wanted: str) -> None:
    assert cut(text, stops) == wanted
