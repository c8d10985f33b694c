"""Judges: vetoes, failing predicates, built-in rules with their edge cases, the cache, and the shift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import CachedJudge, Rule, RuleJudge, predicate, shift


class Recorder:
    """Judges by the partial's first letter and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
        self.asked += list(zip(prompts, partials, strict=True))
        return np.array([{"+": 1, "-": -1}.get(text[:1], 0) for text in partials], dtype=np.int8)


def test_a_veto_beats_an_accept_whatever_the_order() -> None:
    good = Rule("good", lambda prompt, partial: "g" in partial, 1)
    bad = Rule("bad", lambda prompt, partial: "b" in partial, -1)
    for rules in ([good, bad], [bad, good]):
        verdicts = RuleJudge(rules).judge(["p"] * 4, ["", "g", "b", "gb"])
        assert verdicts.dtype == np.int8
        assert verdicts.tolist() == [0, 1, -1, -1]


def test_rules_see_the_prompt() -> None:
    judge = RuleJudge([Rule("echo", lambda prompt, partial: prompt == partial, -1)])
    assert judge.judge(["a", "a"], ["a", "b"]).tolist() == [-1, 0]


def test_a_predicate_that_raises_is_neutral_counted_and_silences_nobody_else() -> None:
    def broken(prompt: str, partial: str) -> bool:
        return bool(1 / len(partial))

    judge = RuleJudge([Rule("broken", broken, -1), Rule("empty", lambda prompt, partial: not partial, 1)])
    assert judge.judge(["p", "p", "p"], ["", "x", ""]).tolist() == [1, -1, 1]
    assert judge.failures == 2
    assert dict(judge.failures_by_rule) == {"broken": 2}
    assert RuleJudge([Rule("broken", broken, -1)]).judge(["p"], [""]).tolist() == [0]


@pytest.mark.parametrize(
    ("name", "holds", "holds_not"),
    [
        ("too_long:3", ["abcd", "    "], ["", "abc"]),
        ("contains:b:c", ["ab:cd"], ["b", "", "B:C"]),
        ("ends_with:.", ["Done.", "Done. \n"], ["Done", ". no", ""]),
        ("matches:^a+$", ["a", "aaa"], ["", "ab"]),
        ("matches:\\d{2}", ["x12y"], ["1 2"]),
        ("unbalanced_parentheses", [")", "(a]", "())", "([)]", "}{"], ["", "(", "(1+[2", "({[]})"]),
        ("repeats_ngram", ["a b c d a b c d", "x x x x x"], ["a b c d", "a b c d a b c", "x x x x", ""]),
        ("repeats_ngram:1", ["a b a"], ["a b", ""]),
        ("repeats_ngram:2", ["a b c a b", "x x x"], ["a b c b a", "x x"]),
    ],
)
def test_built_in_predicates(name: str, holds: list[str], holds_not: list[str]) -> None:
    test = predicate(name)
    assert [text for text in holds if not test("prompt", text)] == []
    assert [text for text in holds_not if test("prompt", text)] == []


@given(st.text(alphabet="([{}])a", max_size=12))
def test_unbalanced_means_no_continuation_can_close_it(text: str) -> None:
    rest, shorter = "", text.replace("a", "")
    while shorter != rest:
        rest, shorter = shorter, shorter.replace("()", "").replace("[]", "").replace("{}", "")
    assert predicate("unbalanced_parentheses")("", text) == any(letter in ")]}" for letter in rest)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_lang:3", "did you mean 'too_long'"),
        ("", "unknown rule ''"),
        ("match:x", "did you mean 'matches'"),
        ("too_long", "whole number"),
        ("too_long:0", "whole number"),
        ("too_long:x", "whole number"),
        ("too_long:²", "whole number"),
        ("repeats_ngram:-1", "whole number"),
        ("contains:", "needs a text"),
        ("matches:(", "not a regular expression"),
        ("unbalanced_parentheses:2", "no argument"),
    ],
)
def test_bad_rule_names_say_the_way_out(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predicate(name)


def test_rules_from_names() -> None:
    judge = RuleJudge.from_names({"too_long:5": -1, "ends_with:!": 1})
    assert judge.judge([""] * 3, ["ok!", "much too long!", "ok"]).tolist() == [1, -1, 0]
    assert [rule.name for rule in judge.rules] == ["too_long:5", "ends_with:!"]


def test_unusable_rule_sets_and_batches_are_refused() -> None:
    rule = Rule("a", lambda prompt, partial: True, 1)
    with pytest.raises(InputError, match="at least one"):
        RuleJudge([])
    with pytest.raises(InputError, match="twice"):
        RuleJudge([rule, rule])
    with pytest.raises(InputError, match="verdict 0"):
        Rule("a", rule.predicate, 0)
    with pytest.raises(InputError, match="2 prompts and 1"):
        RuleJudge([rule]).judge(["p", "q"], ["x"])
    assert RuleJudge([rule]).judge([], []).shape == (0,)


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
        def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.int8]:
            return np.array(answer)  # type: ignore[return-value]

    judge = CachedJudge(Odd())
    with pytest.raises(InputError, match="verdicts"):
        judge.judge(["p", "p"], ["a", "b"])
    assert (judge.calls, judge.hits) == (0, 0)
    with pytest.raises(InputError, match="capacity"):
        CachedJudge(Odd(), 0)


@given(st.floats(-1, 1), st.sampled_from([-1, 0, 1]), st.floats(0, 3))
def test_the_shift_is_clipped_and_moves_towards_the_verdict(value: float, verdict: int, eta: float) -> None:
    moved = shift([value], [verdict], eta)
    assert moved.dtype == np.float32
    assert float(moved[0]) == pytest.approx(min(1.0, max(-1.0, value + eta * verdict)), abs=1e-6)


def test_the_shift_uses_the_judge_s_own_type_and_refuses_bad_eta() -> None:
    verdicts = np.array([1, -1, 0], dtype=np.int8)
    assert shift(np.zeros(3, dtype=np.float32), verdicts, 0.25).tolist() == [0.25, -0.25, 0.0]
    for eta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="eta"):
            shift([0.0], [1], eta)
