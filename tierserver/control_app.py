"""The control port of a tier server: who it is, who uses it, its files, and one launch at a time. Raw ASGI.

Every request carries the token. A launch is one answer that lasts as long as its tier: the lines that the tier writes
come as they are written, and the end of the connection is the end of the tier. Commands come in requests of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tierserver import protocol
from tierserver.asgi import (
    Answer,
    BodyReader,
    ByteBudget,
    ClientGone,
    IncomingBody,
    Receive,
    Scope,
    Send,
    header,
    send_answer,
)
from tierserver.errors import (
    Busy,
    CommandError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    RequestError,
    TierError,
    TooSlow,
    Unauthorized,
)
from tierserver.file_cache import FileCache
from tierserver.limits import Limits
from tierserver.messages import (
    BEAT_S,
    CONTROL_PROTOCOL,
    HOLDER_HEADER,
    LEASE_S,
    PROTOCOL_HEADER,
    FileDigests,
    Hold,
    Launch,
    LaunchEnded,
    MessageError,
    Release,
    ServerFacts,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_THREADS = 1024
_READ_BYTES = 65536
_LOG_TAIL_BYTES = 4000
_EXIT_S = 5.0
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
            async with asyncio.timeout(_EXIT_S):
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


_LONGEST_TEXT = 200


@dataclass
class _Holder:
    identifier: str
    who: str
    since_s: float
    renewed_s: float


class Reservation:
    """The reservation of one tier server; times are read from one monotonic clock, never compared between machines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holder: _Holder | None = None

    def take(self, holder: str, who: str) -> None:
        """Take or renew the reservation; raise Busy while somebody else has it."""
        if not 0 < len(holder) <= _LONGEST_TEXT or len(who) > _LONGEST_TEXT:
            raise RequestError(f"holder and who have 1 to {_LONGEST_TEXT} characters")
        now = self._clock()
        if self._is_live() and self._holder is not None and self._holder.identifier != holder:
            raise self._busy(self._holder)
        since_s = self._holder.since_s if self._holder is not None and self._holder.identifier == holder else now
        self._holder = _Holder(holder, who, since_s, now)

    def check(self, holder: str) -> None:
        """Raise Busy unless this is the present holder."""
        if not self._is_live() or self._holder is None:
            raise Busy(
                "nobody holds this tier server; its reservation was given back, or lapsed without a sign of life"
            )
        if self._holder.identifier != holder:
            raise self._busy(self._holder)

    def release(self, holder: str) -> bool:
        """Give the reservation back; return whether this holder had it."""
        if self._holder is None or self._holder.identifier != holder:
            return False
        self._holder = None
        return True

    def _is_live(self) -> bool:
        return self._holder is not None and self._clock() - self._holder.renewed_s < LEASE_S

    def _busy(self, holder: _Holder) -> Busy:
        # `who` comes from the network and goes into a terminal.
        who = "".join(letter if letter.isprintable() else "?" for letter in holder.who)
        since = f"{self._clock() - holder.since_s:.0f} s"
        return Busy(f"this tier server is in use by {who}, since {since}; try again when it is done")


logger = logging.getLogger(__name__)
_HEADERS = ((PROTOCOL_HEADER.encode(), str(CONTROL_PROTOCOL).encode()),)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# A tier that is killed is gone within this time; the next launch of the same holder waits for it.
_END_S = 10.0


@dataclass(frozen=True)
class ControlOptions:
    """What a control port was started with; without a token it serves programs of its own machine only."""

    facts: ServerFacts
    token: str | None
    data_host: str


