"""GSM8K (Cobbe et al. 2021): grade school word problems, worked solutions, and a number after "####".

Rows have the fields question and answer, as openai/grade-school-math and the data set openai/gsm8k give them.
An answer is right if the number it states at its end equals the reference exactly; how it got there is not
looked at, and a number that is not stated as the final answer counts for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import (
    PLAIN,
    closing,
    concluded,
    final_number,
    read_number,
    states_number,
)
from tokenzero.tasks.option_checks import require
from tokenzero.tasks.text_rows import Row
from tokenzero.tasks.text_task import Question, TextConfig, TextTask

_ANNOTATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Gsm8kConfig(TextConfig):
    """As `TextConfig`. annotations: keep the calculator's "<<16-3=13>>" in demonstrations."""

    task: ClassVar[str] = "gsm8k"

    dataset: str = "openai/gsm8k"
    subset: str = "main"
    annotations: bool = False

    def __post_init__(self) -> None:
        way_out = "use hashes, boxed or sentence: the number must be marked"
        require(self.task, self, self.answer_format != PLAIN, "answer_format", way_out)
        super().__post_init__()


class Gsm8kTask(TextTask):
    """GSM8K under one `Gsm8kConfig`."""

    config: Gsm8kConfig

    def __init__(self, config: Gsm8kConfig | None = None, name: str = "gsm8k") -> None:
        super().__init__(config or Gsm8kConfig(), name)

    def _read(self, row: Row) -> Question:
        answer = row.text("answer")
        steps, mark, reference = (part.strip() for part in answer.rpartition("####"))
        if not mark or read_number(reference, units=False) is None:
            raise InputError(
                f"{row.where}: field 'answer' ends in {answer[-40:]!r}; end it with '#### NUMBER'"
            )
        if not self.config.annotations:
            steps = _ANNOTATION.sub("", steps)
        solution = concluded(steps, closing(self.config.answer_format, reference))
        return Question(row.text("question"), solution, reference, self.name)

    def _states_answer(self, answer: str) -> bool:
        return states_number(answer, sentence=self.config.answer_format == "sentence")

    def final_answer(self, answer: str) -> str:
        """The number that it states, as an exact fraction."""
        stated = final_number(answer)
        return "" if stated is None else str(stated)

    def _is_right(self, answer: str, reference: str) -> bool:
        stated = final_number(answer)
        return stated is not None and stated == read_number(reference)
