"""Measures of written text against definitions that anyone can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.text_quality import (
    distinct,
    longest_repeat,
    quality,
    repeat_lengths,
    repeated,
    repeated_units,
)

TEXTS = st.text(alphabet="ab\n", max_size=24)


def _naive_lengths(text: str, prompt: str) -> list[int]:
    whole = prompt + text
    found = []
    for end in range(len(prompt) + 1, len(whole) + 1):
        sizes = [
            size
            for size in range(1, end)
            if any(whole[e - size : e] == whole[end - size : end] for e in range(size, end))
        ]
        found.append(max(sizes, default=0))
    return found


@given(text=TEXTS, prompt=TEXTS)
def test_repeats_are_those_of_the_definition(text: str, prompt: str) -> None:
    naive = _naive_lengths(text, prompt)
    assert repeat_lengths(text, prompt).tolist() == naive
    assert longest_repeat(text, prompt) == max(naive, default=0)
    ids = {letter: index for index, letter in enumerate("ab\n")}
    tokens = [ids[letter] for letter in text], [ids[letter] for letter in prompt]
    assert repeat_lengths(*tokens).tolist() == naive


@given(text=TEXTS, prompt=TEXTS, n=st.integers(1, 5))
def test_units_within_repeated_n_grams_are_marked(text: str, prompt: str, n: int) -> None:
    whole, marks = prompt + text, [False] * len(prompt + text)
    for start in range(len(whole) - n + 1):
        if whole[start : start + n] in [whole[i : i + n] for i in range(start)]:
            for at in range(start, start + n):
                marks[at] = True
    # Of an n-gram that began in the prompt and ended in the text, the text's part counts.
    naive = [False] * len(text)
    for end in range(len(prompt), len(whole)):
        gram = whole[end - n + 1 : end + 1]
        if end >= n - 1 and gram in [whole[i : i + n] for i in range(end - n + 1)]:
            for at in range(max(len(prompt), end - n + 1), end + 1):
                naive[at - len(prompt)] = True
    assert repeated(text, n, prompt).tolist() == naive == marks[len(prompt) :]


def test_known_texts() -> None:
    assert distinct("aaaa", 1) == 0.25
    assert distinct("abab", 2) == pytest.approx(2 / 3)
    assert distinct("ab", 3) == distinct([], 1) == 1.0
    assert longest_repeat("abcabcabc") == 6  # the two occurrences overlap
    assert longest_repeat("bcd", "abcx") == 2
    assert longest_repeat("xyz", "aaaa") == 0
    assert repeated_units("abcdabcd", 4) == 0.5
    assert repeated_units("", 2) == 0.0
    with pytest.raises(InputError, match="at least 1"):
        distinct("ab", 0)
    with pytest.raises(InputError, match="two of one kind"):
        repeat_lengths("ab", [1, 2])


def test_repeated_tokens_earn_no_likelihood() -> None:
    def log_probs(prompt: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
        return np.full(len(continuation), -0.5)

    found = quality([9], [1, 2, 3, 1, 2, 3], log_probs, n=3, charge=2.0)
    assert found.nats == pytest.approx(0.5)
    assert found.fresh_nats == pytest.approx((3 * 0.5 + 3 * 2.0) / 6)
    assert found.repeated == 0.5
    assert found.longest_repeat == 3
    assert found.distinct[0] == 0.5
    dear = quality([9], [1, 2, 3, 1, 2, 3], lambda p, c: np.full(len(c), -3.0), n=3, charge=2.0)
    assert dear.fresh_nats == dear.nats == pytest.approx(3.0)  # a charge makes nothing cheaper
    assert quality([9], [1, 2], log_probs, characters=4).nats == pytest.approx(0.25)
    with pytest.raises(InputError, match="empty continuation"):
        quality([9], [], log_probs)
