"""`tokenzero serve` as a process of its own, for benchmarks: started, watched from outside, told to stop.

It measures nothing by itself and sends no requests but those that ask whether the server is there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

STARTS_S = 120.0
ENDS_S = 60.0
LOG_TAIL = 10_000


class ServedProcess(NamedTuple):
    """A running server: its address and its process number."""

    url: str
    pid: int

    def resident_bytes(self) -> int:
        """Resident memory of the server (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Files and sockets the server has open (Linux)."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Processor time the server has used (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self) -> dict[str, float]:
        """The Prometheus page: each sample by its name and labels, as they are written there."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def settled(self, seconds: float = 30.0) -> bool:
        """Wait until no answer waits or is in play; whether that came to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.metrics()
            if now["tokenzero_answers_in_play"] == now["tokenzero_answers_waiting"] == 0:
                return True
            time.sleep(0.1)
        return False


@contextmanager
def serve(model: str, options: Sequence[str] = ()) -> Iterator[ServedProcess]:
    """`tokenzero serve MODEL` on a free port until the block ends; then it must drain and exit with 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tokenzero.cli", "serve", model, "--port", str(port), *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, stderr=log)
        try:
            served = ServedProcess(f"http://127.0.0.1:{port}", process.pid)
            _wait(served, process, log)
            yield served
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=ENDS_S)
            if process.returncode != 0:
                raise RuntimeError(f"the server ended with {process.returncode}: {_tail(log)}")
            if "Traceback" in _tail(log):
                raise RuntimeError(f"the server logged a failure: {_tail(log)}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-LOG_TAIL:]


def _wait(served: ServedProcess, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    end = time.monotonic() + STARTS_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server did not start: {_tail(log)}")
        try:
            with urllib.request.urlopen(f"{served.url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the server did not start in time")
