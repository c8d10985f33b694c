"""A small language model asked whether an answer is complete, by the probabilities of two labels.

It generates nothing: one forward a label. It does not say whether the answer is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.value.continuation_log_probs import continuation_log_probs, continuation_tokens

TEMPLATE = "Question: {prompt}\nAnswer so far: {partial}\nIs the answer complete? Reply yes or no:"
LABELS = (" yes", " no")


class LabelProbability:
    """p(yes) / (p(yes) + p(no)) after a template that shows the prompt and the partial answer.

    template: holds {prompt} and {partial} once each. labels: what the model writes for complete and for not
    complete. forwarded_tokens: what this has cost so far. Raises InputError for another template and for
    labels that the model's tokenizer cannot tell apart.
    """

    def __init__(
        self,
        student: Student,
        *,
        template: str = TEMPLATE,
        labels: tuple[str, str] = LABELS,
        batch_size: int = 16,
    ) -> None:
        check_template(template)
        self.student = student
        self.template = template
        self.batch_size = batch_size
        self.forwarded_tokens = 0
        self._labels = tuple(continuation_tokens(student, label) for label in labels)
        yes, no = self._labels
        if not yes or not no or yes[: len(no)] == no or no[: len(yes)] == yes:
            raise InputError(
                f"labels {labels[0]!r} and {labels[1]!r} are tokens {yes} and {no}; "
                "give two that do not begin alike"
            )

    def __call__(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.float64]:
        """f64 [L]. Raises InputError for texts the model cannot read or has no room for."""
        asked = [self._context(*row) for row in zip(prompts, partials, strict=True)]
        contexts = [context for context in asked for _ in self._labels]
        labels = [*self._labels] * len(asked)
        found = continuation_log_probs(self.student, contexts, labels, self.batch_size)
        pairs = zip(contexts, labels, strict=True)
        self.forwarded_tokens += sum(len(context) + len(label) for context, label in pairs)
        sums = np.array([log_probs.sum() for log_probs in found]).reshape(len(asked), 2)
        complete: NDArray[np.float64] = np.exp(sums[:, 0] - np.logaddexp(sums[:, 0], sums[:, 1]))
        return complete

    def _context(self, prompt: str, partial: str) -> list[int]:
        # in one pass, so that a placeholder written in the prompt or the answer stays as it is
        texts = {"{prompt}": prompt, "{partial}": partial}
        shown = re.sub(r"\{prompt\}|\{partial\}", lambda found: texts[found[0]], self.template)
        return encode_prompt(self.student.tokenizer, shown)


def check_template(template: str) -> None:
    """Raise InputError unless the template holds {prompt} and {partial} once each."""
    if template.count("{prompt}") != 1 or template.count("{partial}") != 1:
        raise InputError(
            f"the completeness template {template[:40]!r} must hold {{prompt}} and {{partial}} once each"
        )
