"""Processes of their own for foreign models: one that crashes the engine does not end the runner.

Starting an interpreter that imports the engine takes longer than most models take to run. So one server does that
once and forks a process per call (`model_process_server`). It ends with the runner, and by itself when no call comes
for a while, so that it takes no memory beside a measurement.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_SERVER = Path(__file__).with_name("model_process_server.py")
# Threads of numpy's linear algebra would start at its import, and do not live on in a forked process.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_STDERR_BYTES = 20_000
_lock = threading.Lock()


class NoAnswerInTimeError(Exception):
    """A call took longer than its deadline; its process was killed."""


@dataclass(frozen=True)
class ModelProcess:
    """A process that has ended: its answer, None where it gave none, its exit code, and what it wrote to stderr."""

    answer: Any
    exit_code: int
    stderr: str

    @property
    def ending(self) -> str:
        """Return how the process ended, as a message says it."""
        return ending(self.exit_code)


def ending(exit_code: int) -> str:
    """Return how a process ended, as a message says it.

    Examples
    --------
    >>> ending(3), ending(-11)
    ('exit code 3', 'signal 11, SIGSEGV')
    """
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with suppress(ValueError):
        return f"signal {-exit_code}, {signal.Signals(-exit_code).name}"
    return f"signal {-exit_code}"


def call(function: str, arguments: Sequence[Any], *, deadline_s: float) -> ModelProcess:
    """Call a function in a process of its own.

    Parameters
    ----------
    function
        `package.module:function`; what it returns can be written as JSON.
    arguments
        What can be written as JSON.
    deadline_s
        How long it may take.

    Returns
    -------
    ModelProcess

    Raises
    ------
    NoAnswerInTimeError
        When it takes longer.

    Examples
    --------
    >>> call("math:hypot", (3, 4), deadline_s=30).answer
    5.0
    >>> call("os:abort", (), deadline_s=30).ending
    'signal 6, SIGABRT'
    """
    request = json.dumps([function, list(arguments)]).encode() + b"\n"
    with _lock, tempfile.TemporaryFile() as stderr:
        reply = _reply(request, stderr, deadline_s)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        said = stderr.read().decode(errors="replace")
    return ModelProcess(reply["answer"], reply["exit_code"], said)


def stop() -> None:
    """End the server; the next call starts another."""
    global _server
    if _server is not None and _server.owner == os.getpid():
        _server.close()
    _server = None


class _Server:
    """The started server and the connection to it, whose end it sees."""

    def __init__(self, stderr: IO[bytes]) -> None:
        self.owner = os.getpid()
        self.connection, other = socket.socketpair()
        with other:
            command = [sys.executable, "-P", str(_SERVER), str(other.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[other.fileno()],
                env=os.environ | _ONE_THREAD,
            )
        # It ends by itself after a while: until someone waits for it, the kernel keeps its entry.
        threading.Thread(target=self._process.wait, name="model-process-server", daemon=True).start()

    def close(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def ask(self, request: bytes, stderr: IO[bytes], deadline_s: float) -> dict[str, Any] | None:
        """Return the reply; None where the server ended before."""
        self.connection.settimeout(deadline_s)
        try:
            sent = socket.send_fds(self.connection, [request], [stderr.fileno()])
            self.connection.sendall(request[sent:])
            with self.connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise NoAnswerInTimeError from error
        except ConnectionError:
            return None
        reply: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return reply


_server: _Server | None = None
atexit.register(stop)


def _reply(request: bytes, stderr: IO[bytes], deadline_s: float) -> dict[str, Any]:
    global _server
    # The server may have ended since the last call, because none came or because the kernel lacked memory.
    for _ in range(2):
        if _server is None or _server.owner != os.getpid():
            _server = _Server(stderr)
        try:
            reply = _server.ask(request, stderr, deadline_s)
        except BaseException:
            # The call still runs: its process ends with the server.
            stop()
            raise
        if reply is not None:
            return reply
        stop()
    return {"answer": None, "exit_code": -signal.SIGKILL}
