"""Judge templates: places are checked, and nothing that is put in opens another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge_template import FIELDS, JudgeTemplate, template_or_default

PIECES = st.sampled_from(["{", "}", "a", "{}", "{0}", "{answer", "{prompt}", "{answer}", "{constitution}"])
TEXTS = st.lists(PIECES, max_size=6).map("".join)


@given(TEXTS, TEXTS, TEXTS)
def test_each_text_goes_in_once_and_whole(prompt: str, answer: str, constitution: str) -> None:
    template = JudgeTemplate("<{prompt}|{answer}|{answer}|{constitution}>{", constitution or "x")
    assert template.fill(prompt, answer) == f"<{prompt}|{answer}|{answer}|{constitution or 'x'}>" + "{"


def test_braces_around_anything_else_are_braces() -> None:
    template = JudgeTemplate('{"q": "{prompt}", {0} {} {a b} {answer}}')
    assert template.fill("P", "A") == '{"q": "P", {0} {} {a b} A}'
    assert template.ending == "}"
    assert JudgeTemplate("{prompt}{answer}").ending == ""


@pytest.mark.parametrize(
    ("text", "constitution", "message"),
    [
        ("{prompt}", "", r"no \{answer\}"),
        ("{answer}", "", r"no \{prompt\}"),
        ("", "", r"no \{prompt\}"),
        ("{prompt} {anser} {answer}", "", r"did you mean \{answer\}"),
        ("{prompt} {Answer} {answer}", "", r"did you mean \{answer\}"),
        ("{prompt} {x} {answer}", "", "which is no place"),
        ("{prompt} {answer}", "Be brief.", r"no \{constitution\}"),
        ("{prompt} {answer} {constitution}", "", "there is none"),
    ],
)
def test_bad_templates_say_the_way_out(text: str, constitution: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        JudgeTemplate(text, constitution)


def test_the_defaults_have_a_place_for_everything_there_is() -> None:
    filled = template_or_default(None, "C").fill("P", "A")
    assert [filled.count(letter) >= 1 for letter in "PAC"] == [True] * 3
    assert "{" not in filled
    assert "constitution" not in {field for _, field in template_or_default(None).pieces}
    assert {field for _, field in template_or_default(None, "C").pieces if field} == set(FIELDS)
