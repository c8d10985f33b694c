"""Shapes of small language models by name, all of the Llama family with tied embeddings.

Architectures for `Student.from_config`, and how many weights they have; nothing is built here.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tokenzero.mcts.errors import InputError


@dataclass(frozen=True)
class ModelShape:
    """``layers`` blocks of ``heads`` attention heads, ``width`` D and ``intermediate`` width of the gated
    layer; made for ``context`` positions and a vocabulary of about ``vocab_size``.
    """

    layers: int
    heads: int
    width: int
    intermediate: int
    context: int
    vocab_size: int

    def parameters(self, vocab_size: int | None = None) -> int:
        """Number of weights, embeddings once: V D + L (4 D^2 + 3 D I + 2 D) + D."""
        width, vocabulary = self.width, self.vocab_size if vocab_size is None else vocab_size
        block = 4 * width * width + 3 * width * self.intermediate + 2 * width
        return vocabulary * width + self.layers * block + width

    def architecture(self, positions: int | None = None) -> dict[str, Any]:
        """The transformers config, for ``positions`` (None: ``context``). The vocabulary's size comes with
        the tokenizer.
        """
        return {
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.context if positions is None else positions,
            "tie_word_embeddings": True,
        }


MODEL_PRESETS = {
    "0.8m": ModelShape(4, 4, 128, 344, 256, 325),
    "3m": ModelShape(6, 6, 192, 512, 256, 1024),
    "10m": ModelShape(6, 6, 384, 1024, 256, 325),
    "30m": ModelShape(8, 8, 512, 1376, 512, 8192),
    "124m": ModelShape(12, 12, 768, 2048, 1024, 50_257),
}
"""By their size in millions of weights with the vocabulary they are made for. 0.8m, 10m and 124m have the
layers, heads and width of nanoGPT's character models and of GPT-2 (github.com/karpathy/nanoGPT).
"""


def model_shape(name: str) -> ModelShape:
    """A shape by name. Raises InputError for an unknown one."""
    if name not in MODEL_PRESETS:
        near = get_close_matches(name, MODEL_PRESETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"model shape {name!r} does not exist; {hint}there are {', '.join(MODEL_PRESETS)}")
    return MODEL_PRESETS[name]
