"""A corpus from text to mapped tokens: splits, files that are made once, and what may happen to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import OutputError
from tokenzero.policy.corpora import Corpus, CorpusConfig, TokenizerConfig, open_corpus
from tokenzero.policy.corpora.corpus import cache_directory
from tokenzero.policy.corpora.token_files import MANIFEST_FILE, TokenFileWriter
from tokenzero.policy.tokenizers import character_tokenizer, train_bpe

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler é in the mind 你\n" * 4
KINDS = {"characters": TokenizerConfig(), "bpe": TokenizerConfig("bpe", 280)}


@pytest.fixture
def config(tmp_path: Path) -> CorpusConfig:
    """One document, cut 80 : 10 : 10."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return CorpusConfig(path=str(tmp_path / "text.txt"), test_share=0.1, cache=str(tmp_path / "cache"))


def _rows(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _several(tmp_path: Path, texts: list[str], **options: Any) -> Corpus:
    path = _rows(tmp_path / "rows.jsonl", texts)
    return open_corpus(CorpusConfig(path=str(path), cache=str(tmp_path / "cache"), **options))


def _texts(corpus: Corpus, split: str) -> list[str]:
    """The documents of a split, decoded, each without its <eos>."""
    tokens, bounds = corpus.tokens(split), corpus.documents(split)
    assert bounds[0] == 0
    assert bounds[-1] == len(tokens)
    found = []
    for start, stop in pairwise(bounds.tolist()):
        assert tokens[stop - 1] == corpus.tokenizer.eos_token_id
        found.append(corpus.tokenizer.decode(tokens[start : stop - 1]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_document_is_cut_by_characters(kind: str, config: CorpusConfig) -> None:
    corpus = open_corpus(replace(config, tokenizer=KINDS[kind]))
    count = len(TEXT)
    held = -(-count // 10)
    parts = {
        "train": TEXT[: count - 2 * held],
        "validation": TEXT[count - 2 * held : count - held],
        "test": TEXT[count - held :],
    }
    for split, text in parts.items():
        tokens = corpus.tokens(split)
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.uint16
        assert corpus.tokenizer.decode(tokens) == text
        assert tokens.tolist() == corpus.tokenizer(text)["input_ids"]
        assert corpus.characters(split) == len(text)
        assert corpus.documents(split).tolist() == [0, len(tokens)]
    with pytest.raises(ValueError, match="read-only"):
        corpus.tokens("train")[0] = 1
    with pytest.raises(InputError, match="split 'dev' is unknown; use one of train, validation, test"):
        corpus.tokens("dev")


def test_the_tokenizer_knows_the_training_text_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab" * 45 + "z" * 10)
    corpus = open_corpus(CorpusConfig(path=str(tmp_path / "a.txt"), cache=str(tmp_path / "cache")))
    assert len(corpus.tokenizer) == 4 + 256 + 2
    assert corpus.tokens("validation").tolist() == [4 + ord("z")] * 10
    assert corpus.tokens("test").tolist() == []
    assert corpus.documents("test").tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_document_has_the_tokens_it_has_as_a_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sources.BLOCK", "gathering.BLOCK", "making.BLOCK", "making._PIECE"):
        monkeypatch.setattr(f"tokenzero.policy.corpora.{name}", 1001)
    words = np.random.default_rng(5).integers(0, 6, size=20_000)
    text = "".join(np.array(["the ", "cat ", "\n\n", "  sat", "'s é你", "12"])[words])
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    config = CorpusConfig(
        path=str(tmp_path / "a.txt"),
        validation_share=0.4,
        tokenizer=KINDS[kind],
        cache=str(tmp_path / "cache"),
    )
    corpus = open_corpus(config)
    cut = len(text) - -(-len(text) * 2 // 5)
    assert corpus.tokens("train").tolist() == corpus.tokenizer(text[:cut])["input_ids"]
    assert corpus.tokens("validation").tolist() == corpus.tokenizer(text[cut:])["input_ids"]
    if kind == "bpe":
        learnt = train_bpe([text[:cut]], KINDS[kind].vocab_size, running_text=True)
        assert corpus.tokenizer.backend_tokenizer.to_str() == learnt.backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_several_documents_end_each_with_eos(kind: str, tmp_path: Path) -> None:
    texts = [f"document {number} <eos> é" for number in range(60)]
    corpus = _several(tmp_path, ["", *texts], test_share=0.2, tokenizer=KINDS[kind])
    parts = {split: _texts(corpus, split) for split in ("train", "validation", "test")}
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)
    assert all(part == sorted(part, key=texts.index) for part in parts.values())
    for split, part in parts.items():
        assert corpus.characters(split) == sum(map(len, part))
        assert (corpus.tokens(split) == 2).sum() == len(part), "an <eos> that was typed is no end"
    assert 2 <= len(parts["validation"]) <= 12
    assert 4 <= len(parts["test"]) <= 22


@settings(max_examples=10)
@given(added=st.lists(st.text("xyz", min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_a_document_stays_in_its_split_when_others_come(
    tmp_path_factory: pytest.TempPathFactory, added: list[str]
) -> None:
    texts = [f"document {number}" for number in range(40)]
    before = _several(tmp_path_factory.mktemp("before"), texts, test_share=0.1)
    after = _several(tmp_path_factory.mktemp("after"), [*added, *texts[::-1], texts[0]], test_share=0.1)
    for split in ("train", "validation", "test"):
        assert set(_texts(before, split)) <= set(_texts(after, split))
    whole = [text for split in ("train", "validation", "test") for text in set(_texts(after, split))]
    assert len(whole) == len(set(whole)), "equal documents fall on one side"


def test_max_documents_counts_those_with_text(tmp_path: Path) -> None:
    corpus = _several(tmp_path, ["", "one", "", "two", "three"], max_documents=2, validation_share=0)
    assert _texts(corpus, "train") == ["one", "two"]
    single = _several(tmp_path, ["", "one", "two"], max_documents=1, validation_share=0)
    assert single.tokenizer.decode(single.tokens("train")) == "one", "one document has no <eos>"


def test_splits_that_get_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 2 documents falls to validation .* raise it, set it to 0"):
        _several(tmp_path, ["one", "two"], validation_share=0.001)
    with pytest.raises(InputError, match=r"none of 2 documents falls to test at corpus\.test_share 0\.001"):
        _several(tmp_path, ["one", "two"], validation_share=0, test_share=0.001)
    with pytest.raises(InputError, match=r"2 document\(s\) leave nothing for training"):
        _several(tmp_path, ["one", "two"], validation_share=0.9999)
    with pytest.raises(InputError, match=r"1 document\(s\) leave nothing for training"):
        _several(tmp_path, ["a"])
    with pytest.raises(InputError, match="holds no text"):
        _several(tmp_path, ["", ""])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="holds no text"):
        open_corpus(CorpusConfig(path=str(tmp_path / "empty.txt"), cache=str(tmp_path / "cache")))
    with pytest.raises(InputError, match=r"rows.jsonl line 1 .*a lone surrogate at character 1"):
        _several(tmp_path, ["a\ud800"])
    assert list((tmp_path / "cache").rglob(".tmp-*")) == []


def test_the_share_it_asks_for_is_enough(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _several(tmp_path, ["one", "two", "three"], validation_share=0.001)
    needed = float(str(caught.value).split("above ")[1].split(":")[0])
    corpus = _several(tmp_path, ["one", "two", "three"], validation_share=needed + 0.001)
    assert len(_texts(corpus, "validation")) == 1


# ---- made once


def test_it_is_made_once_and_anew_when_the_text_changes(config: CorpusConfig) -> None:
    lines: list[str] = []
    first = open_corpus(config, lines.append)
    assert [line.split()[0] for line in lines] == ["reading", "learning", *["encoding"] * 3, "token"]
    again = open_corpus(config, lines.append)
    assert len(lines) == 6
    assert (again.digest, again.directory) == (first.digest, first.directory)
    Path(config.path).write_text(TEXT + "x")
    changed = open_corpus(config, lines.append)
    assert len(lines) == 12
    assert changed.digest != first.digest
    Path(config.path).write_text(TEXT)
    assert open_corpus(config, lines.append).digest == first.digest
    assert len(lines) == 12, "the earlier files are still there"


def test_the_digest_is_of_tokens_and_tokenizer(config: CorpusConfig, tmp_path: Path) -> None:
    first = open_corpus(config).digest
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text(TEXT, encoding="utf-8")
    assert open_corpus(replace(config, path=str(elsewhere), cache=str(tmp_path / "other"))).digest == first
    others = [
        replace(config, tokenizer=KINDS["bpe"]),
        replace(config, tokenizer=TokenizerConfig("bpe", 270)),
        replace(config, test_share=0.2),
        replace(config, validation_share=0.2),
    ]
    assert len({first, *(open_corpus(other).digest for other in others)}) == 5


def test_vocabularies_beyond_65536_take_uint32(tmp_path: Path) -> None:
    for size, dtype in ((2**16, np.uint16), (2**16 + 1, np.uint32)):
        with TokenFileWriter(tmp_path, f"at {size}", size, None) as writer:
            writer.write(np.array([size - 1], dtype=np.uint32), True)
        assert writer.dtype == dtype
        assert np.fromfile(tmp_path / f"at {size}.tokens", dtype=dtype).tolist() == [size - 1]


def test_progress_comes_to_the_end(config: CorpusConfig) -> None:
    heard: dict[str, list[tuple[int, int | None]]] = {}
    open_corpus(config, progress=lambda doing, done, total: heard.setdefault(doing, []).append((done, total)))
    size = len(TEXT.encode())
    train = len(TEXT[: len(TEXT) - 2 * -(-len(TEXT) // 10)].encode())
    assert {doing: calls[-1] for doing, calls in heard.items()} == {
        "reading": (size, size),
        "learning the tokenizer": (train, train),
        "encoding": (size, size),
    }
    assert all(calls == sorted(calls) for calls in heard.values())


def test_the_cache_has_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "tokenzero" / "corpora"
    assert cache_directory("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory().parts[-2:] == ("tokenzero", "corpora")


def test_a_cache_that_cannot_be_written_is_one_line(config: CorpusConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"choose another place as corpus\.cache"):
        open_corpus(replace(config, cache=str(tmp_path / "file")))


# ---- damage


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"characters": ', '"characters": 1', 1))


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("train.tokens", _truncate, "has [0-9,]+ bytes and was written with"),
        ("train.tokens", _flip, "is not what its SHA-256 says"),
        ("validation.documents", _flip, "is not what its SHA-256 says"),
        ("tokenizer/tokenizer.json", _flip, "is not what its SHA-256 says"),
        ("test.tokens", Path.unlink, "cannot be read"),
        (MANIFEST_FILE, _edit, "is not what its own SHA-256 says"),
        (MANIFEST_FILE, _truncate, "cannot be read"),
        (MANIFEST_FILE, Path.unlink, "cannot be read"),
    ],
)
def test_damage_is_one_line_with_the_way_out(
    name: str, harm: Callable[[Path], None], message: str, config: CorpusConfig
) -> None:
    directory = open_corpus(config).directory
    harm(directory / name)
    with pytest.raises(InputError, match=message) as caught:
        open_corpus(config)
    line = str(caught.value)
    assert str(directory / name) in line
    assert line.endswith(f"; delete {directory} and run again to make its token files anew")
    assert "\n" not in line
    shutil.rmtree(directory)
    open_corpus(config)


def _run(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, *arguments], stdout=subprocess.PIPE, text=True, env=os.environ
    )


KILLED = """
import os, signal, sys
from tokenzero.policy.corpora import CorpusConfig, making, open_corpus

making.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_corpus(CorpusConfig(path=sys.argv[1], test_share=0.1, cache=sys.argv[2]))
"""


def test_what_a_killed_process_left_is_cleared(config: CorpusConfig) -> None:
    child = _run(KILLED, config.path, config.cache)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    (left,) = Path(config.cache).rglob(".tmp-*")
    corpus = open_corpus(config)
    assert corpus.directory.parent == left.parent, "it was at the same corpus"
    assert not left.exists()


WAITING = """
import sys
from tokenzero.policy.corpora import CorpusConfig, open_corpus
corpus = open_corpus(CorpusConfig(path=sys.argv[1], test_share=0.1, cache=sys.argv[2]), print)
print(corpus.digest)
"""


def test_two_processes_make_it_once(config: CorpusConfig) -> None:
    children: list[subprocess.Popen[str]] = []

    def start_another(line: str) -> None:
        if line.startswith("learning"):
            children.append(_run(WAITING, config.path, config.cache))
            assert children[0].stdout is not None
            assert children[0].stdout.readline().startswith("another process makes")

    corpus = open_corpus(config, start_another)
    rest, _ = children[0].communicate()
    assert rest.splitlines() == [corpus.digest], "it took what was made"


def test_a_text_that_changes_while_it_is_read_is_refused(config: CorpusConfig) -> None:
    def change(line: str) -> None:
        if line.startswith("reading"):
            Path(config.path).write_text("other")

    with pytest.raises(InputError, match="changed while it was read; run again"):
        open_corpus(config, change)
    assert list(Path(config.cache).rglob("corpus")) == []


# ---- loaded tokenizers and data sets


def test_a_loaded_tokenizer_is_taken_as_it_is(config: CorpusConfig, tmp_path: Path) -> None:
    saved = train_bpe([TEXT], 270)
    saved.save_pretrained(tmp_path / "saved")
    loaded = replace(config, tokenizer=TokenizerConfig(load=str(tmp_path / "saved")))
    corpus = open_corpus(loaded)
    whole = [int(token) for split in ("train", "validation", "test") for token in corpus.tokens(split)]
    assert min(whole) >= 4
    assert saved.decode(whole) == TEXT
    assert open_corpus(loaded).digest == corpus.digest
    train_bpe([TEXT[::-1]], 270).save_pretrained(tmp_path / "saved")
    assert open_corpus(loaded).directory != corpus.directory, "another tokenizer, another corpus"


def test_a_loaded_tokenizer_that_does_not_serve_is_refused(config: CorpusConfig, tmp_path: Path) -> None:
    character_tokenizer("abc").save_pretrained(tmp_path / "few")
    load = TokenizerConfig(load=str(tmp_path / "few"))
    with pytest.raises(InputError, match="'T' is not among its 7 symbols"):
        open_corpus(replace(config, tokenizer=load))
    endless = train_bpe([TEXT], 270)
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="has no end token"):
        _several(
            tmp_path,
            ["a", "b"],
            validation_share=0,
            tokenizer=TokenizerConfig(load=str(tmp_path / "endless")),
        )
    with pytest.raises(InputError, match="tokenizer: cannot open"):
        open_corpus(replace(config, tokenizer=TokenizerConfig(load=str(tmp_path / "none"))))


def test_a_dataset_is_streamed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> Any:
        asked.append((names, options))
        for number in range(10**9):  # far more than anybody would read
            yield {"body": f"row {number}"}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    config = CorpusConfig(
        dataset="some/set",
        subset="en",
        dataset_split="dev",
        text_field="body",
        max_documents=3,
        validation_share=0,
        cache=str(tmp_path),
    )
    for _ in range(2):
        assert _texts(open_corpus(config), "train") == ["row 0", "row 1", "row 2"]
    assert asked == [(("some/set", "en"), {"split": "dev", "streaming": True})]
    with pytest.raises(InputError, match=r"some/set dev row 1 has no field 'text'; set corpus\.text_field"):
        open_corpus(replace(config, text_field="text"))


def test_datasets_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        yield {"text": "one"}
        raise ConnectionError("the line\nbroke")

    config = CorpusConfig(dataset="some/set", cache=str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match=r"'some/set' cannot be read \(the line broke\); check its name"):
        open_corpus(config)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the package datasets; install tokenzero\[data\]"):
        open_corpus(config)


def test_a_directory_by_the_package_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "data").mkdir()
    _rows(tmp_path / "data" / "train.jsonl", ["one", "two"])
    config = CorpusConfig(dataset=str(tmp_path / "data"), validation_share=0, cache=str(tmp_path / "cache"))
    first = open_corpus(config)
    assert _texts(first, "train") == ["one", "two"]
    _rows(tmp_path / "data" / "train.jsonl", ["one", "three"])
    assert _texts(open_corpus(config), "train") == ["one", "three"]
    with pytest.raises(InputError, match="Bad split: none"):
        open_corpus(replace(config, dataset_split="none"))
