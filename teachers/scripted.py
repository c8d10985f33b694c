"""A Python function as a teacher, for rules of a domain that are easier to write than to learn.

The function sees text and gives text. It is called once a state, so it should be quick; nothing it does is
counted as tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.named_function import named_function
from tokenzero.policy.pieces import Pieces
from tokenzero.teachers.base import Proposal
from tokenzero.teachers.text_proposals import TextContinuation, proposals_from_texts

Script = Callable[[str, str], Mapping[str, float]]
"""(prompt, answer so far) -> texts that may come next, with weights of any sum; "" ends the answer; an empty
mapping has nothing to say.
"""


@dataclass(frozen=True, kw_only=True)
class ScriptedConfig:
    """A ``function`` "package.module:name" that Python can import; ``label`` is the teacher's name, None for
    the function's.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["scripted"] = "scripted"
    function: str
    label: str | None = None

    def __post_init__(self) -> None:
        module, colon, name = self.function.partition(":")
        if not (module and colon and name):
            raise InputError(f"scripted teacher's function is {self.function!r}; write package.module:name")

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or self.function.rpartition(":")[2]


class ScriptedTeacher:
    """Proposes what ``function`` says, weights brought to sum 1, in tokens of ``tokenizer``, the student's.

    ``failures`` counts, by what went wrong, rows on which it raised or gave something other than texts with
    finite weights that are not negative nor all 0; those rows get no proposal. Where the length of the prompt
    is not known, the whole text is the prompt and the answer is empty.
    """

    def __init__(self, name: str, function: Script, tokenizer: PreTrainedTokenizerFast) -> None:
        self.name = name
        self.failures: Counter[str] = Counter()
        self._function = function
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)

    @classmethod
    def open(cls, config: ScriptedConfig, tokenizer: PreTrainedTokenizerFast) -> ScriptedTeacher:
        """Import the function. Raises InputError when there is none."""
        return cls(config.name, named_function(config.function, "scripted teacher"), tokenizer)

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """The ``k`` best first tokens of the function's texts, and the texts as continuations."""
        lengths = [len(sequence) for sequence in sequences] if prompt_lens is None else prompt_lens
        texts = [self._ask(s, length) for s, length in zip(sequences, lengths, strict=True)]
        return proposals_from_texts(self._tokenizer, sequences, texts, k, 0)

    def _ask(self, sequence: Sequence[int], prompt_len: int) -> list[TextContinuation]:
        prompt = self._pieces.text(sequence[:prompt_len])
        partial = self._pieces.text(sequence[prompt_len:])
        try:
            weights = self._function(prompt, partial)
            texts = _normalised(weights)
        except Exception as error:  # noqa: BLE001  a script may fail in any way; the run goes on
            self.failures[f"{type(error).__name__}: {error}"[:100]] += 1
            return []
        return texts


def _normalised(weights: Mapping[str, float]) -> list[TextContinuation]:
    """Texts with probabilities; raises what it likes for anything else."""
    pairs = [(text, float(weight)) for text, weight in weights.items()]
    total = math.fsum(weight for _, weight in pairs)
    wrong = any(not isinstance(text, str) or not weight >= 0 for text, weight in pairs)
    if wrong or (pairs and not 0 < total < math.inf):
        raise InputError("give texts with finite weights that are not negative nor all 0")
    return [TextContinuation(text, weight / total) for text, weight in pairs]
