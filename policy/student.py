"""The student: any Hugging Face causal language model and its tokenizer, as one object.

Loads by hub name, by directory, or builds random weights from a config. It does not cache keys and values
(see ``engine``), does not train (see ``pretrain``) and knows nothing of search.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer


class Output(NamedTuple):
    """One forward: ``logits`` f32 [B, T, V] and ``hidden`` [B, T, D], the vectors the output embedding
    reads.
    """

    logits: torch.Tensor
    hidden: torch.Tensor


class Student:
    """A causal LM and its tokenizer.

    ``model`` and ``tokenizer`` are ordinary transformers objects, owned here. ``version`` counts weight
    changes: whoever changes the weights calls :meth:`weights_changed`, and every cache keyed by it empties
    itself.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.version = 0
        self._hidden: torch.Tensor | None = None
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise InputError(f"{type(model).__name__} has no output embedding; use a causal language model")
        # The value head reads what the output embedding reads, whatever the family calls its layers.
        head.register_forward_pre_hook(self._remember_hidden)
        self.eos_id: int | None = tokenizer.eos_token_id
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def _remember_hidden(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._hidden = inputs[0]

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden state."""
        head: Any = self.model.get_output_embeddings()
        return int(head.weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """Width V of the logits."""
        head: Any = self.model.get_output_embeddings()
        return int(head.weight.shape[0])

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt and answer, that the positions allow."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 20))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def parameters(self) -> int:
        """Number of weights, shared ones once."""
        return sum(p.numel() for p in self.model.parameters())

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Output:
        """Run the model on i64 [B, T]; keyword arguments go to the model. Logits come back as float32."""
        logits = self.model(input_ids=input_ids, **kwargs).logits
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            raise InputError(
                f"{type(self.model).__name__} never calls its output embedding; "
                "its hidden state is out of reach"
            )
        return Output(logits.float(), hidden)

    def weights_changed(self) -> None:
        """Say that the weights are not what they were; caches keyed by ``version`` are void."""
        self.version += 1

    def save(self, directory: Path) -> None:
        """Write weights, config and tokenizer as a Hugging Face directory. The caller makes it atomic."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    @classmethod
    def load(cls, name: str | Path, *, device: str = "cpu") -> Student:
        """Open a directory or a hub name. Code from a hub is never run.

        Raises:
            InputError: nothing loadable there; the message says what was found.
        """
        path = Path(name)
        if path.exists() and not (path / "config.json").is_file():
            raise InputError(
                f"model directory {path} holds no config.json; give a checkpoint directory or a hub name"
            )
        if not path.exists() and (
            path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1
        ):
            raise InputError(
                f"model directory {path} does not exist; give a run, a checkpoint directory or a hub name"
            )
        try:
            tokenizer = load_tokenizer(str(name))
            loaded: Any = AutoModelForCausalLM.from_pretrained(str(name), dtype="auto")
        except (StrictDataclassError, OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()
            raise InputError(
                f"cannot load model {name!s}: {reason[0] if reason else type(error).__name__}"
            ) from error
        if device == "cpu":
            loaded = loaded.float()
        _align(loaded)
        return cls(loaded.to(device).eval(), tokenizer)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, *, seed: int
    ) -> Student:
        """Random weights for a config given as a mapping with ``model_type`` (``llama``, ``gpt2``, ...).

        The vocabulary size and the special tokens come from ``tokenizer``.

        Raises:
            InputError: an unknown family, a field the family does not have, or a shape it refuses.
        """
        fields = dict(config)
        model_type = fields.pop("model_type", None)
        if not isinstance(model_type, str):
            raise InputError(
                f"model.model_type is {model_type!r}; name a transformers family such as 'llama' or 'gpt2'"
            )
        _refuse_unknown_fields(model_type, fields)
        try:
            hf_config = AutoConfig.for_model(
                model_type,
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **fields,
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
        except (StrictDataclassError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"cannot build a {model_type!r} model from {fields}: {reason}") from error
        return cls(model.eval(), tokenizer)


def _align(model: nn.Module) -> None:
    """Move weights to memory of torch's own. In a file they begin anywhere in a cache line, products over
    them then differ in their last bits on some processors, and a loaded model would not play as the one
    that was saved.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _refuse_unknown_fields(model_type: str, fields: Mapping[str, Any]) -> None:
    """transformers keeps a misspelt field as an attribute and builds its default size: several GB."""
    if model_type not in CONFIG_MAPPING:
        near = get_close_matches(model_type, CONFIG_MAPPING.keys(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use a family such as 'llama' or 'gpt2'"
        raise InputError(f"model.model_type is {model_type!r}, which transformers does not know; {hint}")
    known = AutoConfig.for_model(model_type)
    for name in fields:
        if not hasattr(known, name):
            near = get_close_matches(name, vars(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see the family's transformers config"
            raise InputError(f"model.architecture has {name!r}, which {model_type!r} does not know; {hint}")
