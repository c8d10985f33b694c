"""A corpus as training sees it: a tokenizer, and the tokens of each split mapped into memory.

Its files are made once, in a directory below the cache that is named by a hash of the text, of how it is
split and of its tokenizer; a text that changes so gets a new directory, and the old one stays until someone
removes it. It draws no batches (`windows` does) and trains no model.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError, sweep
from tokenzero.policy.corpora.config import CorpusConfig
from tokenzero.policy.corpora.gathering import SPLITS
from tokenzero.policy.corpora.making import TOKENIZER, Listener, Making, Progress, tokenizer_fingerprint
from tokenzero.policy.corpora.sources import open_source
from tokenzero.policy.corpora.token_files import FORMAT, TokenFile, open_token_file, read_manifest
from tokenzero.policy.tokenizers import load_tokenizer

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

_HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


@dataclass(frozen=True)
class Corpus:
    """``digest`` (SHA-256) changes with any token of any split and with the tokenizer, and with nothing else.
    ``directory`` holds the files.
    """

    tokenizer: PreTrainedTokenizerFast
    digest: str
    directory: Path
    _splits: dict[str, TokenFile]

    def tokens(self, split: str) -> NDArray[Any]:
        """u16 or u32 [T], mapped read-only: the documents of "train", "validation" or "test" one after
        another, each followed by <eos> if the corpus has more than one. Empty for a split without a share.
        """
        return self._of(split).tokens

    def documents(self, split: str) -> NDArray[np.int64]:
        """i64 [D + 1]: where each document begins in `tokens` (its <eos> is its last token), and T."""
        return self._of(split).documents

    def characters(self, split: str) -> int:
        """Code points of the split's text."""
        return self._of(split).characters

    def _of(self, split: str) -> TokenFile:
        if split not in self._splits:
            raise InputError(f"corpus split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        return self._splits[split]


def open_corpus(
    config: CorpusConfig, listener: Listener | None = None, progress: Progress | None = None
) -> Corpus:
    """The corpus of a config; its token files are made if they are not there.

    What is there is checked byte for byte. ``listener`` hears a line for each step of making it, ``progress``
    how far that is. Processes that want the same corpus at once wait for the one that makes it.

    Raises InputError for text that cannot be read, a split that gets nothing, an unknown tokenizer, and files
    that are damaged; OutputError when the cache cannot be written.
    """
    source = open_source(config)
    loaded = None if config.tokenizer.load is None else load_tokenizer(config.tokenizer.load)
    fingerprint = source.fingerprint()
    place = cache_directory(config.cache) / _name(config, fingerprint, loaded)
    directory = place / "corpus"
    if not directory.exists():
        making = Making(config, source, loaded, listener or _deaf, progress or _deaf)
        with _alone(place, making.tell):
            sweep(place)
            if not directory.exists():  # nobody made it while we waited
                making.make(directory, fingerprint)
    return _open(directory, loaded)


def cache_directory(named: str = "") -> Path:
    """The directory ``named``, or ``tokenzero/corpora`` below the user's cache directory."""
    if named:
        return Path(named).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"], "tokenzero", "corpora")
    home = Path.home()
    return (home / "Library/Caches" if sys.platform == "darwin" else home / ".cache") / "tokenzero/corpora"


def _open(directory: Path, loaded: PreTrainedTokenizerFast | None) -> Corpus:
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory / TOKENIZER) if loaded is None else loaded
    splits = {name: open_token_file(directory, name, manifest) for name in SPLITS}
    sums = [
        manifest["files"][f"{name}.{kind}"]["sha256"] for name in SPLITS for kind in ("tokens", "documents")
    ]
    digest = hashlib.sha256("\n".join([manifest["tokenizer"], manifest["dtype"], *sums]).encode()).hexdigest()
    return Corpus(tokenizer, digest, directory, splits)


def _name(config: CorpusConfig, fingerprint: str, loaded: PreTrainedTokenizerFast | None) -> str:
    """A hash of all that decides what the files hold."""
    kind = config.tokenizer.kind
    if loaded is not None:
        tokenizer = tokenizer_fingerprint(loaded)
    else:
        tokenizer = f"bpe {config.tokenizer.vocab_size}" if kind == "bpe" else kind
    shares = [config.validation_share, config.test_share, config.max_documents]
    said = json.dumps([FORMAT, fingerprint, tokenizer, *shares])
    return hashlib.sha256(said.encode()).hexdigest()[:24]


@contextmanager
def _alone(place: Path, tell: Listener) -> Iterator[None]:
    """Make ``place`` and hold its lock, which the system lets go of when its holder ends, however it ends.

    Where there are no locks the files still appear whole, only made twice. Raises OutputError.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / "lock").open("ab")
    except OSError as error:
        made = OutputError(
            f"cannot write {place}: {error.strerror or error}; choose another place as corpus.cache"
        )
        made.errno = error.errno
        raise made from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _HELD:
                    tell(f"another process makes {place}; waiting for it")
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _deaf(*_: object) -> None:
    return None
