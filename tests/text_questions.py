"""Small made-up question files, and where the published ones are looked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

PUBLISHED = Path(os.environ.get("TOKENZERO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def published(name: str) -> str:
    """The path of a published data file; skips the test where it is not there."""
    path = PUBLISHED / name
    if not path.is_file():
        pytest.skip(f"{name} is not here; set TOKENZERO_DATA to its folder")
    return str(path)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows, one JSON object a line, and give the path back."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
