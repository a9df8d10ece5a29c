"""The control channel: JSON lines in on stdin, JSON lines out on stdout, one command at a time.

A guarded channel's first line is `{"token": "…"}`: the process that starts the tier draws it, and every command must
carry it. A process that gets hold of the tier's stdin later, such as one in its container, can therefore send none.
"""

from __future__ import annotations

import hmac
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tierserver.client import Client, probe_link
from tierserver.errors import CommandError, TierError
from tierserver.machine import read_stats
from tierserver.messages import (
    Command,
    Digest,
    ErrorInfo,
    Evaluate,
    ItemsEvent,
    Load,
    Measure,
    Message,
    MessageError,
    Probe,
    SampleEvent,
    Stats,
    Unload,
    UnloadResult,
    parse_command,
)
from tierserver.pipeline import Tier, digest, evaluate

logger = logging.getLogger(__name__)
_Emit = Callable[[Message], None]


class Control:
    """Reads in one thread and works in another, so that the end of stdin is seen during a long command."""

    def __init__(self, tier: Tier, source: TextIO, sink: TextIO, *, guarded: bool, on_end: Callable[[], None]) -> None:
        self._tier = tier
        self._guarded = guarded
        self._token: str | None = None
        self._client = Client(tier)
        self._source = source
        self._sink = sink
        self._on_end = on_end
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self) -> None:
        # Daemons: nothing can interrupt a read of stdin, and it must not keep the process alive.
        threading.Thread(target=self._read, name="control-read", daemon=True).start()
        threading.Thread(target=self._work, name="control-work", daemon=True).start()

    def tell(self, line: Mapping[str, Any]) -> None:
        """Write one line; end the tier if the reader is gone."""
        try:
            # A sink that was closed on this side raises ValueError, one closed by the reader BrokenPipeError.
            self._sink.write(json.dumps(line) + "\n")
            self._sink.flush()
        except (BrokenPipeError, ValueError):
            self._on_end()

    def _read(self) -> None:
        try:
            if self._guarded and not self._read_token(self._source.readline()):
                return
            for line in self._source:
                if line.strip():
                    self._lines.put(line)
        finally:
            # The end of stdin is the end of the process that started the tier, which must not outlive it.
            self._on_end()

    def _work(self) -> None:
        while True:
            self._answer(self._lines.get())

    def _answer(self, line: str) -> None:
        number: Any = None
        try:
            raw = json.loads(line)
            if not isinstance(raw, dict):
                raise MessageError(f"a command is a JSON object, got {type(raw).__name__}")
            # Before the id is read: a refusal without an id is never taken for the answer to the runner's own command.
            self._check(raw.get("token"))
            number = raw.get("id")
            result = self._execute(parse_command(raw), lambda event: self.tell({"id": number, **event.to_json()}))
        except (TierError, MessageError, json.JSONDecodeError) as error:
            info = ErrorInfo(type(error).__name__, str(error))
            self.tell({"id": number, "ok": False, "error": info.to_json()})
        # A fault in one command must not end the thread, or all later commands would stay without an answer.
        except Exception as error:
            logger.exception("command failed: %.200s", line)
            info = ErrorInfo(type(error).__name__, f"unexpected: {error}; the tier's log has the trace")
            self.tell({"id": number, "ok": False, "error": info.to_json()})
        else:
            self.tell({"id": number, "ok": True, "result": result.to_json()})

    def _read_token(self, line: str) -> bool:
        try:
            self._token = str(json.loads(line)["token"])
        except (ValueError, KeyError, TypeError):
            logger.error('a tier started with --token expects {"token": "..."} as the first line on stdin; it ends')
            return False
        return True

    def _check(self, token: object) -> None:
        # The time of the comparison tells nothing about the token; as bytes, because of texts it takes only ASCII.
        if self._token is not None and not hmac.compare_digest(str(token).encode(), self._token.encode()):
            raise CommandError("a command without the token that this tier was started with; only its starter has it")

    def _execute(self, command: Command, emit: _Emit) -> Message:
        match command:
            case Load():
                return self._tier.load(command)
            case Digest():
                return digest(self._tier, command)
            case Unload():
                self._tier.unload()
                return UnloadResult()
            case Probe():
                return probe_link(command)
            case Measure():
                return self._client.measure(command, lambda sample: emit(SampleEvent(sample)))
            case Evaluate():
                return evaluate(self._tier, command, lambda done, total: emit(ItemsEvent(done, total)))
            case Stats():
                return read_stats()
        raise MessageError(f"no handler for {command.cmd!r}")
