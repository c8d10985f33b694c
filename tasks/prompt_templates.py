"""Prompts for questions: named templates, a user's own, and worked examples before the question.

A template holds {question}, {options} (one choice a line) and {answer_format} (how to state the result); to
write a brace around a word, double it. Fields are filled in one pass, so what a question itself contains is
never taken for a field. Chat templates belong to tokenizers, which this file does not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import PLAIN, closing

FIELDS = ("question", "options", "answer_format")

TEMPLATES = {
    "plain": "Question: {question}\n{options}\nAnswer:\n",
    "chain-of-thought": (
        "Question: {question}\n{options}\n"
        'Reason step by step, and end with a line "{answer_format}"\nSolution:\n'
    ),
    # Kojima et al. 2022, Large Language Models are Zero-Shot Reasoners
    "step-by-step": "Q: {question}\n{options}\nA: Let's think step by step.\n",
}
"""Named templates. Each ends with a line end, so that an answer begins on a line of its own."""

BETWEEN_EXAMPLES = "\n\n"

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")
_EMPTY_LINE_OF_OPTIONS = re.compile(r"(?m)^\{options\}\n?|\n\{options\}$")


@dataclass(frozen=True)
class PromptTemplate:
    """A checked template: ``text`` with fields. ``answer_format``: one of ANSWER_FORMATS."""

    text: str
    answer_format: str

    def __post_init__(self) -> None:
        fields = {found[1] for found in _FIELD.finditer(self.text) if found[1]}
        for field in sorted(fields - set(FIELDS)):
            raise InputError(
                f"template has a field {{{field}}}; use {', '.join(FIELDS)}, or double the braces for text"
            )
        if "question" not in fields:
            raise InputError(f"template {self.text!r} shows no question; write {{question}} where it goes")
        if "answer_format" in fields and self.answer_format == PLAIN:
            raise InputError(
                "template asks for a marked answer and answer_format is 'plain'; set answer_format to hashes"
            )

    def shows_options(self) -> bool:
        """Whether choices have a place in it."""
        return any(found[1] == "options" for found in _FIELD.finditer(self.text))

    def render(self, question: str, options: str = "") -> str:
        """The prompt for one question. Without options their line is left out."""
        text = self.text if options else _EMPTY_LINE_OF_OPTIONS.sub("", self.text)
        values = {
            "question": question,
            "options": options,
            "answer_format": closing(self.answer_format, "ANSWER"),
        }
        return _FIELD.sub(lambda found: values[found[1]] if found[1] else found[0][0], text)


def open_template(name_or_text: str, answer_format: str) -> PromptTemplate:
    """A named template, or the user's own text if it has a field or more than one line.

    Raises InputError for an unknown name, an unknown field or a template without {question}.
    """
    if name_or_text in TEMPLATES:
        return PromptTemplate(TEMPLATES[name_or_text], answer_format)
    if "{" not in name_or_text and "\n" not in name_or_text:
        near = get_close_matches(name_or_text, TEMPLATES, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(TEMPLATES)}"
        raise InputError(
            f"template {name_or_text!r} does not exist; {way_out} or write your own with {{question}}"
        )
    return PromptTemplate(name_or_text, answer_format)


def with_examples(prompt: str, examples: Sequence[tuple[str, str]]) -> str:
    """The prompt after worked examples, pairs of (prompt, answer)."""
    return "".join(shown + answer + BETWEEN_EXAMPLES for shown, answer in examples) + prompt
