"""Tokenizers behind one face: each is a transformers fast tokenizer, so that checkpoints carry it.

Four are made here without a download (fixed words, fixed characters with or without bytes for all others, a
byte-level BPE trained in this process); any other is loaded by name or directory. Text that grows token by
token is `Pieces`, from its own file. This file does not apply chat templates, pad batches or truncate: a
prompt that does not fit is refused, not cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import SPELT_BYTES, Pieces

__all__ = [
    "SPECIALS",
    "Pieces",
    "byte_fallback_tokenizer",
    "character_tokenizer",
    "encode_prompt",
    "from_spec",
    "load_tokenizer",
    "train_bpe",
    "word_tokenizer",
]

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""Special tokens of the tokenizers made here; the position is the id: <pad>=0, <bos>=1, <eos>=2, <unk>=3."""


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A fixed vocabulary of words split at white space; `decode` joins them with one space.

    Word i gets id i + 4. Raises InputError when `words` is empty, repeats a word, or holds an empty word, a
    word with white space in it, or a special token.
    """
    words = list(words)
    for word in words:
        if not isinstance(word, str) or word.split() != [word]:
            raise InputError(f"words: {word!r} is not one word; give non-empty strings without white space")
    backend = Tokenizer(models.WordLevel(_numbered("words", words), unk_token="<unk>"))
    backend.pre_tokenizer = (
        pre_tokenizers.WhitespaceSplit()
    )  # and no decoder: the backend then joins with spaces
    return _wrap(backend)


def character_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """One token per character (Unicode code point) of `alphabet`; `decode` joins them with nothing.

    Character i gets id i + 4. Raises InputError when `alphabet` is empty or repeats a character.
    """
    if not isinstance(alphabet, str):
        raise InputError(
            f"alphabet: expected one string of distinct characters, got {type(alphabet).__name__}"
        )
    backend = Tokenizer(models.WordLevel(_numbered("alphabet", list(alphabet)), unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # "." would swallow line ends
    backend.decoder = decoders.Fuse()
    return _wrap(backend)


def byte_fallback_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """One token per character of `alphabet`, and of any other character its UTF-8 bytes, so that every text
    without lone surrogates is encoded and `decode` gives it back.

    Byte b has id 4 + b, character i of `alphabet` id 260 + i. Made for running text: nothing is put before
    it, and a special token written out in it is read as ordinary characters.
    Raises InputError when `alphabet` repeats a character.
    """
    vocabulary = _numbered("alphabet", [*SPELT_BYTES, *alphabet])
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _wrap(backend, running_text=True)


def train_bpe(texts: Iterable[str], vocab_size: int, running_text: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE (as in GPT-2) learnt from `texts` in this process; it encodes any text without <unk>.

    `vocab_size` counts the 4 specials and the 256 bytes; fewer merges are learnt when the texts run out of
    pairs. `texts` is gone through once and not kept. With `running_text` nothing is put before a text, and
    special tokens written out in it are read as ordinary characters.
    Raises InputError when `vocab_size` is below 260 or `texts` holds no text.
    """
    smallest = len(SPECIALS) + 256
    if vocab_size < smallest:
        raise InputError(
            f"vocab_size: {vocab_size} is too small; 256 bytes and 4 specials need at least {smallest}"
        )
    remaining = (text for text in texts if text)
    first = next(remaining, None)
    if first is None:
        raise InputError("texts: nothing to learn a tokenizer from; give at least one non-empty text")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(chain([first], remaining), trainer)
    return _wrap(backend, running_text)


