"""How close an answer is to its reference in meaning, by any Hugging Face encoder.

Mean of the last hidden states, as sentence-transformers pools by default; checkpoints that want another
pooling or a text put in front lose by it. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.value.rewards import NOTHING_GIVEN, Given, Reals, check_lengths, present


class EmbeddingReward:
    """(1 + cosine) / 2 between the mean-pooled vectors of the whole answer and the whole reference.

    A text longer than `window` tokens (default: what model and tokenizer allow) is read in several windows,
    and the mean goes over the tokens of all, so nothing at its end is out of sight. A blank answer scores 0,
    or 1 when the reference is blank as well. forwarded_tokens: what this has cost so far.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerFast,
        *,
        window: int | None = None,
        batch_size: int = 16,
        name: str = "embedding",
    ) -> None:
        room = int(min(getattr(model.config, "max_position_embeddings", 1 << 20), tokenizer.model_max_length))
        self.window = window or room
        if batch_size < 1 or not 3 <= self.window <= room:
            raise InputError(
                f"embedding batch_size is {batch_size} and window {self.window}; "
                f"give at least 1, and 3 to {room}"
            )
        # of a model that also decodes (T5), the half that reads
        self.model: Any = (model.get_encoder() if model.config.is_encoder_decoder else model).eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.name = name
        self.forwarded_tokens = 0

    @classmethod
    def load(cls, model: str, *, device: str = "cpu", **options: Any) -> EmbeddingReward:
        """Open a directory or hub name; code shipped with it is never run. Raises InputError if it cannot."""
        tokenizer = load_tokenizer(model)
        try:
            encoder = AutoModel.from_pretrained(model, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise InputError(
                f"embedding model {model!r} cannot be opened ({reason}); give an encoder"
            ) from error
        return cls(encoder.to(device), tokenizer, **options)

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        references: Sequence[str | None],
        given: Given = NOTHING_GIVEN,
    ) -> Reals:
        """f64 [L] in [0, 1]; the prompts are not read. Raises InputError for a row without reference."""
        check_lengths(prompts, answers, references)
        wanted = [present(reference, self.name) for reference in references]
        texts = [text for text in dict.fromkeys([*answers, *wanted]) if text.strip()]
        vectors = dict(zip(texts, self.embed(texts), strict=True))
        scores = np.zeros(len(answers))
        for row, (answer, reference) in enumerate(zip(answers, wanted, strict=True)):
            if answer in vectors and reference in vectors:
                scores[row] = (1.0 + _cosine(vectors[answer], vectors[reference])) / 2.0
            else:
                scores[row] = float(not answer.strip() and not reference.strip())
        return scores

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Reals:
        """Mean-pooled vectors f64 [L, D] of L texts; padding has no part in them."""
        owner, windows = self._windows(texts)
        sums: Reals = np.zeros((len(texts), 0))
        counts = np.zeros(len(texts))
        for start in range(0, len(windows), self.batch_size):
            rows = windows[start : start + self.batch_size]
            width = max(len(row) for row in rows)
            pad = self.tokenizer.pad_token_id or 0
            ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            device = next(self.model.parameters()).device
            hidden = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            parts = (hidden.double().cpu() * mask[:, :, None]).sum(1).numpy()
            if not sums.size:
                sums = np.zeros((len(texts), parts.shape[1]))
            np.add.at(sums, owner[start : start + self.batch_size], parts)
            np.add.at(counts, owner[start : start + self.batch_size], mask.sum(1).numpy())
        self.forwarded_tokens += int(counts.sum())
        means: Reals = sums / np.maximum(counts, 1.0)[:, None]
        return means

    def _windows(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Row of `texts` and token ids of each window, special tokens in every one of them."""
        owner: list[int] = []
        windows: list[list[int]] = []
        for row, text in enumerate(texts):
            cut = self.tokenizer(
                text, truncation=True, max_length=self.window, return_overflowing_tokens=True
            )["input_ids"]
            windows += cut
            owner += [row] * len(cut)
        return owner, windows


def _cosine(left: Reals, right: Reals) -> float:
    """Cosine in [-1, 1]; 0 when a vector has no length."""
    lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.clip(left @ right / lengths, -1.0, 1.0)) if lengths > 0.0 else 0.0
