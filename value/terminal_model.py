"""A small language model asked whether an answer is complete, by the probabilities of two labels.

The reading is a label judge's; here its two labels become a probability. It does not say whether the answer
is right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenzero.policy.student import Student
from tokenzero.value.label_judge import LabelJudge

TEMPLATE = "Question: {prompt}\nAnswer so far: {answer}\nIs the answer complete? Reply yes or no:"
LABELS = (" yes", " no")


class LabelProbability:
    """p(yes) / (p(yes) + p(no)) after a template that shows {prompt} and the {answer} so far.

    labels: what the model writes for complete and for not complete. Raises InputError for another template
    and for labels that the model's tokenizer cannot tell apart.
    """

    def __init__(
        self,
        student: Student,
        *,
        template: str = TEMPLATE,
        labels: tuple[str, str] = LABELS,
        batch_size: int = 16,
    ) -> None:
        complete, open_ = labels
        self._judge = LabelJudge(
            student, template=template, labels={complete: 1, open_: -1}, rows=batch_size, name="complete"
        )

    @property
    def forwarded_tokens(self) -> int:
        """What this has cost so far."""
        return self._judge.tokens

    def __call__(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.float64]:
        """f64 [L]; 0 where the model could not read a text or had no room for it."""
        found = self._judge.scores(prompts, partials)
        complete: NDArray[np.float64] = np.exp(found[:, 0] - np.logaddexp(found[:, 0], found[:, 1]))
        return np.nan_to_num(complete, nan=0.0)
