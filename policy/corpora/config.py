"""What is said of a corpus: where its text comes from, how it is split and cut into tokens.

Records only; nothing is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError

SMALLEST_BPE = 4 + 256
"""Special tokens and bytes, which every BPE vocabulary holds."""
LARGEST = 50_257


@dataclass(frozen=True)
class TokenizerConfig:
    """``kind`` "characters": one token for each character of the training text; "bpe": byte-level pairs, of
    ``vocab_size`` tokens in all. Either knows all 256 bytes besides, so that no text is unknown. ``load``
    names a directory or hub model whose tokenizer is taken instead.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["characters", "bpe"] = "characters"
    vocab_size: int = 4096
    load: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "bpe" and not SMALLEST_BPE <= self.vocab_size <= LARGEST:
            raise InputError(
                f"corpus.tokenizer.vocab_size is {self.vocab_size}; give {SMALLEST_BPE} to {LARGEST}"
            )


@dataclass(frozen=True)
class CorpusConfig:
    """Text from ``path``, a file or a directory of files, or from ``dataset_split`` of the data set
    ``dataset`` (with ``subset``) of the package datasets, streamed; at most ``max_documents`` of them. A text
    file is one document; each line of a JSONL file and each row of a data set is one, in ``text_field``.
    Documents without text are left out.

    ``validation_share`` and ``test_share`` are held out: of one document its last characters, of several
    whole documents, by a hash of their text. ``cache`` is where token files are kept; "" is
    ``tokenzero/corpora`` below the user's cache directory.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    path: str = ""
    dataset: str = ""
    subset: str = ""
    dataset_split: str = "train"
    text_field: str = "text"
    max_documents: int | None = None
    validation_share: float = 0.1
    test_share: float = 0.0
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    cache: str = ""

    def __post_init__(self) -> None:
        if self.path and self.dataset:
            raise InputError("corpus has both a path and a dataset; give one of them")
        for name in ("validation_share", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"corpus.{name} is {getattr(self, name)}; give a share from 0 to below 1")
        if self.validation_share + self.test_share >= 1:
            raise InputError("corpus.validation_share and test_share leave nothing to learn; lower them")
        if self.max_documents is not None and self.max_documents < 1:
            raise InputError(f"corpus.max_documents is {self.max_documents}; give at least 1, or null")
