"""Tiers of a tier server that runs already: on a phone, a board, or any machine without a container engine.

`python -m tierserver --serve` over there starts a fresh process for each launch; here it looks like every other tier.
Files go over once, by digest. The connection that carries a launch's lines is its life: when either end loses it, the
tier is killed. Only durations are compared between the machines, never clocks.
"""

import getpass
import http.client
import json
import os
import platform
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from catalog.foreign import printable
from runner.errors import ChangedFilesError, LaunchError
from runner.launchers.base import EventCallback, Mount, TierLimits, readable
from runner.launchers.channel import ControlChannel, Obituary
from runner.workdir import current_sha256
from tierserver.messages import (
    BEAT_S,
    CONTROL_PROTOCOL,
    DEFAULT_PORT,
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
    Stats,
    TierFacts,
)

_START = "python -m tierserver --serve 0.0.0.0:8000 --token-file token"
_CONNECT_S = 10.0
_READY_S = 120.0
_JOIN_S = 5.0
_DEATH_S = 2.0
_SHOWN = 200


class TierServer:
    """A connection to the control port of one tier server; `address` is how other tiers reach its machine."""

    def __init__(self, url: str, *, tier: str, token: str, address: str | None) -> None:
        self._host, self._port = _host_and_port(url, tier)
        self.url = url
        self.tier = tier
        self.address = address or self._host
        self._token = token
        # Drawn for this runner: what another one with the same token does is told apart from its own.
        self._holder = uuid.uuid4().hex
        self._renewal: _Renewal | None = None
        self._depth = 0

    @cached_property
    def _about(self) -> ServerFacts:
        answer = self._request("GET", "/control")
        theirs = answer.get("protocol")
        # Before the rest is read: another protocol may say other things about itself.
        if theirs != CONTROL_PROTOCOL:
            raise self._error(
                f"runs tierserver {_one_line(str(answer.get('version')))} with control protocol "
                f"{_one_line(str(theirs))}, this runner speaks {CONTROL_PROTOCOL}: install the same version of both"
            )
        try:
            return ServerFacts.from_json(answer)
        except MessageError as error:
            raise self._error(f"does not describe itself as a tier server does: {error}") from error

    def facts(self) -> TierFacts:
        """Return the machine and the engine over there; raise LaunchError where no tier server of this version is."""
        return self._about.facts

    def version(self) -> str:
        """Return the version of the tier server's package."""
        return self._about.version

    # -- reservation --------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Take the reservation, renewed until as many `release` as `hold`; raise LaunchError naming its holder."""
        if self._renewal is None:
            self._renew()
            self._renewal = _Renewal(self._renew)
        self._depth += 1

    def release(self) -> None:
        """Give the reservation back."""
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self._renewal is not None:
            self._renewal.stop()
            self._renewal = None
            # A server that is gone has forgotten it already.
            with suppress(LaunchError):
                self._request("POST", "/control/release", Release(self._holder).to_json())

    def _renew(self) -> None:
        self._request("POST", "/control/hold", Hold(self._holder, _own_name()).to_json())

    # -- files --------------------------------------------------------------------------------------------------

    def put(self, mounts: Sequence[Mount]) -> dict[str, str]:
        """Send the files that the server does not have; return digests by the names that commands use."""
        digests: dict[str, str] = {}
        sources: dict[str, tuple[Mount, Path]] = {}
        for mount in mounts:
            for inside in mount.files:
                path = readable(mount, inside)
                digest = mount.sha256.get(inside) or current_sha256(path)
                digests[f"{mount.name}/{inside}"] = digest
                sources[digest] = (mount, path)
        answer = self._request("POST", "/control/missing", FileDigests(tuple(sources)).to_json())
        for digest in FileDigests.from_json(answer).sha256:
            self._put_file(digest, *sources[digest])
        return digests

    def _put_file(self, digest: str, mount: Mount, path: Path) -> None:
        # Checked over there as well; here the mount is known whose files have to be made again.
        if current_sha256(path) != digest:
            raise ChangedFilesError(
                f"{path.name} of {mount.name} {mount.key[:12]}… has changed on this disk", mount.name
            )
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            self._request("PUT", f"/control/files/{digest}", stream, {"Content-Length": str(size)})

    def discard(self, mount: Mount) -> None:
        """Remove a mount's files over there, so that the next launch sends them again."""
        for digest in mount.sha256.values():
            with suppress(LaunchError):
                self._request("DELETE", f"/control/files/{digest}")

    # -- launches -----------------------------------------------------------------------------------------------

    @contextmanager
    def launch(self, limits: TierLimits, mounts: Sequence[Mount]) -> "Iterator[ServerTier]":
        """Yield a fresh tier over there, ready to be called; raise LaunchError."""
        # For each launch: the server may have been restarted, and be of another version now.
        self.__dict__.pop("_about", None)
        self.facts()
        self.hold()
        try:
            digests = self.put(mounts)
            has_parts = any(mount.has_parts for mount in mounts)
            command = Launch(limits.name, limits.threads, self._memory_bytes(limits), has_parts, digests)
            answer = self._open("POST", "/control/launch", command.to_json())
            with closing(ServerTier(self, limits.name, answer)) as tier:
                tier.wait_ready()
                yield tier
        except ChangedFilesError as error:
            for mount in mounts:
                if mount.name == error.mount:
                    self.discard(mount)
            raise
        finally:
            self.release()

    def _memory_bytes(self, limits: TierLimits) -> int:
        there = self._about.facts.memory_bytes
        return min(limits.memory_bytes, there) if there else limits.memory_bytes

    def send(self, line: bytes) -> None:
        """Pass one command on to the tier that runs; raise OSError, as every broken channel does."""
        try:
            self._request("POST", "/control/commands", line)
        except LaunchError as error:
            raise BrokenPipeError(str(error)) from error

    # -- requests -----------------------------------------------------------------------------------------------

    def _request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        with closing(self._open(method, path, body, headers)) as answer:
            try:
                content = json.loads(answer.response.read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise self._error(f"broke off its answer: {_reason(error)}") from error
        return dict(content)

    def _open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> "_OpenAnswer":
        """Send a request and read the head of its answer; raise LaunchError for a refusal."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_S)
        sent = json.dumps(body).encode() if isinstance(body, Mapping) else body
        own = {"Authorization": f"Bearer {self._token}", PROTOCOL_HEADER: str(CONTROL_PROTOCOL)}
        try:
            connection.connect()
            # Kept apart: the connection forgets the socket of an answer that ends with it.
            channel = connection.sock
            channel.settimeout(LEASE_S)
            connection.request(method, path, sent, {**own, HOLDER_HEADER: self._holder, **(headers or {})})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._error(f"does not answer ({_reason(error)}); is `{_START}` running there?") from error
        answer = _OpenAnswer(connection, response, channel)
        if response.status == 200 and PROTOCOL_HEADER in response.headers:
            return answer
        with closing(answer):
            raise self._error(_refusal(response))

    def _error(self, what: str) -> LaunchError:
        return LaunchError(f"tier {self.tier!r}: {self.url} {what}", tier=self.tier)


def connect(url: str, *, tier: str, token: str = "", address: str | None = None) -> TierServer:
    """Return the tier server at a URL, once it has answered with this runner's protocol; raise LaunchError."""
    server = TierServer(url, tier=tier, token=token, address=address)
    server.facts()
    return server


class ServerTier:
    """A tier that runs on a tier server; `url` is where other tiers reach it."""

    def __init__(self, server: TierServer, name: str, answer: "_OpenAnswer") -> None:
        self.name = name
        self.url = ""
        self._server = server
        self._answer = answer
        self._end: Obituary | None = None
        self._refusal: Obituary | None = None
        self._channel = ControlChannel(name, lines=self._lines(), send=self._send, obituary=self._obituary)

    def wait_ready(self) -> None:
        """Wait for the tier's first line; raise LaunchError."""
        port = int(self._channel.wait_ready(deadline_s=_READY_S)["port"])
        host = f"[{self._server.address}]" if ":" in self._server.address else self._server.address
        self.url = f"http://{host}:{port}"

    def call(
        self, command: Mapping[str, Any], *, on_event: EventCallback | None = None, deadline_s: float
    ) -> dict[str, Any]:
        result = self._channel.call(command, on_event=on_event, deadline_s=deadline_s)
        if command.get("cmd") == Stats.cmd:
            # The control group over there is that of its user's session, which counts other programs too.
            result |= {"cgroup": None, "memory": None}
        return result

    def path(self, mount: str) -> str:
        return mount

    def close(self) -> None:
        """End the tier: the server kills it when this connection ends."""
        with suppress(OSError):
            # Closing alone would not wake the thread that waits for the next line.
            self._answer.socket.shutdown(socket.SHUT_RDWR)
        self._channel.join(_JOIN_S)
        self._answer.close()

    def _send(self, line: bytes) -> None:
        try:
            self._server.send(line)
        except BrokenPipeError as error:
            self._refusal = Obituary(str(error), "")
            raise

    def _lines(self) -> Iterator[bytes]:
        """Yield the tier's lines; note how it ended."""
        try:
            while line := self._answer.response.readline():
                if not line.strip():
                    continue  # a sign of life
                if (ended := _ended(line)) is not None:
                    self._end = Obituary.of_exit(ended.code, ended.log_tail)
                    return
                yield line
        # The lease of the server is as long: it has killed the tier by now.
        except TimeoutError:
            self._end = Obituary(
                f"{self._server.url} has been silent for {LEASE_S:.0f} s: its host or network is gone", ""
            )
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass  # the connection broke, or was closed here

    def _obituary(self) -> Obituary:
        # Its last line says why; a command that did not get through is noticed before that line is read.
        self._channel.join(_DEATH_S)
        return (
            self._end
            or self._refusal
            or Obituary(f"the tier server at {self._server.url} ended it, or was ended itself", "")
        )


@dataclass(frozen=True)
class _OpenAnswer:
    """An answer that is still being read, with its connection."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse
    socket: socket.socket

    def close(self) -> None:
        self.response.close()
        self.connection.close()


class _Renewal:
    """A thread that renews a reservation until it is stopped."""

    def __init__(self, renew: Any) -> None:
        self._stopped = threading.Event()
        self._renew = renew
        # A daemon: a runner that ends must not wait for it, and its lease ends with it.
        self._thread = threading.Thread(target=self._run, name="tier-server-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            # A launch that loses the server says so itself.
            with suppress(LaunchError):
                self._renew()


def _host_and_port(url: str, tier: str) -> tuple[str, int]:
    wrong = LaunchError(
        f"tier {tier!r}: {url!r} is not the address of a tier server; expected: http://HOST:PORT", tier=tier
    )
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise wrong from None
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise wrong
    return parts.hostname, port


def _refusal(response: http.client.HTTPResponse) -> str:
    """Put a refusal in words: the server's own, and for a wrong token where the right one is."""
    if PROTOCOL_HEADER not in response.headers:
        return f"is not a tier server: it answered {response.status}; is it the control port?"
    if response.status == 401:
        return "refuses the token; put that of its --token-file into the place's `token_file` or $TIERWISE_TIER_TOKEN"
    try:
        reason = _one_line(str(json.loads(response.read(10_000))["error"]))
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        reason = "no reason"
    return f"refuses ({response.status}): {reason}"


def _ended(line: bytes) -> LaunchEnded | None:
    # Looked for in the raw line: thousands of samples are not parsed twice for it.
    if b'"ended"' not in line:
        return None
    try:
        return LaunchEnded.from_json(json.loads(line))
    except (ValueError, MessageError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:_SHOWN]


def _own_name() -> str:
    """Name this runner to others who want the same tier server."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}, process {os.getpid()}"


def _one_line(text: str) -> str:
    return " ".join(printable(text[:_SHOWN]).split())
