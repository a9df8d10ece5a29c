"""The container engine: only this module imports `docker`, and it translates the library's exceptions.

The low-level API is used throughout: the high-level one inspects every object it returns, which costs a launch
a third of its time.

How full a container's memory is comes from the engine's counters of cgroup v1 or v2. A tier whose memory is nearly full
is not always killed: the kernel first drops the pages of its program and its model, and reads them from disk again when
they are needed. Such a tier lives, but takes minutes and not milliseconds, and its silence does not explain why.
"""

import io
import ipaddress
import socket
import ssl
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker.constants import DEFAULT_UNIX_SOCKET, IS_WINDOWS_PLATFORM, MINIMUM_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound, TLSParameterError
from docker.tls import TLSConfig
from docker.types import LogConfig
from docker.utils import kwargs_from_env

from catalog.declaration.schema import LOCAL
from catalog.units import size
from runner.errors import EngineUnavailableError, LaunchError, NameTakenError
from runner.host import engine_identity
from runner.launchers.ssh_tunnel import SshTunnel

# Anonymous memory cannot be freed: once it fills the limit, no room is left for the program's own pages.
_FULL = 0.9
# A tier that is starting reads some hundred pages from disk.
_MANY_FAULTS = 1000


@dataclass(frozen=True)
class MemoryUse:
    """A container's memory: bytes in use now, those outside the page cache, and page faults since its start.

    `limit_hits` is None if the engine does not report it (cgroup v2).
    """

    limit_bytes: int
    held_bytes: int
    anonymous_bytes: int
    major_faults: int
    limit_hits: int | None = None

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any]) -> "MemoryUse | None":
        """Read the engine's `memory_stats`; None if it counts nothing."""
        detail = stats.get("stats") or {}
        if not stats.get("limit") or "usage" not in stats:
            return None
        first = "total_rss" in detail or "rss" in detail  # cgroup v1
        anonymous = detail.get("total_rss", detail.get("rss", 0)) if first else detail.get("anon", 0)
        faults = detail.get("total_pgmajfault", detail.get("pgmajfault", 0))
        hits = stats.get("failcnt", 0) if first else None
        return cls(int(stats["limit"]), int(stats["usage"]), int(anonymous), int(faults), hits)

    @property
    def is_full(self) -> bool:
        """Return whether the use explains that a tier is slow: nothing left to free, or pages that come and go."""
        if self.anonymous_bytes >= _FULL * self.limit_bytes:
            return True
        return self.held_bytes >= _FULL * self.limit_bytes and self.major_faults >= _MANY_FAULTS

    def __str__(self) -> str:
        hits = "" if self.limit_hits is None else f", {self.limit_hits} hits of the limit"
        in_use = f"{size(self.held_bytes)} of {size(self.limit_bytes)} in use"
        return f"{in_use}{hits}, {self.major_faults} pages read again from disk"


