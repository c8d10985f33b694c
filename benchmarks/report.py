"""What every benchmark writes beside its numbers: the machine, the command, and one table of rows.

It measures nothing and decides nothing. Rows are plain dictionaries; the JSON file holds them as they are.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("numpy", "numba", "torch", "transformers", "jax", "mctx", "open_spiel")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# transformers looks for a package called kernels and would take the benchmark of that name for it.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
WIDTH = 160  # of a table whose reader is a file


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, threads of the libraries that are loaded, versions, date (UTC).

    A package that is not installed is None; a thread setting that is not in the environment is left out.
    """
    threads = {name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ}
    if "torch" in sys.modules:
        threads["torch"] = str(sys.modules["torch"].get_num_threads())
    if "numba" in sys.modules:
        threads["numba"] = str(sys.modules["numba"].get_num_threads())
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def emit(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    json_path: Path | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print the rows as a table, the notes below it; with `json_path`, write all of it there too.

    Columns are the keys in the order they first appear; a row without a key shows "-". Floats are shown with
    three significant digits and written in full.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title)
    for name in columns:
        numbers = all(isinstance(row.get(name), (int, float, type(None))) for row in rows)
        table.add_column(name, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    about = machine()
    console.print(f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['date']}")
    for note in notes:
        console.print(note, markup=False)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "title": title,
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "machine": about,
            "rows": [dict(row) for row in rows],
            "notes": list(notes),
        }
        json_path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
