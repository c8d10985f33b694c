"""The judge's memory: asked once, per version, least recently used leaves first, failures are asked again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.cached_judge import CachedJudge


class Recorder:
    """Judges by the partial's first letter and remembers what it was asked."""

    name = "recorder"

    def __init__(self) -> None:
        self.version = "1"
        self.failures = 0
        self.tokens = 0
        self.asked: list[tuple[str, str]] = []

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
        self.asked += list(zip(prompts, partials, strict=True))
        return np.array([{"+": 1, "-": -1}.get(text[:1], 0) for text in partials], dtype=np.int8)


def test_the_cache_asks_each_pair_once_and_keeps_the_order() -> None:
    inner = Recorder()
    judge = CachedJudge(inner)
    assert judge.judge(["p", "p", "q", "p"], ["+", "-", "+", "+"]).tolist() == [1, -1, 1, 1]
    assert inner.asked == [("p", "+"), ("p", "-"), ("q", "+")]
    assert judge.judge(["q", "p", "p"], ["0", "-", "+"]).tolist() == [0, -1, 1]
    assert inner.asked[3:] == [("q", "0")]
    assert (judge.calls, judge.hits) == (4, 3)
    judge.judge(["q"], ["0"])
    assert len(inner.asked) == 4


def test_the_cache_forgets_the_least_recently_used_even_inside_one_batch() -> None:
    inner = Recorder()
    judge = CachedJudge(inner, capacity=2)
    assert judge.judge(["p"] * 4, ["+1", "-2", "3", "+1"]).tolist() == [1, -1, 0, 1]
    judge.judge(["p", "p"], ["3", "+1"])
    assert len(inner.asked) == 3
    judge.judge(["p"], ["-2"])
    assert len(inner.asked) == 4


@pytest.mark.parametrize("answer", [[1], [2, 0], [0.5, 0], [[0, 0]]])
def test_the_cache_refuses_verdicts_that_are_none(answer: list[float]) -> None:
    class Odd:
        name, version, failures = "odd", "1", 0

        def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
            return np.array(answer)  # type: ignore[return-value]

    judge = CachedJudge(Odd())
    with pytest.raises(InputError, match="verdicts"):
        judge.judge(["p", "p"], ["a", "b"])
    assert (judge.calls, judge.hits) == (0, 0)
    with pytest.raises(InputError, match="capacity"):
        CachedJudge(Odd(), 0)


def test_another_version_is_asked_anew_and_an_old_one_is_still_known() -> None:
    inner = Recorder()
    judge = CachedJudge(inner)
    judge.judge(["p", "p"], ["+", "-"])
    inner.version = "2"
    assert judge.version == "2"
    assert judge.judge(["p", "p"], ["+", "-"]).tolist() == [1, -1]
    assert (len(inner.asked), judge.calls, judge.hits) == (4, 4, 0)
    inner.version = "1"
    judge.judge(["p", "p"], ["+", "-"])
    assert (len(inner.asked), judge.hits) == (4, 2)


def test_neutral_verdicts_of_a_batch_with_failures_are_asked_again() -> None:
    class Flaky(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.down = True

        def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
            verdicts = super().judge(prompts, partials)
            broken = np.array([self.down and text.endswith("?") for text in partials])
            self.failures += int(broken.sum())
            return np.where(broken, 0, verdicts).astype(np.int8)

    inner = Flaky()
    judge = CachedJudge(inner)
    assert judge.judge(["p"] * 4, ["+?", "-", "0", "+?"]).tolist() == [0, -1, 0, 0]
    assert judge.failures == 1
    inner.down = False
    assert judge.judge(["p"] * 3, ["+?", "-", "0"]).tolist() == [1, -1, 0]
    assert [partial for _, partial in inner.asked] == ["+?", "-", "0", "+?", "0"]
    judge.judge(["p"] * 3, ["+?", "-", "0"])
    assert len(inner.asked) == 5


def test_the_cache_passes_on_who_judges_and_what_it_cost() -> None:
    inner = Recorder()
    judge = CachedJudge(inner)
    inner.tokens, inner.failures = 7, 3
    assert (judge.name, judge.version, judge.failures, judge.tokens) == ("recorder", "1", 3, 7)


batches = st.lists(st.lists(st.sampled_from(["+1", "-2", "3", "+4", "5"]), max_size=5), max_size=8)


@given(batches, st.integers(1, 4))
def test_the_cache_is_a_plain_least_recently_used_list(batches: list[list[str]], capacity: int) -> None:
    """Against a naive memory that walks a list, batch by batch."""
    inner = Recorder()
    judge = CachedJudge(inner, capacity)
    known: OrderedDict[str, int] = OrderedDict()
    for batch in batches:
        before = len(inner.asked)
        verdicts = judge.judge(["p"] * len(batch), batch).tolist()
        assert verdicts == [{"+": 1, "-": -1}.get(text[0], 0) for text in batch]
        news = [text for text in dict.fromkeys(batch) if text not in known]
        assert [partial for _, partial in inner.asked[before:]] == news
        for text in batch:
            known.pop(text, None)
            known[text] = 0
        while len(known) > capacity:
            known.popitem(last=False)
