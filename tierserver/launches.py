"""One launch of a tier server: a fresh tier in a process of its own, whose control lines are passed on unread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

from tierserver.errors import CommandError, RequestError
from tierserver.server_messages import Launch, LaunchEnded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_THREADS = 1024
_READ_BYTES = 65536
_LOG_TAIL_BYTES = 4000
_END_S = 5.0
_SOURCES = Path(__file__).parents[1]


class LaunchedTier:
    """The process of one launch."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, launch: Launch, paths: Mapping[str, Path], *, host: str, port: int
    ) -> AsyncIterator[LaunchedTier]:
        """Start the tier for the block, and kill it at its end whatever it does."""
        check(launch)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as manifest, tempfile.TemporaryFile() as log:
            json.dump({name: str(path) for name, path in paths.items()}, manifest)
            manifest.flush()
            process = await asyncio.create_subprocess_exec(
                *_command(launch, Path(manifest.name), host=host, port=port),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_environment(launch.threads)},
            )
            try:
                yield cls(process, log)
            finally:
                # A tier keeps nothing that an orderly end would save.
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def output(self) -> AsyncIterator[bytes]:
        """Yield what the tier writes, as it comes."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(_READ_BYTES):
            yield data

    async def send(self, lines: memoryview) -> None:
        """Pass commands on to the tier."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(bytes(lines))
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise CommandError("the tier has ended; its last line says why") from error

    async def ended(self) -> LaunchEnded:
        """Return how the tier ended, once its output has."""
        try:
            async with asyncio.timeout(_END_S):
                code = await self._process.wait()
        except TimeoutError:
            code = 0  # it closed its output and lives on: the end of the launch kills it
        # asyncio reports a signal as its negative number, shells as 128 plus the number.
        return LaunchEnded(128 - code if code < 0 else code, self._log_tail())

    def _log_tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        # The tier writes at the end of the same open file: reading by position does not move it.
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        return tail.decode(errors="replace")


def check(launch: Launch) -> None:
    """Refuse what could not be started as it says; raise RequestError."""
    if not _NAME.fullmatch(launch.name):
        raise RequestError(f"tier name {launch.name[:80]!r}: letters, digits, '_', '.' and '-', at most 64")
    if not 1 <= launch.threads <= _MOST_THREADS or launch.memory_bytes < 1:
        raise RequestError(f"threads: 1 to {_MOST_THREADS}, memory_bytes: above 0")


def _command(launch: Launch, manifest: Path, *, host: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "tierserver", f"--name={launch.name}", "--host", host, "--port", str(port)]
    command += ["--token", "--files", str(manifest), "--memory-bytes", str(launch.memory_bytes)]
    return command if launch.engine else [*command, "--no-engine"]


def _environment(threads: int) -> dict[str, str]:
    libraries = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    # Wherever the server was started from: the tier has the same sources.
    path = os.pathsep.join(filter(None, (str(_SOURCES), os.environ.get("PYTHONPATH"))))
    return {**libraries, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
