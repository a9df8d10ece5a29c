"""A line for each request, in the Common Log Format with the seconds that the answer took.

Lines are written by a thread of their own, many at once: a reader of the log that stops reading must not stop the
service, whose event loop would wait for it.
"""

import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Protocol, TextIO
from urllib.parse import quote

from catalog.units import counted

# Lines that wait while the log is not read; later ones are counted and dropped.
_WAITING = 10_000
# Long enough to write what comes together at once, and short enough for a person who watches.
_EVERY_S = 0.1
_CLOSING_S = 1.0
_PATH_CHARACTERS = 300
# What a URL may hold as it is. Everything else is percent-encoded: quotes, blanks and control characters.
_SAFE = "/:@!$&'()*+,;=~[]"


class RequestLog(Protocol):
    """Takes note of answered and refused requests."""

    def write(self, *, client: str, request: str, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note one request."""


class AccessLog:
    """Writes to a stream, by default that of errors; `close` writes what still waits."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # The stream is looked up now: tests replace that of errors.
        self._stream = stream or sys.stderr
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    def write(self, *, client: str, request: str, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note one request; `request` comes from `request_line`."""
        if len(self._lines) >= _WAITING:
            self._dropped += 1
            return
        moment = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        line = f'{quote(client, _SAFE) or "-"} - - [{moment}] "{request}" {status} {sent_bytes} {duration_s:.6f}\n'
        self._lines.append(line)
        self._some.set()

    def close(self) -> None:
        """Write what still waits; give up on a stream that takes nothing."""
        self._closed.set()
        self._some.set()
        self._writer.join(_CLOSING_S)

    def _run(self) -> None:
        while self._lines or not self._closed.is_set():
            self._some.wait()
            # Others may follow at once; together they are one write.
            self._closed.wait(_EVERY_S)
            self._some.clear()
            self._flush()
            if self._closed.is_set():
                self._some.set()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._dropped:
            lines.append(f"access log: {counted(self._dropped, 'line')} dropped, because the log was not read\n")
            self._dropped = 0
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            # A closed stream or a full disk must not end the service; there is nowhere to say so.
            return


def request_line(method: str, path: str, version: str, *, secret: str | None = None) -> str:
    """Return a request as its log line shows it: printable, without its query and without the service's key.

    Examples
    --------
    >>> request_line("GET", "/strategies/a b\\n", "1.1")
    'GET /strategies/a%20b%0A HTTP/1.1'
    """
    if secret:
        path = path.replace(secret, "***")
    # By characters and not by bytes of the encoded path, which could end in the middle of one.
    shown = path if len(path) <= _PATH_CHARACTERS else f"{path[:_PATH_CHARACTERS]}..."
    return f"{quote(method, '')} {quote(shown, _SAFE, errors='replace')} HTTP/{quote(version, '.')}"
