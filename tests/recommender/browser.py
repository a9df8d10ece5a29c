"""One Chromium for all pages that a process of the tests looks at: its start takes five times as long as a page.

It is driven through the pipes of the DevTools protocol, whose messages are JSON and end with a zero byte.
"""

import atexit
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from functools import cache
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM = next(filter(None, map(shutil.which, (*_NAMES, *_APPLICATIONS))), None)
GET_CHROMIUM = "no Chromium here: apt-get install chromium (Debian), brew install --cask chromium (macOS)"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# The page's own time, which runs as fast as the machine can while nothing is fetched.
_BUDGET_MS = 5000
_DEADLINE_S = 60.0
_CONTENT = "(document.doctype ? '<!DOCTYPE html>' : '') + document.documentElement.outerHTML"
_COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


class Browser:
    """A running Chromium; each page that is loaded has cookies and storage of its own."""

    def __init__(self) -> None:
        assert CHROMIUM is not None, GET_CHROMIUM
        self._profile = tempfile.TemporaryDirectory(prefix="tierwise-browser-")
        # Chromium reads from descriptor 3 and writes to 4; those of the pipes lie above both.
        (reads, self._writes), (self._reads, writes) = (_high_pipe() for _ in range(2))

        def connect() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        command = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=connect, **silent)  # type: ignore[call-overload]
        os.close(reads)
        os.close(writes)
        self._number, self._received, self._events = 0, b"", list[dict[str, Any]]()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._writes)
        os.close(self._reads)
        self._profile.cleanup()

    def load(self, url: str, *, size: tuple[int, int] = (800, 600)) -> tuple[str, list[str]]:
        """Return the document as it is once its scripts have run, and what they wrote to the console."""
        context = self._call("Target.createBrowserContext")["browserContextId"]
        page = {"url": "about:blank", "browserContextId": context, "width": size[0], "height": size[1]}
        target = self._call("Target.createTarget", **page)["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable", session)
        self._events.clear()
        self._call("Page.navigate", session, url=url)
        policy = {"policy": "pauseIfNetworkFetchesPending", "budget": _BUDGET_MS}
        self._call("Emulation.setVirtualTimePolicy", session, **policy)
        while not any(event["method"] == "Emulation.virtualTimeBudgetExpired" for event in self._events):
            self._events.append(self._message())
        content = self._call("Runtime.evaluate", session, expression=_CONTENT)["result"]["value"]
        complaints = [json.dumps(event["params"]) for event in self._events if _is_complaint(event)]
        self._call("Target.disposeBrowserContext", browserContextId=context)
        return str(content), complaints

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        content = json.dumps(request | ({"sessionId": session} if session else {})).encode() + b"\0"
        while content:
            content = content[os.write(self._writes, content) :]
        while (message := self._message()).get("id") != self._number:
            self._events.append(message)
        assert "error" not in message, (method, message)
        result: dict[str, Any] = message["result"]
        return result

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + _DEADLINE_S
        while b"\0" not in self._received:
            assert select.select([self._reads], [], [], deadline - time.monotonic())[0], "Chromium does not answer"
            piece = os.read(self._reads, 1 << 16)
            assert piece, "Chromium has ended"
            self._received += piece
        content, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(content)
        return message


def _is_complaint(event: dict[str, Any]) -> bool:
    """Return whether a page wrote to the console; that a request was refused, the browser writes there itself."""
    entry = event.get("params", {}).get("entry", {})
    return event["method"] in _COMPLAINTS and entry.get("source") != "network"


def _high_pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are above those that every process has."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


@cache
def browser() -> Browser:
    """Return the one browser of this process."""
    started = Browser()
    atexit.register(started.close)
    return started
