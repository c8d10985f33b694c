"""Fetching tiny Shakespeare, from a server in this process and without any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import fetch
from tokenzero.policy.corpora.fetch import FILE_NAME, tiny_shakespeare

TEXT = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]
        asked.append(self.path)
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        if self.path == "/short":
            self.wfile.write(TEXT[:10])
        else:
            self.wfile.write(TEXT if self.path == "/input.txt" else TEXT[::-1])

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(TEXT).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as made:
        made.asked = []  # type: ignore[attr-defined]
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _address(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_it_is_downloaded_once(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    for _ in range(2):
        path = tiny_shakespeare(tmp_path / "new", _address(server, "/input.txt"))
        assert path == tmp_path / "new" / FILE_NAME
        assert path.read_bytes() == TEXT
    assert server.asked == ["/input.txt"]  # type: ignore[attr-defined]
    assert [p.name for p in path.parent.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/gone", "Not Found"), ("/other", "sent something else"), ("/short", "IncompleteRead|something else")],
)
def test_a_bad_answer_leaves_nothing(
    path: str, reason: str, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        tiny_shakespeare(tmp_path, _address(server, path))
    assert f"put that text at {tmp_path / FILE_NAME}, or give any other text as corpus.path" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_what_to_put_where(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    address = _address(nobody, "/input.txt")
    nobody.server_close()  # a port where nobody listens
    with pytest.raises(InputError, match=r"cannot download .*refused.*put that text at"):
        tiny_shakespeare(tmp_path, address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE forbids .*put that text at"):
        tiny_shakespeare(tmp_path, _address(server, "/input.txt"))
    assert server.asked == []  # type: ignore[attr-defined]


def test_another_file_of_that_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("not it")
    with pytest.raises(InputError, match=r"is not tiny Shakespeare .*; remove it"):
        tiny_shakespeare(tmp_path)


def test_the_text_beside_the_repository_is_the_one_meant() -> None:
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (data / FILE_NAME).is_file():
        pytest.skip("needs tinyshakespeare.txt in ../shared/data")
    assert tiny_shakespeare(data).stat().st_size == fetch._SIZE
