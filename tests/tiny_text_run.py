"""A text game small enough to be repeated many times: a made-up corpus of a few sentences' worth of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.policy.corpora import CorpusConfig
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.config import ModelConfig
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.text.config import (
    MatchConfig,
    MonitorConfig,
    RefereeConfig,
    TextGameConfig,
    TextLearnerConfig,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "rat", "eat", "oats", "at", "noon"]


def made_text(words: int = 1200) -> str:
    """Words drawn at random, in lines."""
    rng = np.random.default_rng(7)
    return "".join(
        f"{WORDS[i]}{chr(10) if n % 9 == 8 else ' '}" for n, i in enumerate(rng.integers(0, 14, words))
    )


def write_corpus(directory: Path) -> Path:
    """The text as a file."""
    path = directory / "words.txt"
    path.write_text(made_text())
    return path


def tiny_text_config(directory: Path, **changes: Any) -> TextGameConfig:
    """Three rounds of four steps on the corpus in ``directory``, which is written there."""
    learner: dict[str, Any] = {
        "objective": "product-of-experts",
        "steps": 4,
        "context": 16,
        "refresh": 2,
        "optimizer": OptimizerConfig(
            lr=1e-2, min_lr=1e-3, warmup_steps=2, batch_size=4, ema=0.9, betas=(0.9, 0.99)
        ),
    }
    learner |= changes.pop("learner", {})
    values: dict[str, Any] = {
        "model": ModelConfig(
            architecture={
                "model_type": "llama",
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 48,
                "tie_word_embeddings": True,
            }
        ),
        "corpus": CorpusConfig(path=str(write_corpus(directory)), cache=str(directory / "cache")),
        "referee": RefereeConfig(order=3),
        "learner": TextLearnerConfig(**learner),
        "matches": MatchConfig(every=2, opponents=2, prompts=4, prompt_tokens=4, tokens=6, order=2),
        "monitors": MonitorConfig(every=2, windows=4),
        "keep": RetentionConfig(best=0, last=1),
        "rounds": 3,
        "seed": 5,
        "threads": 1,
    }
    return TextGameConfig(**{**values, **changes})
