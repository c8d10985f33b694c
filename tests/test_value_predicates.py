"""The named predicates, with their edge cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.predicates import predicate


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
