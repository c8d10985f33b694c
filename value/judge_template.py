"""The text a model judge reads: a template with places for the prompt, the answer and the constitution.

Only `{prompt}`, `{answer}` and `{constitution}` are places; every other brace is a brace. What is put in is
never searched for places again, so no answer can open one. It knows no tokenizer and no labels.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from tokenzero.mcts.errors import InputError

FIELDS = ("prompt", "answer", "constitution")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

PLAIN = "Problem: {prompt}\nAnswer so far: {answer}\nIs the answer right so far, good or bad?\nVerdict:"
"""The default."""

WITH_CONSTITUTION = (
    "Judge the answer by these articles.\n{constitution}\n\n"
    "Problem: {prompt}\nAnswer so far: {answer}\nIs the answer good or bad?\nVerdict:"
)
"""The default where there is a constitution."""


class JudgeTemplate:
    """A checked template. `pieces` are its texts and places in order: (text, "") or ("", field).

    Raises InputError when {prompt} or {answer} is missing, a place is unknown, or {constitution} is there
    without a constitution or the other way round.
    """

    def __init__(self, text: str, constitution: str = "") -> None:
        parts = _PLACE.split(text)
        named = parts[1::2]
        for field in named:
            if field not in FIELDS:
                near = get_close_matches(field, FIELDS, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else "use {prompt}, {answer}, {constitution}"
                raise InputError(f"judge template has {{{field}}}, which is no place; {hint}")
        for field in ("prompt", "answer"):
            if field not in named:
                raise InputError(f"judge template has no {{{field}}}; say where it goes")
        if constitution and "constitution" not in named:
            raise InputError("judge template has no {constitution}, and there is one; say where it goes")
        if "constitution" in named and not constitution:
            raise InputError("judge template has {constitution}, and there is none; name one or drop it")
        self.text = text
        self.constitution = constitution
        self.pieces = tuple(
            ("", part) if index % 2 else (part, "") for index, part in enumerate(parts) if part
        )

    def fill(self, prompt: str, answer: str) -> str:
        """The template with everything in its place."""
        values = {"prompt": prompt, "answer": answer, "constitution": self.constitution}
        return "".join(values[field] if field else text for text, field in self.pieces)

    @property
    def ending(self) -> str:
        """The text after the last place: what a label follows. "" when a place comes last."""
        text, _ = self.pieces[-1]
        return text


def template_or_default(text: str | None, constitution: str = "") -> JudgeTemplate:
    """`text` checked, or the default that fits."""
    if text is None:
        text = WITH_CONSTITUTION if constitution else PLAIN
    return JudgeTemplate(text, constitution)
