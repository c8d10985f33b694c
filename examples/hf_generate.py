"""Search inside `model.generate` of transformers, with processors and stopping criteria of one's own.

Run `python examples/hf_generate.py`; a few seconds. It makes a tiny Llama with random weights, so the answers
mean nothing, and prints what greedy decoding, search with a judge, and the likeliest of four samples give for
one prompt. With a model of yours only the first function differs.
"""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

import tokenzero
from tokenzero.policy import from_spec

TOKENIZER = from_spec({"kind": "characters", "alphabet": "abcdefgh. "})


def make_model() -> PreTrainedModel:
    """A Llama of two small layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        bos_token_id=TOKENIZER.bos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    return LlamaForCausalLM(config)


class NoRepeats(LogitsProcessor):
    """No letter twice in a row."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.scatter(1, input_ids[:, -1:], -torch.inf)


class FullStop(StoppingCriteria):
    """An answer ends with its first full stop."""

    def __call__(self, input_ids: torch.LongTensor, scores: object, **kwargs: object) -> torch.Tensor:
        return input_ids[:, -1] == TOKENIZER.convert_tokens_to_ids(".")


def without_a(prompt: str, partial: str) -> int:
    """A judge: answers should do without the letter a."""
    return -1 if "a" in partial else 1


def main() -> None:
    """One prompt, three ways."""
    model = make_model()
    inputs = TOKENIZER("abc", return_tensors="pt", return_token_type_ids=False)
    rules = {
        "logits_processor": LogitsProcessorList([NoRepeats()]),
        "stopping_criteria": StoppingCriteriaList([FullStop()]),
        "suppress_tokens": TOKENIZER.all_special_ids,
        "max_new_tokens": 12,
    }
    searched = {"custom_generate": tokenzero.hf_generate, "seed": 1}
    judged = {**searched, "simulations": 64, "judge": without_a, "judge_tokenizer": TOKENIZER}
    ways = {
        "greedy": model.generate(**inputs, **rules, do_sample=False),
        "no simulations": model.generate(**inputs, **rules, **searched, simulations=0),
        "search": model.generate(**inputs, **rules, **judged),
        "best of 4": model.generate(**inputs, **rules, **searched, method="best-of-n", n=4),
    }
    for way, sequences in ways.items():
        print(f"{way:15}", TOKENIZER.decode(sequences[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
