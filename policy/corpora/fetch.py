"""The one corpus that is fetched by name: the works of Shakespeare, as char-rnn distributes them (1.1 MB).

What arrives is checked by its SHA-256, whoever sent it. Nothing else is ever downloaded here.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes

ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
FILE_NAME = "tinyshakespeare.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_SIZE = 1_115_394  # bytes
_PATIENCE = 30.0  # seconds without an answer


def tiny_shakespeare(directory: str | os.PathLike[str], address: str = ADDRESS) -> Path:
    """``tinyshakespeare.txt`` in ``directory``: the file that is there, else downloaded from ``address``.

    HF_HUB_OFFLINE=1 says that there is no network, here as in the packages that define it.
    Raises InputError when the file there, or what was sent, is not that text, or when it cannot be
    downloaded; the line says which file to put where. Raises OutputError when it cannot be written.
    """
    path = Path(directory) / FILE_NAME
    way_out = f"put that text at {path}, or give any other text as corpus.path"
    if path.exists():
        if _sum_of_file(path) != SHA256:
            raise InputError(
                f"{path} is not tiny Shakespeare (its SHA-256 differs); remove it, or give it as "
                "corpus.path if it is the text you mean"
            )
        return path
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise InputError(
            f"tiny Shakespeare is not here and HF_HUB_OFFLINE forbids to fetch {address}; {way_out}"
        )
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            data = answer.read(_SIZE + 1)
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer, and holds the connection
        reason = " ".join(str(getattr(error, "reason", "") or error).split())
        raise InputError(f"cannot download {address} ({reason}); {way_out}") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise InputError(
            f"{address} sent something else than tiny Shakespeare (its SHA-256 differs); {way_out}"
        )
    write_bytes(path, data)
    return path


def _sum_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); remove it, or give corpus.path"
        ) from error
