"""Text to learn from: documents, their splits, a tokenizer, and token files that are made once.

It trains nothing and knows no task.
"""

from tokenzero.policy.corpora.config import CorpusConfig, TokenizerConfig

__all__ = ["CorpusConfig", "TokenizerConfig"]
