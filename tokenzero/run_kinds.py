"""Which run a config asks for: one on a task's problems, or a text game on a corpus.

A text game that names no corpus is played on tiny Shakespeare, kept in the user's cache. It runs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.listener import Listener
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.text.config import TextGameConfig

if TYPE_CHECKING:
    from tokenzero.selfplay.text.run import TextRun


def open_run(
    config: SelfPlayConfig | TextGameConfig, directory: Path, listener: Listener | None = None
) -> Run | TextRun:
    """The run that ``config`` asks for, in ``directory``. Raises InputError for a task without training
    problems, and for a text game whose corpus is neither named nor there nor within reach of the network.
    """
    if isinstance(config, TextGameConfig):
        from tokenzero.selfplay.text.run import TextRun

        return TextRun(with_corpus(config), directory, listener)
    return Run(config, directory, listener)


def with_corpus(config: TextGameConfig) -> TextGameConfig:
    """``config`` with tiny Shakespeare where it names no corpus. Raises InputError when that is not in the
    cache and cannot be fetched.
    """
    corpus = config.corpus
    if corpus.path or corpus.dataset:
        return config
    from tokenzero.policy.corpora.corpus import cache_directory
    from tokenzero.policy.corpora.fetch import tiny_shakespeare

    path = tiny_shakespeare(cache_directory(corpus.cache))
    return replace(config, corpus=replace(corpus, path=str(path)))
