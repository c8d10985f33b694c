"""How fluent an answer is to a chosen language model: one over its perplexity, whole or token by token.

It rewards what the model expects, repetition included, so give it little weight and a repetition penalty
beside it. It does not train the model and does not search; that edges of a tree carry rewards is for the
evaluator to arrange.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.value.continuation_log_probs import continuation_log_probs, continuation_tokens
from tokenzero.value.rewards import NOTHING_GIVEN, Given, Reals, check_lengths


def fluency(log_probs: ArrayLike) -> float:
    """exp(mean of log_probs): the geometric mean of the tokens' probabilities, which is 1 / perplexity.

    log_probs f64 [T], natural logarithms, at most 0. 0.0 for T = 0: an empty answer earns nothing.
    """
    array = np.asarray(log_probs, dtype=np.float64)
    return float(np.exp(array.mean())) if array.size else 0.0


def fluency_edges(log_probs: ArrayLike, bound: float) -> NDArray[np.float32]:
    """Rewards of the T tokens, f32 [T], that sum to bound * fluency(log_probs).

    Edge t is Phi(first t tokens) - Phi(first t - 1) with the potential Phi = bound * fluency, 0 for nothing
    (potential-based shaping: Ng, Harada and Russell 1999). So every edge lies in [-bound, bound], every sum
    of edges from the start in [0, bound], and answers of different lengths compare by their mean.
    Raises InputError for a negative bound or a log-probability above 0 or not a number.
    """
    array = np.asarray(log_probs, dtype=np.float64)
    if not 0.0 <= bound < float("inf"):
        raise InputError(f"perplexity bound is {bound}; give 0 or a finite number above")
    if not (array <= 1e-5).all():
        raise InputError("a log-probability is above 0 or not a number; give natural logarithms")
    means = np.cumsum(array) / np.arange(1, array.size + 1)
    return np.diff(bound * np.exp(np.minimum(means, 0.0)), prepend=0.0).astype(np.float32)


class PerplexityReward:
    """`fluency` of an answer after its prompt, under `student` (any causal model; not the one in training).

    bound: how much the edge rewards of one answer may sum to. forwarded_tokens: what this has cost so far.
    """

    def __init__(
        self, student: Student, *, bound: float = 0.1, batch_size: int = 16, name: str = "perplexity"
    ) -> None:
        if batch_size < 1 or not 0.0 <= bound < float("inf"):
            raise InputError(
                f"perplexity batch_size is {batch_size} and bound {bound}; give at least 1, and 0 or more"
            )
        self.student = student
        self.bound = bound
        self.batch_size = batch_size
        self.name = name
        self.forwarded_tokens = 0

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals:
        """f64 [L] in [0, 1]. Raises InputError for texts the model cannot read or has no room for."""
        check_lengths(prompts, answers, references)
        contexts = [encode_prompt(self.student.tokenizer, prompt) for prompt in prompts]
        continuations = [continuation_tokens(self.student, answer) for answer in answers]
        found = self._log_probs(contexts, continuations)
        return np.array([min(1.0, fluency(log_probs)) for log_probs in found], dtype=np.float64)

    def edge_rewards(self, tokens: Sequence[int], prompt_length: int = 1) -> NDArray[np.float32]:
        """`fluency_edges` of tokens[prompt_length:], f32 [len(tokens) - prompt_length], within `bound`.

        tokens: ids of this model's own tokenizer, prompt first. A first token has nothing to follow from, so
        prompt_length is at least 1, else InputError.
        """
        if not 1 <= prompt_length <= len(tokens):
            raise InputError(
                f"prompt_length is {prompt_length} of {len(tokens)} tokens; give at least 1 and at most all"
            )
        found = self._log_probs([tokens[:prompt_length]], [tokens[prompt_length:]])
        return fluency_edges(found[0], self.bound)

    def _log_probs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Reals]:
        found = continuation_log_probs(self.student, contexts, continuations, self.batch_size)
        pairs = zip(contexts, continuations, strict=True)
        self.forwarded_tokens += sum(len(before) + len(after) for before, after in pairs if after)
        return found