class ControlApp:
    """The ASGI application of one control port."""

    def __init__(self, options: ControlOptions, cache: FileCache, reservation: Reservation, limits: Limits) -> None:
        self._options = options
        self._cache = cache
        self._reservation = reservation
        self._limits = limits
        self._bodies = BodyReader(limits, ByteBudget(limits.max_held_bytes))
        # One launch at a time: the next one waits until the process of the former is gone.
        self._launching = asyncio.Lock()
        self._tier: LaunchedTier | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            # Before the path and the body are looked at: a stranger learns nothing and can keep nothing waiting.
            self._admit(scope)
            answer = await self._route(scope, receive, send)
        except ClientGone:
            return
        except (TierError, MessageError) as error:
            answer = _refused(error)
        except Exception:
            logger.exception("request failed: %s %s", scope["method"], scope["path"][:200])
            answer = Answer.of_json({"error": "internal error; the tier server's log has the reason"}, status=500)
        if answer is not None:
            await send_answer(send, answer, _HEADERS)

    def _admit(self, scope: Scope) -> None:
        """Refuse a request without the token, and what a web page could send; raise Unauthorized or Forbidden."""
        if self._options.token is None:
            # Without a token only the name of the host keeps a page out that was given this machine's address.
            name = (header(scope, b"host") or "").rsplit(":", 1)[0]
            if name not in _LOCAL_NAMES:
                raise Forbidden(f"host {name[:80]!r} is not this machine; a tier server for others has a --token-file")
        else:
            presented = (header(scope, b"authorization") or "").removeprefix("Bearer ")
            # The time of the comparison tells nothing about the token.
            if not hmac.compare_digest(presented.encode(), self._options.token.encode()):
                raise Unauthorized("wrong or missing token; it is the content of the file named by --token-file")
        if header(scope, PROTOCOL_HEADER.encode()) is None:
            raise Forbidden(f"a control request has the header {PROTOCOL_HEADER}")

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> Answer | None:
        method, path = scope["method"], scope["path"].strip("/").split("/")
        match method, path:
            case "GET", ["control"]:
                return Answer.of_json(self._options.facts.to_json())
            case "POST", ["control", "hold" | "release" | "missing" as what]:
                return Answer.of_json(self._answered(what, await self._json(scope, receive)))
            case "PUT" | "DELETE", ["control", "files", digest]:
                self._check_holder(scope)
                if method == "DELETE":
                    self._cache.discard(digest)
                else:
                    await self._receive_file(digest, scope, receive)
                return Answer.of_json({})
            case "POST", ["control", "launch"]:
                self._check_holder(scope)
                launch = Launch.from_json(await self._json(scope, receive))
                await self._launch(launch, header(scope, HOLDER_HEADER.encode()) or "", receive, send)
                return None
            case "POST", ["control", "commands"]:
                self._check_holder(scope)
                return await self._pass_on(scope, receive)
            case _, ["control"] | ["control", "hold" | "release" | "missing" | "launch" | "commands"]:
                raise MethodNotAllowed(f"method {method[:20]} is not allowed here")
        raise NotFound(f"no such path {scope['path'][:80]!r}; this is a tier server's control port")

    def _answered(self, what: str, question: dict[str, object]) -> dict[str, Any]:
        """Answer a question that needs no more than its JSON."""
        match what:
            case "hold":
                hold = Hold.from_json(question)
                self._reservation.take(hold.holder, hold.who)
            case "release":
                self._reservation.release(Release.from_json(question).holder)
            case _:
                return FileDigests(self._cache.missing(FileDigests.from_json(question).sha256)).to_json()
        return {}

    def _check_holder(self, scope: Scope) -> None:
        self._reservation.check(header(scope, HOLDER_HEADER.encode()) or "")

    async def _json(self, scope: Scope, receive: Receive) -> dict[str, object]:
        async with self._bodies.reading(scope, receive) as body:
            return protocol.read_object(body, "the request")

    async def _receive_file(self, digest: str, scope: Scope, receive: Receive) -> None:
        length = header(scope, b"content-length")
        if length is None:
            raise RequestError("a file is sent with its Content-Length")
        with self._cache.receiving(digest, int(length)) as upload:
            incoming, more = IncomingBody(receive, timeout_s=self._limits.read_timeout_s), True
            while more:
                chunk = await incoming.next()
                upload.write(chunk.data)
                more = chunk.more
            upload.finish()

    # -- a launch -----------------------------------------------------------------------------------------------

    async def _pass_on(self, scope: Scope, receive: Receive) -> Answer:
        tier = self._tier
        if tier is None:
            raise Busy("no tier is running here; its launch has ended")
        async with self._bodies.reading(scope, receive) as body:
            await tier.send(body)
        return Answer.of_json({})

    async def _launch(self, launch: Launch, holder: str, receive: Receive, send: Send) -> None:
        check(launch)
        try:
            async with asyncio.timeout(_END_S):
                await self._launching.acquire()
        except TimeoutError:
            raise Busy("the tier of another launch of this runner is still running here") from None
        try:
            with self._cache.linked(launch.files) as paths:
                data_port = self._options.facts.data_port
                running = LaunchedTier.running(launch, paths, host=self._options.data_host, port=data_port)
                async with running as tier:
                    self._tier = tier
                    await self._stream(tier, holder, receive, send)
        finally:
            self._tier = None
            self._launching.release()

    async def _stream(self, tier: LaunchedTier, holder: str, receive: Receive, send: Send) -> None:
        """Send what the tier writes until it ends, its runner is gone, or the reservation is somebody else's."""
        head = [(b"content-type", b"application/x-ndjson"), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        tasks = {
            asyncio.create_task(work)
            for work in (_write_output(tier, send), _disconnected(receive), self._lapsed(holder))
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):  # the connection may be the very thing that ended
            await send({"type": "http.response.body", "body": b""})

    async def _lapsed(self, holder: str) -> None:
        """Wait until this holder no longer has the reservation: it let go, or was silent for too long."""
        with contextlib.suppress(Busy):
            while True:
                self._reservation.check(holder)
                await asyncio.sleep(BEAT_S / 5)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write_output(tier: LaunchedTier, send: Send) -> None:
    """Send the tier's lines, an empty one whenever there was none for a while, and last how the tier ended."""
    async for data in _with_beats(tier.output()):
        await send({"type": "http.response.body", "body": data, "more_body": True})
    line = json.dumps((await tier.ended()).to_json()).encode() + b"\n"
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def _with_beats(output: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the output, and an empty line in each pause, so that the runner can tell a silent tier from a lost one."""
    at_line_start = True
    pending = asyncio.ensure_future(anext(output, b""))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=BEAT_S)
            if done:
                if not (data := pending.result()):
                    return
                at_line_start = data.endswith(b"\n")
                yield data
                pending = asyncio.ensure_future(anext(output, b""))
            elif at_line_start:
                yield b"\n"
    finally:
        pending.cancel()


def _refused(error: Exception) -> Answer:
    """Return the answer for an error; hang up on strangers and on clients that are too slow."""
    status = error.status if isinstance(error, TierError) else 400
    headers = ((b"connection", b"close"),) if isinstance(error, TooSlow | Unauthorized | Forbidden) else ()
    return Answer(status, (json.dumps({"error": str(error)}).encode(),), headers)
