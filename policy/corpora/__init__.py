"""Text to learn from: documents, their splits, a tokenizer, and token files that are made once.

It trains nothing and knows no task. `open_corpus` and `Corpus` are imported when first asked for, because
they need transformers and the config records must not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenzero.policy.corpora.config import CorpusConfig, TokenizerConfig

if TYPE_CHECKING:
    from tokenzero.policy.corpora.corpus import Corpus, open_corpus

# the function `windows` is not among them: the submodule of that name would hide it
__all__ = ["Corpus", "CorpusConfig", "TokenizerConfig", "open_corpus"]


def __getattr__(name: str) -> Any:
    if name not in ("Corpus", "open_corpus"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.corpus"), name)
