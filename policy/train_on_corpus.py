"""Training of a language model on a corpus: every token of random windows is predicted from those before it.

The loop is `training_loop`'s; the texts and their tokens are `corpora`'s. It does not make the model or the
corpus, and it does not search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import Corpus
from tokenzero.policy.corpora.windows import windows
from tokenzero.policy.language_score import score_text
from tokenzero.policy.student import Student
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.training_loop import Batch, Progress, Record, Scoring, TrainingConfig, train


@dataclass(frozen=True)
class CorpusTrainingConfig(TrainingConfig):
    """As `TrainingConfig`, on windows of ``context`` tokens, ``optimizer.batch_size`` of them a step.

    After every ``evaluate_every`` steps (0: at the end alone) the first ``evaluated`` tokens (None: all) of
    the validation split are scored; the last score is of all of them.
    """

    steps: int = 2000
    context: int = 64
    evaluate_every: int = 250
    evaluated: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context < 1:
            raise InputError(f"context is {self.context}; give at least 1")
        if self.evaluate_every < 0:
            raise InputError(f"evaluate_every is {self.evaluate_every}; give at least 0")
        if self.evaluated is not None and self.evaluated < 2:
            raise InputError(f"evaluated is {self.evaluated}; give at least 2 tokens, or null for all")


class CorpusBatches:
    """Windows placed uniformly in ``tokens``, drawn from (seed, step), in ``accumulate`` parts."""

    def __init__(self, tokens: npt.NDArray[np.integer], config: CorpusTrainingConfig, seed: int) -> None:
        self._tokens = tokens
        self._config = config
        self._seed = seed

    def parts(self, step: int, forward: TrainingForward) -> list[Batch]:
        """The step's windows; the parts are of equal size."""
        config = self._config
        rng = np.random.default_rng([self._seed, step])
        rows = windows(self._tokens, config.optimizer.batch_size, config.context, rng)
        return [_batch(part) for part in np.split(rows, config.optimizer.accumulate)]


def pretrain_on_corpus(
    student: Student,
    corpus: Corpus,
    config: CorpusTrainingConfig,
    seed: int,
    *,
    directory: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_score: Callable[[Record], None] | None = None,
    write: Callable[[Path], None] | None = None,
) -> Progress:
    """Train ``student``, whose tokenizer is the corpus's, on the training split; its weights end as the
    moving average. ``on_step`` hears each step and its loss in nats per token, ``on_score`` each record of
    held-out scores; checkpoints, resume and ``write`` are as in `training_loop.train`.

    A record: "step", "loss" (mean of the training loss since the last record), and of the validation split
    "evaluated" (tokens predicted), "nats_per_token", "nats_per_character", "perplexity" and "accuracy". A
    corpus without a validation split has the first two alone.

    Raises:
        InputError: windows longer than the model's positions or the text, a diverged loss, or a damaged
        checkpoint.
        OutputError: a checkpoint could not be written.
    """
    if config.context > student.max_length:
        raise InputError(
            f"context is {config.context}, the model takes {student.max_length} tokens; "
            "lower it or raise max_position_embeddings"
        )
    return train(
        student,
        CorpusBatches(corpus.tokens("train"), config, seed),
        config,
        directory=directory,
        on_step=on_step,
        scoring=Scoring(
            lambda last: _held_out(student, corpus, config, last), config.evaluate_every, on_score
        ),
        source=corpus.digest,
        write=write,
    )


def _held_out(student: Student, corpus: Corpus, config: CorpusTrainingConfig, last: bool) -> dict[str, float]:
    tokens = corpus.tokens("validation")
    if not len(tokens):
        return {}
    characters = corpus.characters("validation")
    if config.evaluated is not None and not last and config.evaluated < len(tokens):
        tokens = tokens[: config.evaluated]
        characters = len(corpus.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
    score = score_text(student, tokens, config.context, characters)
    assert score.nats_per_character is not None
    return {
        "evaluated": score.tokens,
        "nats_per_token": score.nats_per_token,
        "nats_per_character": score.nats_per_character,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
    }


def _batch(rows: npt.NDArray[np.int64]) -> Batch:
    ids, targets = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())
    return Batch(ids, None, torch.arange(ids.numel()), targets.flatten())
