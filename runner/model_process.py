"""Processes of their own for foreign models: one that crashes the engine does not end the runner.

Starting an interpreter that imports the engine takes longer than most models take to run. So one server does that
once and forks a process per call. It runs nothing itself, so that a forked process starts at once and shares no state.
It ends with the runner, and by itself when no call comes for a while, so that it takes no memory beside a measurement.
This module is the program of the server as well, and imports nothing of the runner, so that it starts quickly.

A process that runs a foreign model ends with the runner (`end_with`) and cannot take all memory (`limit_memory`).
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

# Threads of numpy's linear algebra would start at its import, and do not live on in a forked process.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_STDERR_BYTES = 20_000
# So long after the last call the server ends.
_IDLE_S = 20.0
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
            command = [sys.executable, "-P", __file__, str(other.fileno())]
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


def limit_memory() -> None:
    """Allow this process no more memory than the machine has.

    A larger allocation fails with MemoryError; without the limit the kernel might kill any other process.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A shell may have set a smaller limit, which cannot be raised again.
    set_before = [bound for bound in resource.getrlimit(resource.RLIMIT_AS) if bound != resource.RLIM_INFINITY]
    bound = min([memory, *set_before])
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def end_with(parent: int) -> None:
    """Let the kernel (Linux) kill this process when its parent ends; exit at once if the parent has ended already."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG (prctl(2)).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # A parent that ended before that call sends no signal any more.
    if os.getppid() != parent:
        sys.exit(1)


def serve(connection: socket.socket) -> None:
    """Answer calls until the runner ends, or gives none for a while."""
    # Ctrl-C in a terminal reaches all processes: the runner says what to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while select.select([connection], [], [], _IDLE_S)[0]:
        request, stderr = _receive(connection)
        if not request:
            return
        for stream in (1, 2):
            os.dup2(stderr, stream)
        os.close(stderr)
        reply = _answer(connection, request)
        connection.sendall(json.dumps(reply).encode() + b"\n")


def _receive(connection: socket.socket) -> tuple[bytes, int]:
    """Return a request and the file for what is written to stderr; no request once the runner has ended."""
    request, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    while request and not request.endswith(b"\n"):
        request += (more := connection.recv(1 << 16))
        if not more:
            return b"", -1
    return request, descriptors[0] if descriptors else -1


def _answer(connection: socket.socket, request: bytes) -> dict[str, object]:
    function, arguments = json.loads(request)
    module, _, name = function.partition(":")
    # Imported here, so that later calls find it. An import that fails does so again in the process, which says why.
    with suppress(Exception):
        importlib.import_module(module)
    gc.freeze()
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        connection.close()
        _run(parent, module, name, arguments, writing)
    os.close(writing)
    try:
        content = _read(connection, reading, child)
    finally:
        os.close(reading)
    _, status = os.waitpid(child, 0)
    answer = json.loads(content) if content.endswith(b"\n") else None
    return {"answer": answer, "exit_code": os.waitstatus_to_exitcode(status)}


def _read(connection: socket.socket, reading: int, child: int) -> bytes:
    """Return what the process answers; kill it when the runner ends or waits no longer."""
    content = b""
    while True:
        ready, _, _ = select.select([connection.fileno(), reading], [], [])
        if connection.fileno() in ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            sys.exit()
        if not (piece := os.read(reading, 1 << 16)):
            return content
        content += piece


def _run(parent: int, module: str, name: str, arguments: list[object], writing: int) -> None:
    """Call the function in the forked process, write what it returns, and end."""
    code = 1
    try:
        end_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        answer = json.dumps(getattr(importlib.import_module(module), name)(*arguments)).encode() + b"\n"
        while answer:
            answer = answer[os.write(writing, answer) :]
        code = 0
    except BaseException:  # noqa: BLE001 - whatever ends a forked process, it must not go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as runner_side:
        serve(runner_side)
