"""A headless Chromium for tests, driven over its own debugging pipe: no package is needed, only the browser."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
# The browser reads from descriptor 3 and writes to 4; which numbers our pipes have depends on who else has files open.
_START = """\
import fcntl, os, sys
ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    """The browser's path: `CHROMIUM_PATH`, or one of the usual names."""
    return os.environ.get("CHROMIUM_PATH") or next((p for name in NAMES if (p := shutil.which(name))), None)


class PageError(RuntimeError):
    """The page, or the browser for it, refused an expression."""


class Chromium:
    """One browser with one page; a context manager, so that it ends with the test."""

    def __init__(self, path: str, size: tuple[int, int] = (1280, 900), timeout: float = 60) -> None:
        self.timeout = timeout
        self.profile = tempfile.TemporaryDirectory(prefix="daam-lens-chromium-", ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()
        command = [path, *_FLAGS, f"--user-data-dir={self.profile.name}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        starter = [sys.executable, "-c", _START, str(to_read), str(to_write), *command]
        self.process = subprocess.Popen(
            starter, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.session: str | None = None
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        target = pages[0]["targetId"] if pages else self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def send(self, method: str, **params: Any) -> Any:
        """One command; its result. PageError with the browser's own words when it fails, RuntimeError when it is gone."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + self.timeout
        while True:
            answer = self._read(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0, until - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            more = os.read(self.back, 1 << 16)
            if not more:
                raise RuntimeError("the browser has ended")
            self.buffer += more
        one, self.buffer = self.buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(one)
        return answer

    def js(self, expression: str) -> Any:
        """The value of an expression in the page (promises are awaited); PageError for an exception."""
        done = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise PageError(done["exceptionDetails"].get("exception", {}).get("description", str(done)))
        return done["result"].get("value")

    def until(self, expression: str) -> Any:
        """Waits for a true value; a page that is still arriving may lack what the expression names, and is waited for."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                value, why = self.js(expression), None
            except PageError as error:
                value, why = None, error
            if value:
                return value
            if time.monotonic() > end:
                raise RuntimeError(f"never true: {expression}") from why
            time.sleep(0.02)

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def theme(self, name: str) -> None:
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, path: Path) -> None:
        """A file from disk, ready when its explorer has been built and painted (before that a browser drops the mouse)."""
        self.js("window.before = true")
        self.send("Page.navigate", url=path.resolve().as_uri())
        built = "document.querySelector('daam-explorer')?.shadowRoot.querySelector('.root, .message') != null"
        self.until(f"!window.before && {built}")
        self.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def mouse(self, kind: str, x: float, y: float, held: bool = False) -> None:
        button = "left" if held or kind != "Moved" else "none"
        self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button=button, buttons=int(held), clickCount=1)

    def click(self, x: float, y: float) -> None:
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y, held=True)
        self.mouse("Released", x, y)

    def drag(self, *points: tuple[float, float]) -> None:
        self.mouse("Moved", *points[0])
        self.mouse("Pressed", *points[0], held=True)
        for point in points[1:]:
            self.mouse("Moved", *point, held=True)
        self.mouse("Released", *points[-1])

    def touch(self, *points: tuple[float, float]) -> None:
        """A finger goes down at the first point, along the others, and up again (see `touch_screen`)."""
        for i, (x, y) in enumerate(points):
            kind = "touchMove" if i else "touchStart"
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y, "id": 1}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def touch_screen(self, there: bool) -> None:
        """Whether the page finds one, and makes its buttons larger."""
        self.send("Emulation.setTouchEmulationEnabled", enabled=there)

    def key(self, name: str, shift: bool = False) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name, modifiers=8 if shift else 0)

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        """What is seen, or the whole page: for that the browser changes the window's size, and a page may lose its hover."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
        return path

    def errors(self) -> list[str]:
        """What the page complained about: exceptions, and errors in its console."""
        self.js("0")
        thrown = [e["params"]["exceptionDetails"]["text"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        calls = [e["params"] for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        logged = [f"{entry['text']} {entry.get('url', '')}".strip() for entry in entries if entry["level"] == "error"]
        return thrown + logged + [str(call["args"]) for call in calls if call["type"] == "error"]
