"""Reading text as it is, from files and directories, and refusing what is no text by file and byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig, sources
from tokenzero.policy.corpora.sources import open_source


def _read(path: Path, **options: str) -> list[str]:
    source = open_source(CorpusConfig(path=str(path), **options))  # type: ignore[arg-type]
    return ["".join(document.pieces) for document in source.documents()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@settings(max_examples=60)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), block=st.integers(1, 5)
)
def test_text_is_read_unchanged_in_blocks_of_any_size(folder: Path, text: str, block: int) -> None:
    path = folder / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK", max(block, 3))  # a byte order mark is looked for in the first block
        assert _read(path) == [text.removeprefix("\ufeff")]


@settings(max_examples=60)
@given(
    before=st.text("a\x7fé你😀", max_size=6),
    block=st.integers(1, 5),
    bad=st.sampled_from([b"\xff", b"\xc3", b"\xe4\xbd"]),
)
def test_the_byte_that_is_no_text_is_named(folder: Path, before: str, block: int, bad: bytes) -> None:
    path = folder / "b.txt"
    for after in (b"", b"a"):
        path.write_bytes(before.encode() + bad + after)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "BLOCK", block)
            with pytest.raises(InputError, match=rf"b\.txt is not UTF-8 at byte {len(before.encode())};"):
                _read(path)
    path.write_bytes(before.encode() + b"\x00" + bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK", 1)
        with pytest.raises(InputError, match=rf"b\.txt has a zero byte at byte {len(before.encode())}:"):
            _read(path)


def test_only_the_first_mark_of_byte_order_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK", 3)
    (tmp_path / "a.txt").write_bytes("\ufeffabc\ufeffd".encode())
    assert _read(tmp_path / "a.txt") == ["abc\ufeffd"]


def test_a_zero_byte_behind_half_a_character_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK", 2)
    (tmp_path / "a.txt").write_bytes(b"a\xc3\x00")
    with pytest.raises(InputError, match="has a zero byte at byte 2:"):
        _read(tmp_path / "a.txt")


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name, text in {
        "b.txt": "two\r\n",
        "a.md": "\ufeffone",
        "c/d.jsonl": '\ufeff{"text": "three"}\n\n{"text": "four", "other": 1}',
        "c/e.TEXT": "five",
        "picture.png": "no",
        ".hidden.txt": "no",
        ".git/x.txt": "no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    assert _read(tmp_path) == ["one", "two\r\n", "three", "four", "five"]
    source = open_source(CorpusConfig(path=str(tmp_path)))
    assert source.left_out == 1
    assert source.size == sum(
        (tmp_path / n).stat().st_size for n in ("b.txt", "a.md", "c/d.jsonl", "c/e.TEXT")
    )


def test_a_fingerprint_is_of_content_alone(tmp_path: Path) -> None:
    def fingerprint(path: Path) -> str:
        return open_source(CorpusConfig(path=str(path))).fingerprint()

    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    first = fingerprint(tmp_path / "a.txt")
    assert fingerprint(tmp_path / "b.txt") == first
    assert fingerprint(tmp_path) != first
    (tmp_path / "b.txt").write_text("texT")
    assert fingerprint(tmp_path / "b.txt") != first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2 is not JSON"),
        ("[1]", "line 2 is no object but '\\[1\\]'"),
        ('{"txt": "a", "id": 3}', "line 2 has no field 'text'; set corpus.text_field to one of id, txt"),
        ('{"text": 3}', "line 2: field 'text' is '3', not text"),
        ('{"text": null}', "line 2: field 'text' is 'None', not text"),
    ],
)
def test_a_bad_row_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        _read(path)


def test_a_byte_of_a_row_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = json.dumps({"text": "fine"}).encode() + b"\n"
    path.write_bytes(first + b'{"text": "\xff"}\n')
    with pytest.raises(InputError, match=f"rows.jsonl is not UTF-8 at byte {len(first) + 10};"):
        _read(path)
    path.write_text('{"line": "a"}\n{"line": "b"}')
    assert _read(path, text_field="line") == ["a", "b"]


def test_what_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corpus names no text"):
        open_source(CorpusConfig())
    with pytest.raises(InputError, match=r"none\.txt cannot be read \(No such file"):
        _read(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"a directory without text; put \.txt"):
        _read(tmp_path)
    (tmp_path / "lost.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lost\.txt cannot be read"):
        _read(tmp_path / "lost.txt")
    with pytest.raises(InputError, match="is no ordinary file"):
        _read(Path("/dev/null"))


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}')
    for name in ("a.txt", "b.jsonl"):
        source = open_source(CorpusConfig(path=str(tmp_path / name)))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", _refuse)
            with pytest.raises(InputError, match=f"{name} cannot be read \\(Permission denied\\)"):
                ["".join(document.pieces) for document in source.documents()]
            with pytest.raises(InputError, match=f"{name} cannot be read"):
                source.fingerprint()


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")
