"""A headless Chromium that tests drive through its own pipe (the Chrome DevTools protocol), with no package
and no network port. Where no Chromium is installed the tests are skipped, and say so.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
# The browser reads commands from its descriptor 3 and writes answers to 4.
BECOME = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds for one answer before the browser is given up


class Page:
    """One tab. `complaints` are its errors, warnings and blocked requests so far."""

    def __init__(self, process: subprocess.Popen[bytes], into: int, out: int) -> None:
        self._process, self._into, self._out = process, into, out
        self._rest, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Send one command and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def _receive(self) -> Any:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(0.0, until - time.monotonic()))
            read = os.read(self._out, 1 << 20) if ready else b""
            assert read, f"Chromium said nothing for {PATIENCE} s, or ended ({self._process.poll()})"
            self._rest += read
        one, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(one)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(
            ("file:", "blob:", "data:")
        ):
            self.complaints.append(f"asked for {told['request']['url']}")

    def open(self, path: Path, fragment: str = "", *, size: tuple[int, int] = (1400, 900)) -> None:
        """Load a file and wait until it has drawn."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        self._loaded = False
        self.ask("Page.navigate", url="about:blank")  # else only the fragment might change
        while not self._loaded:
            self._receive()
        self._loaded = False
        self.ask("Page.navigate", url=f"{path.resolve().as_uri()}{fragment}")
        while not self._loaded:
            self._receive()
        self.settle()

    def prefer(self, **features: str) -> None:
        """Media features of the user, as in `prefer(prefers_color_scheme="dark")`."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=listed)

    def run(self, script: str) -> Any:
        """The value of an expression; promises are waited for."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self) -> None:
        """Wait until two frames were painted."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def press(self, key: str) -> None:
        """Press a key; one letter types itself."""
        codes = {"Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        about = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0])), "text": text}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse there."""
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])


def installed() -> str | None:
    """Where Chromium is, None where it is not."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile in the directory `profile`, ended with the block."""
    program = installed()
    if program is None:
        pytest.skip("no Chromium is installed, so the page is not looked at in a browser")
    commands, into = os.pipe()
    out, answers = os.pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            BECOME,
            str(commands),
            str(answers),
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
        ],
        pass_fds=(commands, answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Page(process, into, out)
    finally:
        os.close(into)  # the browser ends when its commands do
        os.close(out)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
