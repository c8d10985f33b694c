"""AQuA (Ling et al. 2017): algebra questions with five choices, rationales, and the letter of the right one.

Rows have the fields question, options ("A)32400", ...), rationale and correct, as google-deepmind/AQuA and
the data set deepmind/aqua_rat give them. An answer is right if the letter it states at its end is the
reference. Rationales end in many ways, so a demonstration is the rationale and, below it, the letter in the
format that is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import PLAIN, closing, concluded, final_letter, states_letter
from tokenzero.tasks.option_checks import require
from tokenzero.tasks.text_rows import Row
from tokenzero.tasks.text_task import Question, TextConfig, TextTask

LETTERS = "ABCDE"

_CHOICE = re.compile(r"\(?([A-Z])\s*[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class AquaConfig(TextConfig):
    """As `TextConfig`; a template must have a place for {options}."""

    task: ClassVar[str] = "aqua"

    dataset: str = "deepmind/aqua_rat"
    subset: str = "raw"

    def __post_init__(self) -> None:
        way_out = "use hashes, boxed or sentence: the letter must be marked"
        require(self.task, self, self.answer_format != PLAIN, "answer_format", way_out)
        super().__post_init__()


class AquaTask(TextTask):
    """AQuA under one `AquaConfig`."""

    config: AquaConfig

    def __init__(self, config: AquaConfig | None = None, name: str = "aqua") -> None:
        super().__init__(config or AquaConfig(), name)
        if not self._template.shows_options():
            raise InputError(
                "aqua template shows no choices; write {options} on a line of its own where they go"
            )

    def _read(self, row: Row) -> Question:
        choices = [_CHOICE.fullmatch(choice) for choice in row.texts("options")]
        letters = "".join(choice[1] for choice in choices if choice)
        if len(letters) != len(choices) or not LETTERS.startswith(letters):
            raise InputError(
                f"{row.where}: field 'options' is {row.fields['options']!r}; write 'A)...' to 'E)...'"
            )
        correct = row.text("correct")
        if len(correct) != 1 or correct not in letters:
            raise InputError(f"{row.where}: field 'correct' is {correct!r}; give one letter of {letters}")
        steps = row.text("rationale", empty=True)
        solution = concluded(steps, closing(self.config.answer_format, correct))
        options = "\n".join(f"{choice[1]}) {choice[2].strip()}" for choice in choices if choice)
        return Question(row.text("question"), solution, correct, self.name, options)

    def _states_answer(self, answer: str) -> bool:
        return states_letter(answer, LETTERS, sentence=self.config.answer_format == "sentence")

    def final_answer(self, answer: str) -> str:
        """The letter that it states."""
        return final_letter(answer, LETTERS) or ""

    def _is_right(self, answer: str, reference: str) -> bool:
        return final_letter(answer, LETTERS) == reference