def from_spec(spec: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Build the tokenizer a task asks for.

    `{"kind": "words", "words": [...]}`, `{"kind": "characters", "alphabet": "..."}` or
    `{"kind": "bpe", "texts": [...], "vocab_size": n}`. Raises InputError for anything else.
    """
    builders: dict[str, tuple[Any, tuple[str, ...]]] = {
        "words": (word_tokenizer, ("words",)),
        "characters": (character_tokenizer, ("alphabet",)),
        "bpe": (train_bpe, ("texts", "vocab_size")),
    }
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in builders:
        raise InputError(f"tokenizer kind: {kind!r} is unknown; use one of {', '.join(builders)}")
    build, names = builders[kind]
    given = set(spec) - {"kind"}
    if given != set(names):
        raise InputError(f"tokenizer of kind {kind!r}: needs exactly {', '.join(names)}; got {sorted(given)}")
    tokenizer: PreTrainedTokenizerFast = build(*(spec[name] for name in names))
    return tokenizer


def load_tokenizer(name_or_dir: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """Open the tokenizer of a checkpoint directory or hub name. Code shipped with one is never run.

    Raises InputError when there is none, or when it has no fast (Rust) backend.
    """
    name = fspath(name_or_dir)
    try:
        if _is_plain(name):
            # AutoTokenizer rebuilds the tokenizer of some model types (qwen2) from its vocabulary alone
            tokenizer = PreTrainedTokenizerFast.from_pretrained(name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"tokenizer: cannot open {name!r} ({reason}); give a checkpoint directory or hub name"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"tokenizer: {name!r} is a {type(tokenizer).__name__}; only fast tokenizers are supported"
        )
    for origin in ("is_local", "local_files_only"):  # a copy saved later must not tell where it came from
        tokenizer.init_kwargs.pop(origin, None)
    return tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerFast, text: str, max_tokens: int | None = None) -> list[int]:
    """Token ids of a prompt, headed by <bos> when the tokenizer's own template opens a sequence with it.

    Following the template keeps us equal to `tokenizer(text)`: GPT-2 and Qwen have a bos token and do not use
    it. A closing eos that some templates add is left out, because the answer continues here.
    Raises InputError when the prompt yields no token, holds a symbol outside the vocabulary or, with a fixed
    vocabulary, a special token, or has more than `max_tokens` tokens (bos included).
    """
    try:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except (TypeError, UnicodeEncodeError) as error:  # lone surrogates, which JSON lets through
        raise InputError(f"prompt: not valid Unicode text ({error}); send UTF-8") from error
    ids: list[int] = list(encoding["input_ids"])
    if not ids:
        raise InputError(f"prompt: {text[:40]!r} is empty; give at least one token of text")
    _refuse_unknown(tokenizer, text, ids, encoding["offset_mapping"])
    bos = tokenizer.bos_token_id
    if bos is not None and ids[0] != bos and _empty_sequence(tokenizer)[:1] == [bos]:
        ids.insert(0, bos)
    if max_tokens is not None and len(ids) > max_tokens:
        raise InputError(
            f"prompt: {len(ids)} tokens, the limit is {max_tokens}; shorten it or raise the limit"
        )
    return ids


def _refuse_unknown(
    tokenizer: PreTrainedTokenizerFast, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]
) -> None:
    unknown = tokenizer.unk_token_id
    fixed = isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)
    special = set(tokenizer.all_special_ids) if fixed else set()
    for token, (start, end) in zip(ids, spans, strict=True):
        symbol = text[start:end]
        # GPT-2 calls its end token "unknown" too, so written-out specials are told apart by their spelling
        if token == unknown and symbol != tokenizer.unk_token:
            size = len(tokenizer)
            raise InputError(
                f"prompt: {symbol!r} is not among the {size} symbols this model knows; rewrite the prompt"
            )
        if token in special:
            raise InputError(f"prompt: {symbol!r} is a special token of this model; leave it out")


def _is_plain(name: str) -> bool:
    """Whether this is a directory whose `tokenizer.json` is the whole truth, as ours are."""
    settings = Path(name, "tokenizer_config.json")
    if not (settings.is_file() and Path(name, "tokenizer.json").is_file()):
        return False
    declared = json.loads(settings.read_text(encoding="utf-8"))
    return isinstance(declared, dict) and declared.get("tokenizer_class") == "TokenizersBackend"


def _empty_sequence(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return list(tokenizer("", add_special_tokens=True)["input_ids"])


def _numbered(name: str, symbols: list[str]) -> dict[str, int]:
    """Vocabulary with the specials first; refuses empty lists, repeats and clashes with a special."""
    if not symbols:
        raise InputError(f"{name}: empty; give at least one symbol")
    vocabulary = {token: index for index, token in enumerate(SPECIALS)}
    for symbol in symbols:
        if symbol in vocabulary:
            why = "is a special token" if symbol in SPECIALS else "occurs twice"
            raise InputError(f"{name}: {symbol!r} {why}; remove it")
        vocabulary[symbol] = len(vocabulary)
    return vocabulary


def _wrap(backend: Tokenizer, running_text: bool = False) -> PreTrainedTokenizerFast:
    pad, bos, eos, unk = SPECIALS
    backend.add_special_tokens(list(SPECIALS))
    if not running_text:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, SPECIALS.index(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        split_special_tokens=running_text,
    )
