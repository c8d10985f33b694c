"""Prompts from templates."""

from __future__ import annotations

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.prompt_templates import TEMPLATES, open_template, with_examples


def test_named_templates_end_with_a_line_end_and_drop_the_line_of_options() -> None:
    for name in TEMPLATES:
        template = open_template(name, "hashes")
        assert template.shows_options()
        bare, full = template.render("Why?"), template.render("Why?", "A) 1\nB) 2")
        assert bare.endswith("\n")
        assert "{" not in bare + full
        assert "\n\n" not in bare
        assert bare == full.replace("A) 1\nB) 2\n", "")
    assert open_template("plain", "plain").render("Why?") == "Question: Why?\nAnswer:\n"


@pytest.mark.parametrize(
    ("answer_format", "line"),
    [("hashes", "#### ANSWER"), ("boxed", "\\boxed{ANSWER}"), ("sentence", "The answer is ANSWER.")],
)
def test_the_answer_format_is_told(answer_format: str, line: str) -> None:
    assert f'"{line}"' in open_template("chain-of-thought", answer_format).render("Why?")


def test_own_templates_are_filled_in_one_pass() -> None:
    template = open_template("{question}|{options}|{{x}} \\boxed{}", "hashes")
    assert (
        template.render("{options} {0} {question.x} %s", "A")
        == "{options} {0} {question.x} %s|A|{x} \\boxed{}"
    )
    assert open_template("\\boxed{{{question}}}", "hashes").render("Q") == "\\boxed{Q}"
    assert open_template("{options}\n{question}", "hashes").render("Q") == "Q"
    assert open_template("{question}\n{options}", "hashes").render("Q") == "Q"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plan", "template 'plan' does not exist; did you mean 'plain'"),
        ("zzz", "use one of plain, chain-of-thought, step-by-step"),
        ("{question} {answer}", r"has a field \{answer\}; use question, options, answer_format"),
        ("{question} {reference}", r"has a field \{reference\}"),
        ("Answer\nme", "shows no question"),
        ("{options}", "shows no question"),
        ("{{question}}", "shows no question"),
        ("", "does not exist"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_template(text, "hashes")


def test_a_marked_answer_needs_a_format() -> None:
    with pytest.raises(InputError, match="answer_format is 'plain'"):
        open_template("chain-of-thought", "plain")


def test_examples_stand_before_the_question() -> None:
    assert with_examples("Q3", [("Q1\n", "A1"), ("Q2\n", "A2")]) == "Q1\nA1\n\nQ2\nA2\n\nQ3"
    assert with_examples("Q", []) == "Q"
