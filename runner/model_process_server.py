"""The other side of `model_process`: a server that forks a process for each call, and ends with the runner.

It has imported the engine and runs nothing itself, so that a forked process starts at once and shares no state.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback

from runner.confinement import end_with

# So long after the last call the server ends.
_IDLE_S = 20.0


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
    with contextlib.suppress(Exception):
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
