"""The control channel to a tier: JSON lines, one command at a time, each with a deadline and the tier's own token.

A separate thread drains the tier's answers, so that a tier never blocks on a full pipe. When the answers end, the tier
is dead: `obituary` explains why, and every waiting or later call raises.
"""

import json
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import LaunchError, TierCallError
from runner.launchers.base import EventCallback

_LONGEST_LINE_SHOWN = 200


@dataclass(frozen=True)
class Obituary:
    """Why a tier ended, and the end of its log."""

    reason: str
    log_tail: str

    @classmethod
    def of_exit(cls, code: int, log_tail: str) -> "Obituary":
        """Explain an exit status: above 128 a signal, as shells count them; else with the last log line."""
        signals = {number.value: number.name for number in signal.Signals}
        if code - 128 in signals:
            return cls(f"killed by {signals[code - 128]}", log_tail)
        last_line = log_tail.strip().rsplit("\n", 1)[-1].strip()
        return cls(f"ended with exit code {code}" + (f"; last log line: {last_line}" if last_line else ""), log_tail)


class ControlChannel:
    """Request and answer over a pair of byte streams."""

    def __init__(
        self,
        tier: str,
        *,
        lines: Iterable[bytes],
        send: Callable[[bytes], object],
        obituary: Callable[[], Obituary],
    ) -> None:
        self._tier = tier
        self._send = send
        self._obituary = obituary
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next_id = 0
        # 128 random bits: a process beside the tier can write to its stdin, but cannot guess this.
        self._token = secrets.token_hex(16)
        # A daemon: a reader that waits for a hanging tier must not keep the runner from ending.
        self._reader = threading.Thread(target=self._drain, args=(lines,), name=f"tier-{tier}", daemon=True)
        self._reader.start()

    def _drain(self, lines: Iterable[bytes]) -> None:
        try:
            for line in lines:
                self._messages.put(self._parse(line))
        except (OSError, ValueError):  # the stream was closed under the reader, or carries something else
            pass
        finally:
            self._messages.put(None)

    def _parse(self, line: bytes) -> dict[str, Any]:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError(f"not a message: {line[:_LONGEST_LINE_SHOWN]!r}")
        return message

    def wait_ready(self, *, deadline_s: float) -> dict[str, Any]:
        """Return the tier's first line; raise LaunchError if it dies or stays silent."""
        try:
            message = self._receive(time.monotonic() + deadline_s)
            if message.get("event") == "ready":
                self._write({"token": self._token})
                return message
        except TierCallError as error:
            raise LaunchError(
                f"tier {self._tier!r} did not get ready: {error.message}", tier=self._tier, log_tail=error.log_tail
            ) from error
        shown = json.dumps(message)[:_LONGEST_LINE_SHOWN]
        raise LaunchError(f"tier {self._tier!r} said {shown} instead of being ready", tier=self._tier)

    def call(self, command: Mapping[str, Any], *, on_event: EventCallback | None, deadline_s: float) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._next_id += 1
        # One deadline for the whole call: events on the way do not extend it.
        deadline = time.monotonic() + deadline_s
        self._write({"id": self._next_id, "token": self._token, **command})
        while True:
            message = self._receive(deadline)
            if message.get("id") != self._next_id:
                continue  # the late answer to a command whose deadline passed
            if "ok" not in message:
                if on_event is not None:
                    on_event(message)
            elif message["ok"]:
                result: dict[str, Any] = message.get("result") or {}
                return result
            else:
                error_info = message.get("error") or {}
                raise TierCallError(self._tier, error_info.get("type", "Error"), error_info.get("message", ""))

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._send(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise self._died() from error

    def join(self, timeout_s: float) -> None:
        """Wait until the answers have ended, so that their stream can be closed."""
        self._reader.join(timeout_s)

    def _receive(self, deadline: float) -> dict[str, Any]:
        try:
            message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            tail = self._obituary().log_tail
            raise TierCallError(self._tier, "DeadlineExceeded", "no answer in time", log_tail=tail) from None
        if message is None:
            # Put back, so that every later call learns of the end too.
            self._messages.put(None)
            raise self._died()
        return message

    def _died(self) -> TierCallError:
        obituary = self._obituary()
        return TierCallError(self._tier, "TierDied", obituary.reason, log_tail=obituary.log_tail)
