"""Tiny reward models and a toy preference, for tests of value/ and of the verb `reward-model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tokenzero.policy.tokenizers import train_bpe
from tokenzero.selfplay.episode import Episode, write_episodes
from tokenzero.selfplay.manifest import Manifest, Round
from tokenzero.selfplay.run_directory import RECORD_FILE, checkpoint_path, shard_path
from tokenzero.value.preferences import Preference
from tokenzero.value.reward_model import RewardModel, RewardSettings

WORDS = ("red", "green", "blue", "cat", "dog", "sun", "sky", "sea", "plum", "say")
_COMMON = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SHORT = {"max_position_embeddings": 64}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, **_SHORT, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "bert": {**_COMMON, **_SHORT},
    "roberta": {**_COMMON, **_SHORT},
}
ENCODERS = ("bert", "roberta")


def causal_tokenizer() -> PreTrainedTokenizerFast:
    return train_bpe([" ".join(WORDS)], 300)


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """Words between [CLS] and [SEP]; two texts have token types 0 and 1."""
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(names[:4])
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_reward_model(
    family: str,
    settings: RewardSettings | None = None,
    *,
    spread: float = 0.3,
    labels: int = 1,
    seed: int = 3,
) -> RewardModel:
    """Random weights; large ones, so that a wrong mask moves a reward by far more than rounding does."""
    tokenizer = encoder_tokenizer() if family in ENCODERS else causal_tokenizer()
    if family == "roberta":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        num_labels=labels,
        initializer_range=spread,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **ARCHITECTURES[family],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return RewardModel(model, tokenizer, settings)


def plum_preferences(count: int, seed: int = 0) -> list[Preference]:
    """The better answer has the word "plum" in place of another word; both are equally long."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        worse = rng.choice(WORDS[:8], 4).tolist()
        better = worse.copy()
        better[rng.integers(4)] = "plum"
        pairs.append(Preference(f"say {WORDS[index % 8]} {index}", " ".join(better), " ".join(worse)))
    return pairs


def write_run(
    directory: Path, tokenizer: PreTrainedTokenizerFast, rounds: Sequence[Sequence[Episode]]
) -> Path:
    """A run directory with these games and checkpoints of the tokenizer alone."""
    for number in range(len(rounds) + 1):
        checkpoint = checkpoint_path(directory, number)
        tokenizer.save_pretrained(checkpoint)
        (checkpoint / RECORD_FILE).write_text("{}")
    for number, episodes in enumerate(rounds, 1):
        write_episodes(shard_path(directory, number), episodes)
    Manifest({}, [Round({"incumbent": 0}, {"x": {}}) for _ in range(len(rounds) + 1)]).write(directory)
    return directory
