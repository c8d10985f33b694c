"""Tiny students and tasks made in-process, for tests of policy/ and selfplay/.

The weights are random but large, so that a wrong attention mask or position moves the logits by far more than
rounding does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.policy.tree_attention import PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.tasks import FAILED, ONGOING, SOLVED, Problem, PublicProblem, Task, Verdict

LETTERS = "abcdef"

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.3}
_GEMMA = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama-mha": {**_COMMON, "model_type": "llama", "num_key_value_heads": 4},
    "llama-gqa": {**_COMMON, "model_type": "llama", "num_key_value_heads": 2},
    "qwen3": {**_COMMON, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8},
    "mistral": {**_COMMON, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 4},
    "gpt2": {**_GPT, "model_type": "gpt2"},
}
MORE_FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {**_COMMON, "model_type": "qwen2", "num_key_value_heads": 2},
    "gpt-neox": {**_COMMON, "model_type": "gpt_neox"},
    "gemma3": {**_GEMMA, "model_type": "gemma3_text"},
    "phi3": {**_COMMON, "model_type": "phi3", "num_key_value_heads": 2},
    "opt": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "init_std": 0.3,
    },
    "gemma2": {**_GEMMA, "model_type": "gemma2"},
    "gptj": {**_GPT, "model_type": "gptj", "rotary_dim": 4},
    "falcon": {
        "model_type": "falcon",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
    },
    "mpt": {
        "model_type": "mpt",
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 32,
        "initializer_range": 0.3,
    },
    "mamba": {
        "model_type": "mamba",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
        "initializer_range": 0.3,
    },
}


def make_student(family: str = "llama-gqa", *, spec: dict[str, Any] | None = None, seed: int = 3) -> Student:
    spec = spec or {"kind": "characters", "alphabet": LETTERS}
    return Student.from_config((FAMILIES | MORE_FAMILIES)[family], from_spec(spec), seed=seed)


def tree_engine(student: Student) -> TreeEngine:
    """A tree engine that goes through the model itself, without the self-test."""
    return TreeEngine(student, TreeAttentionWay(student, PagedAttention(), 64))


@torch.no_grad()
def plain(student: Student, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [V] and last hidden state [D] after `tokens`: one unpadded forward, no cache."""
    ids = torch.tensor([list(tokens)])
    output = student.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_hidden_states=True
    )
    return output.logits[0, -1].float(), output.hidden_states[-1][0, -1]


class TokenCounter:
    """Counts the tokens that are no padding in every forward of a model, by a hook of its own."""

    def __init__(self, student: Student) -> None:
        self.tokens = 0
        student.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: Any) -> None:
        width = kwargs["input_ids"].shape[1]
        mask = kwargs.get("attention_mask")
        self.tokens += kwargs["input_ids"].numel() if mask is None else int(mask[:, -width:].sum())


class Mirror(Task):
    """Prompt "abc", answer "cba": three letters backwards. Anyone can check it, and from the first letter."""

    public_verifier: ClassVar[bool] = True
    name = "mirror"

    @property
    def max_answer_tokens(self) -> int:
        return 4

    def problems(self, split: str) -> Sequence[Problem]:
        rng = np.random.default_rng(["train", "validation", "test"].index(split))
        words = dict.fromkeys("".join(rng.choice(list(LETTERS), 3)) for _ in range(40))
        return [Problem(PublicProblem(f"{split}:{word}", word)) for word in words]

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        wanted = problem.prompt[::-1]
        if answer == wanted:
            return SOLVED
        return ONGOING if wanted.startswith(answer) else FAILED

    def score(self, problem: Problem, answer: str) -> float:
        return float(answer == problem.public.prompt[::-1])

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        return [(p.public.prompt, p.public.prompt[::-1]) for p in list(self.problems("train"))[:count]]

    def tokenizer_spec(self) -> dict[str, Any]:
        return {"kind": "characters", "alphabet": LETTERS}


class Secret(Mirror):
    """The same problems, but only whoever holds the reference can tell; an answer goes on to its end mark."""

    public_verifier: ClassVar[bool] = False
    name = "secret"

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        return ONGOING

    def score(self, problem: Problem, answer: str) -> float:
        assert problem.reference is not None
        return float(answer == problem.reference)


def planted(task: Task, split: str, reference: str) -> list[Problem]:
    """The problems of a split with `reference` in each; the task itself never holds it."""
    return [Problem(problem.public, reference) for problem in task.problems(split)]