# Without a terminal the engine multiplexes: one byte for the stream, three of padding, four for the length.
_FRAME_HEADER = struct.Struct(">BxxxL")
_STDOUT = 1
_PING_S = 3
_REQUEST_S = 120
_LOG_TAIL_LINES = 40
_SHORT_OUTPUT = 2000
# 128 + 9, as shells and engines report a process that SIGKILL ended.
_SIGKILLED = 137
# The engine's status for a name that another container has.
_CONFLICT = 409


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for the library's: an engine that does not answer, and one that refuses."""
    try:
        yield
    except APIError as error:
        raise LaunchError(f"{doing}: the Docker engine refused: {error.explanation or error}") from error
    except (DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise EngineUnavailableError(f"{doing}: the Docker engine does not answer ({_innermost(error)})") from error


@contextmanager
def _names_are_unique(name: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        if error.status_code != _CONFLICT:
            raise
        raise NameTakenError(f"there is a container {name} already") from error


def _innermost(error: BaseException) -> str:
    """Return the cause that a person can act on: the library wraps it three times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _knock(address: str) -> None:
    """Fail early on a dead local socket: the library leaks the file it could not connect."""
    path = address.removeprefix("http+").removeprefix("unix:/")
    if path != address and not IS_WINDOWS_PLATFORM:
        with socket.socket(socket.AF_UNIX) as local:
            local.settimeout(_PING_S)
            local.connect("/" + path.lstrip("/"))


@dataclass(frozen=True)
class _EngineAccess:
    """How an engine is reached: its URL, how to make the library's client, and the tunnel to close after it."""

    url: str
    client: Callable[..., docker.DockerClient]
    tunnel: SshTunnel | None = None


def _access(place: str) -> _EngineAccess:
    """Return how to reach the engine at a place: `local`, a URL, or the name of a Docker context."""
    if place == LOCAL:
        url = str(kwargs_from_env().get("base_url") or DEFAULT_UNIX_SOCKET)
        # The library's own way over SSH needs another package, and starts a connection for each request.
        return _access(url) if url.startswith("ssh://") else _EngineAccess(url, docker.from_env)
    if "://" not in place:
        return _context_access(place)
    scheme = urlsplit(place).scheme
    if scheme == "ssh":
        tunnel = SshTunnel(place)
        return _EngineAccess(place, partial(docker.DockerClient, base_url=f"unix://{tunnel.socket}"), tunnel)
    if scheme == "tcp":
        return _EngineAccess(place, partial(_network_client, place, _tls(place)))
    return _EngineAccess(place, partial(docker.DockerClient, base_url=place))


def _network_client(url: str, tls: TLSConfig | bool, *, timeout: int) -> docker.DockerClient:
    """Return a client of an engine on the network that goes by its own certificates and by no proxy."""

    def client(version: str) -> docker.DockerClient:
        made = docker.DockerClient(base_url=url, tls=tls, version=version, timeout=timeout)
        # Otherwise the environment's bundle of authorities (REQUESTS_CA_BUNDLE) takes the place of the engine's own.
        made.api.trust_env = False
        return made

    # The library asks for the version in its constructor, when the environment is still trusted.
    first = client(MINIMUM_DOCKER_API_VERSION)
    try:
        version = str(first.api.version(api_version=False)["ApiVersion"])
    finally:
        first.close()
    return client(version)


def _context_access(name: str) -> _EngineAccess:
    arguments = ContextAPI.kwargs_from_context(name)
    if not arguments:
        declared = ", ".join(context.name for context in ContextAPI.contexts())
        raise EngineUnavailableError(
            f"there is no Docker context {name!r}; there are: {declared}. Make it with: docker context create {name}"
        )
    url, tls = str(arguments["base_url"]), arguments.get("tls", False)
    if url.startswith("ssh://"):
        return _access(url)
    if url.startswith(("tcp://", "https://")):
        return _EngineAccess(url, partial(_network_client, url, tls or _tls(url)))
    return _EngineAccess(url, partial(docker.DockerClient, base_url=url))


def _tls(place: str) -> TLSConfig | bool:
    """Return the keys for an engine on the network, which is refused without: it would obey anybody."""
    try:
        named = kwargs_from_env().get("tls")
        # The library does not check the server's certificate unless it is told to.
        checked = named and TLSConfig(client_cert=named.cert, ca_cert=named.ca_cert, verify=True)
    except TLSParameterError as error:
        raise EngineUnavailableError(f"{place}: the folder of DOCKER_CERT_PATH is not usable; {_TLS_ADVICE}") from error
    if not checked and not _is_loopback(urlsplit(place).hostname or ""):
        raise EngineUnavailableError(f"{place} needs TLS: name a folder with DOCKER_CERT_PATH; {_TLS_ADVICE}")
    return checked or False


_TLS_ADVICE = "allowed: one with ca.pem, cert.pem and key.pem, or a Docker context that has them, or ssh://USER@HOST"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class ContainerSpec:
    """What a container may do: nothing, unless it is listed here."""

    image: str
    command: Sequence[str]
    name: str
    labels: Mapping[str, str]
    network_mode: str = "none"
    aliases: Sequence[str] = ()
    user: str = "65534:65534"
    capabilities: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, str] = field(default_factory=dict)  # volume name -> directory inside
    writable_binds: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    memory_bytes: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    interactive: bool = False
    # Port inside -> port of the engine's host, where None takes a free one.
    ports: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ContainerState:
    """How a container is, or how it ended."""

    running: bool
    exit_code: int
    oom_killed: bool

    @property
    def is_final(self) -> bool:
        """Return whether the state is final: the engine reports a lack of memory only a moment after SIGKILL."""
        return not self.running and (self.exit_code != _SIGKILLED or self.oom_killed)


class Attachment:
    """Stdin and stdout of a container that is about to start."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        # The client's timeout for requests would end a long command's silence.
        self._socket.settimeout(None)

    def send(self, line: bytes) -> None:
        self._socket.sendall(line)

    @property
    def ended(self) -> bool:
        """Whether a container that writes nothing, or the connection to it, has ended."""
        # Without flags to peek, which an encrypted connection does not take.
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.setblocking(True)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of stdout, out of the engine's frames, until the container ends."""
        pending = b""
        while header := self._read(_FRAME_HEADER.size):
            kind, size = _FRAME_HEADER.unpack(header)
            chunk = self._read(size)
            if kind == _STDOUT:
                *complete, pending = (pending + chunk).split(b"\n")
                yield from complete

    def _read(self, size: int) -> bytes:
        """Read exactly so many bytes; none at the end."""
        received = bytearray()
        while len(received) < size:
            chunk = self._socket.recv(size - len(received))
            if not chunk:
                return b""
            received += chunk
        return bytes(received)

    def shut_down(self) -> None:
        """End the lines. Close only after their reader has stopped: the descriptor's number is reused."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()
            self._socket.close()  # the stream only borrows it


def _client(access: _EngineAccess) -> docker.DockerClient:
    """Return a client of an engine that answers."""
    if access.tunnel is None:
        _knock(access.url)
    # A client for this question alone: an engine that hangs must not delay the choice of a launcher.
    probe = access.client(timeout=_PING_S)
    try:
        probe.ping()
    finally:
        probe.close()
    return access.client(timeout=_REQUEST_S)


class Engine:
    """One container engine, local or remote."""

    def __init__(self, client: docker.DockerClient, *, url: str = "", tunnel: SshTunnel | None = None) -> None:
        self._api: Any = client.api
        self._tunnel = tunnel
        weakref.finalize(self, client.close)
        with translated("asking the engine what it is"):
            self.info: Mapping[str, Any] = client.info()
        self.version = str(self.info.get("ServerVersion", "?"))
        self.address = url or str(self._api.base_url).replace("http+docker://localhost", "the local socket")

    @property
    def is_local(self) -> bool:
        """Whether it is reached over a socket of this machine, and not through a tunnel."""
        return self.address.startswith("unix:") or "://" not in self.address

    @property
    def id(self) -> str:
        """What tells the engine from others, by whichever way it is reached."""
        return engine_identity(self.info)

    @classmethod
    def connect(cls, place: str = LOCAL) -> "Engine":
        """Connect to the engine at a place: a URL, a Docker context; raise EngineUnavailableError.

        `local` is the engine that Docker's own variables and defaults name.
        """
        with translated("connecting" if place == LOCAL else f"connecting to {place}"):
            access = _access(place)
            try:
                engine = cls(_client(access), url="" if place == LOCAL else access.url, tunnel=access.tunnel)
            except BaseException:
                if access.tunnel is not None:
                    access.tunnel.close()
                raise
        if access.tunnel is not None:
            weakref.finalize(engine, access.tunnel.close)
        return engine

    def reconnect(self) -> bool:
        """Open the tunnel to the engine again if it has ended; return whether it had."""
        return self._tunnel is not None and self._tunnel.reopen()

    # -- images -------------------------------------------------------------------------------------------------

    def has_image(self, tag: str) -> bool:
        with translated(f"looking for image {tag}"):
            try:
                self._api.inspect_image(tag)
            except ImageNotFound:
                return False
        return True

    def can_pull(self, tag: str) -> str | None:
        """Return None if the engine's registry has the image, otherwise why not."""
        try:
            with translated(f"asking the registry for {tag}"):
                self._api.inspect_distribution(tag)
        except EngineUnavailableError:
            raise
        except LaunchError as error:
            return str(error)
        return None

    def import_image(self, tree: IO[bytes], tag: str, changes: Sequence[str]) -> None:
        """Make an image of a tar of its root directory."""
        repository, _, version = tag.partition(":")
        chunks = iter(lambda: tree.read(1 << 20), b"")  # an open file would get both a length and chunks
        with translated(f"importing image {tag}"):
            self._api.import_image_from_stream(chunks, repository=repository, tag=version, changes=list(changes))

    def build_image(self, context: bytes, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Build a Dockerfile; `context` is a tar that holds it."""
        output: list[str] = []
        with translated(f"building image {tag}"):
            steps = self._api.build(
                fileobj=io.BytesIO(context),
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
            )
            for step in steps:
                output.append(step.get("stream", ""))
                if "error" in step:
                    tail = "".join(output)[-_SHORT_OUTPUT:]
                    raise LaunchError(f"building image {tag} failed: {step['error'].strip()}", log_tail=tail)

    # -- containers ---------------------------------------------------------------------------------------------

    def create_container(self, spec: ContainerSpec) -> str:
        """Create a container without starting it and return its id; raise NameTakenError if the name exists."""
        api = self._api
        mode = "rw" if spec.writable_binds else "ro"
        limits: dict[str, Any] = {}
        if spec.cpu_quota_us:
            limits |= {"cpu_period": spec.cpu_period_us, "cpu_quota": spec.cpu_quota_us}
        if spec.memory_bytes:
            # The same limit for memory and swap together: swap would turn a lack of memory into latency.
            limits |= {"mem_limit": spec.memory_bytes, "memswap_limit": spec.memory_bytes}
        host_config = api.create_host_config(
            network_mode=spec.network_mode,
            binds={name: {"bind": path, "mode": mode} for name, path in spec.binds.items()},
            tmpfs=dict(spec.tmpfs),
            read_only=True,
            cap_drop=["ALL"],
            cap_add=list(spec.capabilities),
            security_opt=["no-new-privileges:true"],
            pids_limit=256,
            sysctls=dict(spec.sysctls) or None,
            # The engine's resolver knows its containers by itself; for other names it would ask the host's
            # servers, even from an internal network. Nothing answers at this address.
            dns=["127.0.0.1"] if spec.aliases else None,
            # Not the engine's default: that driver may be one whose logs cannot be read back, or have no limit.
            log_config=LogConfig(type="json-file", config={"max-size": "4m", "max-file": "1"}),
            port_bindings=dict(spec.ports),
            **limits,
        )
        networking = None
        if spec.aliases:
            endpoint = api.create_endpoint_config(aliases=list(spec.aliases))
            networking = api.create_networking_config({spec.network_mode: endpoint})
        with translated(f"creating container {spec.name}"), _names_are_unique(spec.name):
            created = api.create_container(
                image=spec.image,
                command=list(spec.command),
                name=spec.name,
                labels=dict(spec.labels),
                user=spec.user,
                environment=dict(spec.environment),
                stdin_open=spec.interactive,
                ports=list(spec.ports),
                # An image's own health check would run on the tier's CPU quota.
                healthcheck={"test": ["NONE"]},
                host_config=host_config,
                networking_config=networking,
            )
        return str(created["Id"])

    def start_container(self, container: str) -> None:
        with translated("starting a container"):
            self._api.start(container)

    def limit_cpu(self, container: str, *, period_us: int, quota_us: int) -> None:
        """Set the CPU quota of a container that runs; raise LaunchError if the engine cannot."""
        with translated("limiting a container's CPU"):
            self._api.update_container(container, cpu_period=period_us, cpu_quota=quota_us)

    def attach(self, container: str) -> Attachment:
        """Attach to stdin and stdout; do so before the start, so that no line is lost."""
        with translated("attaching to a container"):
            return Attachment(self._api.attach_socket(container, {"stdin": 1, "stdout": 1, "stream": 1}))

    def run_to_end(self, spec: ContainerSpec) -> str:
        """Run a short-lived container, return its stdout, remove it; raise LaunchError if it fails."""
        container = self.create_container(spec)
        try:
            self.start_container(container)
            with translated(f"waiting for {spec.name}"):
                code = int(self._api.wait(container, timeout=30)["StatusCode"])
                output = self._api.logs(container, stdout=True, stderr=False).decode(errors="replace")
            if code:
                raise LaunchError(f"{spec.name} ended with exit code {code}", log_tail=self.log_tail(container))
            return str(output)
        finally:
            self.remove_container(container)

    def put_archive(self, container: str, directory: str, archive: IO[bytes]) -> None:
        """Unpack a tar inside a container, which need not run."""
        with translated("copying files into a volume"):
            self._api.put_archive(container, directory, archive)

    def state(self, container: str) -> ContainerState | None:
        """Return a container's state; None if the container does not exist any more."""
        with translated("asking for a container's state"):
            try:
                state = self._api.inspect_container(container)["State"]
            except NotFound:
                return None
        return ContainerState(bool(state["Running"]), int(state["ExitCode"]), bool(state["OOMKilled"]))

    def memory(self, container: str) -> MemoryUse | None:
        """Return how full a container's memory is; None if it does not run."""
        with translated("asking for a container's memory"):
            try:
                # `one_shot`, because otherwise the engine waits a second for another look at the CPU.
                stats = self._api.stats(container, stream=False, one_shot=True)
            except NotFound:
                return None
        return MemoryUse.from_stats(stats.get("memory_stats") or {})

    def inspect(self, container: str) -> Mapping[str, Any]:
        """Return everything that the engine reports about a container."""
        with translated("inspecting a container"):
            description: Mapping[str, Any] = self._api.inspect_container(container)
        return description

    def published_port(self, container: str, port: int) -> int:
        """Return the port of the engine's host that leads to a port of a container that runs."""
        published = self.inspect(container)["NetworkSettings"]["Ports"].get(f"{port}/tcp") or []
        if not published:
            raise LaunchError(
                f"the engine at {self.address} published no port of a container; is its bridge switched off?"
            )
        return int(published[0]["HostPort"])

    def log_tail(self, container: str) -> str:
        """Return the end of a container's stderr."""
        with translated("reading a container's log"):
            try:
                raw: bytes = self._api.logs(container, stdout=False, stderr=True, tail=_LOG_TAIL_LINES)
            except NotFound:
                return ""
        return raw.decode(errors="replace")

    def list_containers(self, label: str) -> list[Mapping[str, Any]]:
        with translated("listing containers"):
            return list(self._api.containers(all=True, filters={"label": label}))

    def remove_container(self, container: str) -> None:
        """Kill and remove; it may be gone already."""
        with translated("removing a container"):
            try:
                self._api.remove_container(container, force=True)
            except NotFound:
                pass
            except APIError as error:
                # Two runners may clean at the same time; the status alone (409) has other causes as well.
                if "already in progress" not in str(error):
                    raise

    # -- networks and volumes -----------------------------------------------------------------------------------

    def create_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Create a network that reaches nothing outside, the host included: its bridge gets no address."""
        with translated(f"creating network {name}"):
            created = self._api.create_network(
                name,
                driver="bridge",
                internal=True,
                options={"com.docker.network.bridge.inhibit_ipv4": "true"},
                labels=dict(labels),
                check_duplicate=True,
            )
        return str(created["Id"])

    def connect_network(self, network: str, container: str, alias: str) -> None:
        with translated("connecting a container to a network"):
            self._api.connect_container_to_network(container, network, aliases=[alias])

    def list_networks(self, label: str) -> list[Mapping[str, Any]]:
        with translated("listing networks"):
            return list(self._api.networks(filters={"label": label}))

    def remove_network(self, network: str) -> None:
        with translated("removing a network"), suppress(NotFound):
            self._api.remove_network(network)

    def volume_labels(self, name: str) -> Mapping[str, str] | None:
        """Return a volume's labels; None if there is no such volume."""
        with translated(f"looking for volume {name}"):
            try:
                return dict(self._api.inspect_volume(name)["Labels"] or {})
            except NotFound:
                return None

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with translated(f"creating volume {name}"):
            self._api.create_volume(name, labels=dict(labels))

    def list_volumes(self, label: str) -> list[Mapping[str, Any]]:
        with translated("listing volumes"):
            return list(self._api.volumes(filters={"label": label})["Volumes"] or [])

    def remove_volume(self, name: str) -> None:
        with translated(f"removing volume {name}"), suppress(NotFound):
            self._api.remove_volume(name, force=True)
