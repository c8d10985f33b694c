"""Any questions with reference answers, from files or a data set, compared in the way the user names.

compare: "exact" the same text; "text" the same up to case, white space and punctuation at the ends;
"contains" the reference's words somewhere in the answer; "number" the same number (within ``tolerance``);
"math" the same mathematics by math-verify; "letter" the same choice. All look at the final answer that is
stated, and where none is marked at the whole text; "contains" then rewards naming every possibility.

Overlap measures such as BLEU and ROUGE are rewards, not comparisons; for them "text" says what counts as
solved.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import isfinite
from typing import ClassVar

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import (
    PLAIN,
    closing,
    concluded,
    final_letter,
    final_number,
    final_text,
    states_letter,
    states_number,
    states_text,
)
from tokenzero.tasks.math_equality import load_math_verify, math_equal
from tokenzero.tasks.option_checks import require
from tokenzero.tasks.problem import PublicProblem
from tokenzero.tasks.text_rows import Row
from tokenzero.tasks.text_task import Question, TextConfig, TextTask

COMPARISONS = ("exact", "text", "contains", "number", "math", "letter")
LETTERS = "ABCDEFGHIJ"

_ENDS = re.compile(
    r"^[\s\"'`*_(\[{\u201c\u2018]+|[\s\"'`*_)\]}\u201d\u2019.,;:!?…]+$"
)  # a sign or a point before digits stays


@dataclass(frozen=True)
class QuestionAnswerConfig(TextConfig):
    """As `TextConfig`, and: question, answer, reasoning, options, tag, public_reference: the names of the
    fields; all but the first two may be "" for none. reasoning: the steps before the answer (a chain of
    thought); demonstrations and references then hold them and the line that states the answer, and only what
    is stated is compared. compare: one of COMPARISONS. tolerance: the largest difference between numbers that
    still counts as equal.
    """

    task: ClassVar[str] = "question-answer"

    validation_share: float = 0.1
    test_share: float = 0.1
    template: str = "plain"
    answer_format: str = PLAIN
    question: str = "question"
    answer: str = "answer"
    reasoning: str = ""
    options: str = ""
    tag: str = ""
    public_reference: str = ""
    compare: str = "text"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.task
        way_out = f"use one of {', '.join(COMPARISONS)}"
        require(name, self, self.compare in COMPARISONS, "compare", way_out)
        require(name, self, isfinite(self.tolerance) and self.tolerance >= 0, "tolerance", "use 0 or more")
        if self.tolerance and self.compare != "number":
            raise InputError(
                f"{name} tolerance is {self.tolerance} and compare {self.compare!r}; compare number"
            )
        for gold in ("answer", "reasoning"):
            field = getattr(self, gold)
            if field and field in (self.question, self.public_reference, self.options, self.tag):
                raise InputError(
                    f"{name} {gold} is field {field!r}, which another option shows to everyone; "
                    "name another field there"
                )
        if self.reasoning and self.answer_format == PLAIN:
            raise InputError(
                f"{name} reasoning is field {self.reasoning!r} and answer_format 'plain', which does not "
                "mark the answer after it; use sentence, hashes or boxed"
            )


class QuestionAnswerTask(TextTask):
    """Questions and answers under one `QuestionAnswerConfig`."""

    config: QuestionAnswerConfig

    def __init__(self, config: QuestionAnswerConfig | None = None, name: str = "question-answer") -> None:
        super().__init__(config or QuestionAnswerConfig(), name)
        self._tolerance = Fraction(str(self.config.tolerance))  # the decimal that was written, exactly
        if self.config.compare == "math":
            load_math_verify()
        if self.config.options and not self._template.shows_options():
            raise InputError(f"{name} options is {self.config.options!r}; write {{options}} in the template")

    def _read(self, row: Row) -> Question:
        config, reference = self.config, row.text(self.config.answer)
        self._check_reference(row, reference)
        marked = config.answer_format == PLAIN or self._states_answer(reference + "\n")
        solution = reference if marked else closing(config.answer_format, reference)
        if config.reasoning:
            reference = solution = concluded(row.text(config.reasoning, empty=True), solution)
        return Question(
            text=row.text(config.question),
            solution=solution,
            reference=reference,
            tag=row.text(config.tag) if config.tag else self.name,
            options=self._options(row) if config.options else "",
            public_reference=row.text(config.public_reference) if config.public_reference else "",
        )

    def _options(self, row: Row) -> str:
        if isinstance(row.fields.get(self.config.options), str):
            return row.text(self.config.options)
        return "\n".join(row.texts(self.config.options))

    def _check_reference(self, row: Row, reference: str) -> None:
        """Refuse a reference that no answer could equal."""
        compare = self.config.compare
        readable = {
            "number": lambda: final_number(reference) is not None,
            "letter": lambda: final_letter(reference, LETTERS) is not None,
            "contains": lambda: bool(normalised(final_text(reference))),
            "text": lambda: bool(normalised(final_text(reference))),
        }
        if compare in readable and not readable[compare]():
            raise InputError(
                f"{row.where}: field {self.config.answer!r} is {reference[:60]!r}, which states nothing to "
                f"compare as {compare}; mend the row or use another compare"
            )

    @cached_property
    def _public_references(self) -> dict[str, str]:
        return {
            self._problem(question).public.id: question.public_reference
            for own in self._questions.values()
            for question in own.values()
        }

    def public_reference(self, problem: PublicProblem) -> str:
        """The text of the public reference's field, which test-time search may see; "" if there is none."""
        return self._public_references.get(problem.id, "")

    def _states_answer(self, answer: str) -> bool:
        sentence = self.config.answer_format == "sentence"
        if self.config.compare == "number":
            return states_number(answer, sentence)
        if self.config.compare == "letter":
            return states_letter(answer, LETTERS, sentence)
        return states_text(answer, sentence)

    def final_answer(self, answer: str) -> str:
        """What it states: the number, the letter or the text, by ``compare``."""
        compare = self.config.compare
        if compare == "letter":
            return final_letter(answer, LETTERS) or ""
        stated = final_text(answer)
        number = final_number(answer) if compare in ("number", "math") else None
        if number is not None:
            return str(number)
        if compare == "number":
            return ""
        return normalised(stated) if compare in ("text", "contains") else stated

    def _is_right(self, answer: str, reference: str) -> bool:
        if self.config.compare == "number":
            return self._same_number(answer, reference)
        if self.config.compare == "letter":
            return final_letter(answer, LETTERS) == final_letter(reference, LETTERS)
        stated, wanted = final_text(answer), final_text(reference)
        if self.config.compare == "math":
            return math_equal(wanted, stated)
        if self.config.compare == "exact":
            return stated == wanted
        if self.config.compare == "text":
            return normalised(stated) == normalised(wanted)
        return contains(normalised(stated), normalised(wanted))

    def _same_number(self, answer: str, reference: str) -> bool:
        stated, wanted = final_number(answer), final_number(reference)
        return stated is not None and wanted is not None and abs(stated - wanted) <= self._tolerance


def normalised(text: str) -> str:
    """The text in compatibility form (NFKC) and folded case, with single spaces, and without quotes and
    brackets at its ends or punctuation after it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _ENDS.sub("", " ".join(folded.split()))


def contains(text: str, part: str) -> bool:
    """Whether ``part`` stands in ``text`` as whole words; a number is no part of a longer or signed one."""
    before, after = r"(?<!\w)", r"(?!\w)"
    if part[:1].isdigit():
        before = r"(?<![\w.,\-])"
    if part[-1:].isdigit():
        after = r"(?!\w|[.,/]\d)"
    return bool(part) and re.search(before + re.escape(part) + after, text) is not None
