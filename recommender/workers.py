"""Several processes behind one port: this one opens the socket, starts them, and starts again what ends by itself.

All accept from the same socket, so that connections which wait there are lost by no worker's end. Workers share nothing
else: a pipe whose other end is here tells them when this process is gone.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from catalog.console import Console, labelled

# A worker that fails at once, as while the database restarts, is not started again faster than this.
_RESTART_S = 1.0
_STOPPING = (signal.SIGTERM, signal.SIGINT)
err = Console(stderr=True, soft_wrap=True, highlight=False)
# Serves until it is told to stop, and calls what it is given once it can answer; returns the exit code.
Serve = Callable[[Callable[[], None]], int]


class Workers:
    """The running workers; `serve` runs in each of them."""

    def __init__(self, count: int, serve: Serve, listener: socket.socket) -> None:
        self._count = count
        self._serve = serve
        self._listener = listener
        self._pids: set[int] = set()
        self._stopping = False
        self._life, self._lifeline = os.pipe()

    def run(self, announce: Callable[[], None]) -> int:
        """Start all workers, call `announce` once the first can answer, and return when all have ended.

        Returns
        -------
        int
            0 after a signal to stop; the first worker's exit code where it could not start.
        """
        for kind in _STOPPING:
            signal.signal(kind, self._stop)
        # The first one alone: what keeps it from starting would be said by all.
        first, ready = self._start()
        if not os.read(ready, 1):
            _, status = os.waitpid(first, 0)
            return 0 if self._stopping else os.waitstatus_to_exitcode(status)
        os.close(ready)
        announce()
        for _ in range(self._count - 1):
            os.close(self._start()[1])
        self._watch()
        return 0

    def _watch(self) -> None:
        """Start again what ends by itself, until all are to stop and have ended."""
        while self._pids:
            pid, status = os.waitpid(-1, 0)
            self._pids.discard(pid)
            if self._stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            err.print(labelled("note:", "yellow", f"worker {pid} ended ({how}); another one is started"))
            time.sleep(_RESTART_S)
            if not self._stopping:
                os.close(self._start()[1])

    def _stop(self, kind: int, frame: FrameType | None) -> None:
        self._stopping = True
        # What waits at the socket when the last worker closes it was taken by that one; here, no process would take it.
        self._listener.close()
        for pid in list(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, kind)

    def _start(self) -> tuple[int, int]:
        """Start a worker; return its process and the pipe in which it says that it can answer."""
        ready, say = os.pipe()
        # A signal in between would be handled by what the new process has of this one, or before it is among `_pids`.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            pid = os.fork()
            if pid == 0:
                self._work(ready, say)
            self._pids.add(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        os.close(say)
        return pid, ready

    def _work(self, ready: int, say: int) -> None:
        """Run in the new process, which ends here."""
        code = 1
        try:
            os.close(ready)
            os.close(self._lifeline)
            for kind in _STOPPING:
                signal.signal(kind, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
            threading.Thread(target=self._await_end, daemon=True).start()
            code = self._serve(lambda: _say(say))
        finally:
            sys.stderr.flush()
            # Without what the interpreter does at its end: that is of the process that it was copied from.
            os._exit(code)

    def _await_end(self) -> None:
        os.read(self._life, 1)
        os.kill(os.getpid(), signal.SIGTERM)


def _say(pipe: int) -> None:
    # Only the first worker is waited for.
    with suppress(BrokenPipeError):
        os.write(pipe, b"1")
    os.close(pipe)
