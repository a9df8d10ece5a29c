"""Tiers on hosts of their own: containers of several Docker engines, and tiers of tier servers, with the ways between.

The runner only controls: it starts the tiers, gives each the address of the next, and reads what they report. Requests
go from tier to tier over the network that is there, or over a link that is slowed down to what is declared.

A place of a tier is a Docker engine that starts one as a container, or a tier server that runs already. A container
publishes one port of its engine's host, at which the tier before it reaches it.
"""

import ipaddress
import json
import logging
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from catalog.declaration import TestbedSpec, TierPlace
from catalog.foreign import read_regular
from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError
from runner.host import Host, environment_host, host_of_server
from runner.launchers.base import (
    Deployment,
    EngineDescription,
    LinkLimits,
    Mount,
    RunningTier,
    TierLimits,
    check_links,
    engine_arguments,
)
from runner.launchers.container import ROOT, DockerTier, discard_volume, ensure_volume, volume_name
from runner.launchers.docker import (
    FREE_START_CPUS,
    LISTENING,
    PORT,
    RUN_LABEL,
    DockerLauncher,
    launch_labels,
    period_us,
    quota_us,
)
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.process import SHORTEST_LOOK_S, thread_environment
from runner.launchers.server_tier import TierServer, connect
from runner.launchers.shaping import ROLE_LABEL, in_parallel

# The engine's default network, whose containers reach other hosts and may publish a port.
_NETWORK = "bridge"
# By engine, since two addresses of a testbed may lead to one.
_FILLING: dict[str, threading.Lock] = {}


def _filling(engine: str) -> threading.Lock:
    return _FILLING.setdefault(engine, threading.Lock())


@dataclass(frozen=True, eq=False)
class PlacedEngine:
    """A Docker engine of a testbed, which may start several of its tiers."""

    launcher: DockerLauncher
    # Content that is there already, while launches are kept.
    volumes: set[str] = field(default_factory=set)

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        return self.launcher.engine

    def fill_volumes(self, mounts: Sequence[Mount], labels: Mapping[str, str], *, kept: bool) -> None:
        """Copy files to the engine that it does not have."""
        # Two tiers of one engine may want the same content, whose helper container has one name.
        with _filling(self.engine.id):
            for mount in mounts:
                if not kept or volume_name(mount) not in self.volumes:
                    ensure_volume(self.engine, mount, image=self.launcher.image().tag, labels=labels)
                    self.volumes.add(volume_name(mount))

    def discard(self, mount: Mount) -> None:
        """Remove files that are not what they should be, so that the next launch sends them again."""
        self.volumes.discard(volume_name(mount))
        discard_volume(self.engine, mount)


@dataclass(frozen=True)
class EnginePlace:
    """The engine that starts a tier; `address` is how other tiers reach its host, at `port` if that is declared."""

    on: PlacedEngine
    address: str = ""
    port: int | None = None

    def host(self) -> Host:
        """Return the machine under the engine."""
        return self.on.launcher.host()

    def describe(self) -> EngineDescription:
        """Describe the engine."""
        return self.on.launcher.describe()

    def discard(self, mount: Mount) -> None:
        """Remove files that are not what they should be."""
        self.on.discard(mount)

    @contextmanager
    def running(self, limits: TierLimits, mounts: Sequence[Mount], *, kept: bool) -> Iterator["StartedTier"]:
        """Yield a fresh tier, ready and limited, in a container that is removed at the end of the block."""
        engine, run = self.on.engine, uuid.uuid4().hex[:12]
        labels = {**launch_labels(), RUN_LABEL: run}
        self.on.fill_volumes(mounts, labels, kept=kept)
        container = engine.create_container(self._spec(limits, mounts, f"tierwise-{run}-{limits.name}", labels))
        tier = DockerTier(engine, limits.name, container, memory_bytes=limits.memory_bytes)
        try:
            engine.start_container(container)
            tier.wait_ready()
            if limits.cpus < FREE_START_CPUS:
                engine.limit_cpu(container, period_us=period_us(limits), quota_us=quota_us(limits))
            host = f"[{self.address}]" if ":" in self.address else self.address
            yield StartedTier(tier, f"http://{host}:{engine.published_port(container, PORT)}")
        finally:
            tier.close()
            engine.remove_container(container)

    @contextmanager
    def paced(self, tier: DockerTier, link: LinkLimits, url: str) -> Iterator[str]:
        """Yield where a tier of this place reaches a URL at the rate and delay of a link."""
        engine, run = self.on.engine, uuid.uuid4().hex[:12]
        command = ["python", "-m", "tierserver.paced_link", "--listen", "127.0.0.1:0", "--to", urlsplit(url).netloc]
        command += ["--up-bit-per-s", str(link.up_bit_per_s), "--down-bit-per-s", str(link.down_bit_per_s)]
        command += ["--delay-s", str(link.delay_s)] if link.delay_s else []
        container = engine.create_container(
            ContainerSpec(
                image=self.on.launcher.image().tag,
                command=command,
                name=f"tierwise-{run}-{link.name}",
                labels={**launch_labels(), RUN_LABEL: run, ROLE_LABEL: "links"},
                # In the tier's own network, where no other tier reaches it.
                network_mode=f"container:{tier.container}",
                interactive=True,
            )
        )
        attachment = engine.attach(container)
        try:
            engine.start_container(container)
            line = next(attachment.lines(), b"")
            if not line:
                tail = engine.log_tail(container)
                raise LaunchError(f"link {link.name!r} did not start", tier=link.upstream, log_tail=tail)
            yield f"http://127.0.0.1:{int(json.loads(line)['port'])}"
        finally:
            attachment.shut_down()
            attachment.close()
            engine.remove_container(container)

    def _spec(self, limits: TierLimits, mounts: Sequence[Mount], name: str, labels: Mapping[str, str]) -> ContainerSpec:
        later = limits.cpus < FREE_START_CPUS
        return ContainerSpec(
            image=self.on.launcher.image().tag,
            command=["python", "-m", "tierserver", "--name", limits.name, *LISTENING, *engine_arguments(mounts)],
            name=name,
            labels={**labels, ROLE_LABEL: "tier"},
            network_mode=_NETWORK,
            environment=thread_environment(limits.threads),
            binds={volume_name(mount): f"{ROOT}/{mount.name}" for mount in mounts},
            tmpfs={"/tmp": "size=16m,mode=1777"},
            cpu_period_us=0 if later else period_us(limits),
            cpu_quota_us=0 if later else quota_us(limits),
            memory_bytes=limits.memory_bytes,
            interactive=True,
            ports={PORT: self.port},
        )


@dataclass(frozen=True)
class ServerPlace:
    """A tier server that runs already and serves one tier."""

    server: TierServer

    def host(self) -> Host:
        """Return the machine under the server."""
        return host_of_server(self.server.facts(), place=self.server.url)

    def describe(self) -> EngineDescription:
        """Describe the server."""
        facts = self.server.facts()
        details = {"kernel": facts.kernel, "architecture": facts.architecture}
        return EngineDescription("tierserver", self.server.version(), facts.cpus, facts.memory_bytes, details)

    @contextmanager
    def running(self, limits: TierLimits, mounts: Sequence[Mount], *, kept: bool) -> Iterator["StartedTier"]:
        """Yield a fresh tier that the server has started; it remembers files by itself, `kept` or not."""
        with self.server.launch(limits, mounts) as tier:
            yield StartedTier(tier, tier.url)

    def discard(self, mount: Mount) -> None:
        """Remove files that are not what they should be."""
        self.server.discard(mount)


@dataclass(frozen=True)
class StartedTier:
    """A tier that is ready, and where other tiers reach it."""

    tier: RunningTier
    url: str


@dataclass(frozen=True)
class PlaceAccess:
    """What reaching a place needs: where relative paths start, what images are built from, a token."""

    base: Path = Path()
    base_image: str | None = None
    token: str = field(default="", repr=False)

    def reach(self, tier: str, place: TierPlace) -> PlacedEngine | TierServer:
        """Connect to a place; raise LaunchError where it does not answer or cannot run a tier."""
        if place.server is not None:
            return connect(place.server, tier=tier, token=self._token_of(tier, place), address=place.address)
        try:
            launcher = DockerLauncher(Engine.connect(place.url), base_image=self.base_image, place=place.url)
        except EngineUnavailableError as error:
            raise EngineUnavailableError(f"tier {tier!r}: {error}", tier=tier) from error
        # Another architecture than this machine's, for example, whose interpreter cannot be copied there.
        if refusal := launcher.refusal():
            raise LaunchError(f"tier {tier!r} at {place.url}: {refusal}", tier=tier)
        return PlacedEngine(launcher)

    def _token_of(self, tier: str, place: TierPlace) -> str:
        if place.token_file is None:
            return self.token
        try:
            return read_regular(self.base / place.token_file).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise LaunchError(
                f"tier {tier!r}: its token_file {place.token_file} cannot be read ({reason}); allowed: a file with the "
                "token alone, beside the catalog or at an absolute path",
                tier=tier,
            ) from error


def placed(
    tier: str, place: TierPlace, reached: PlacedEngine | TierServer, *, is_client: bool
) -> EnginePlace | ServerPlace:
    """Return the place of a tier on what was reached; raise LaunchError where other tiers could not reach it."""
    if isinstance(reached, TierServer):
        return ServerPlace(reached)
    return EnginePlace(reached, "" if is_client else _address(tier, place, reached.engine), place.port)


def _address(tier: str, place: TierPlace, engine: Engine) -> str:
    """Return the IP address by which other tiers reach a place; raise LaunchError if there is none."""
    name = place.address or place.host or urlsplit(engine.address).hostname
    advice = f"name one that the other tiers reach: {tier}: {{engine: {place.url}, address: HOST}}"
    if not name:
        raise LaunchError(f"tier {tier!r} at {place.url} has no address; {advice}", tier=tier)
    try:
        # Looked up here: in a container another name service may know other names, or none.
        address = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise LaunchError(f"tier {tier!r}: no address of {name!r} is known here; {advice}", tier=tier) from error
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise LaunchError(f"tier {tier!r}: {address} leads every tier to itself; {advice}", tier=tier)
    return address


logger = logging.getLogger(__name__)


class TestbedLauncher:
    """A launcher of tiers at the places of a testbed, one for each; the first is the client's."""

    # The test runner would take the name for a class of tests.
    __test__ = False

    name = "testbed"

    def __init__(self, places: Mapping[str, EnginePlace | ServerPlace], *, real_links: bool = True) -> None:
        self._places = places
        self._real_links = real_links
        self._keeps = False

    @classmethod
    def open(
        cls, testbed: TestbedSpec, *, base: Path = Path(), base_image: str | None = None, token: str = ""
    ) -> "TestbedLauncher":
        """Connect to all places of a testbed at once; raise LaunchError for one that cannot run its tier.

        `base` is where a relative `token_file` starts; `token` is that of tier servers which name no file.
        """
        declared = dict(testbed.tiers or {})
        # By address: several tiers may be containers of one engine.
        users = {place.url: name for name, place in declared.items()}
        access = PlaceAccess(base, base_image, token)
        reached = dict(
            zip(users, in_parallel(lambda url: access.reach(users[url], declared[users[url]]), users), strict=True)
        )
        # Requests start at the client's tier, so that no other needs its address.
        client = next(iter(declared), "")
        return cls(
            {
                name: placed(name, place, reached[place.url], is_client=name == client)
                for name, place in declared.items()
            },
            real_links=testbed.links == "real",
        )

    def engines(self) -> Sequence[PlacedEngine]:
        """Return the Docker engines, each once."""
        return list(dict.fromkeys(place.on for place in self._places.values() if isinstance(place, EnginePlace)))

    def engine_launchers(self) -> Sequence[DockerLauncher]:
        """Return the launcher of each Docker engine, once, also where two addresses lead to it."""
        return list({engine.engine.id: engine.launcher for engine in self.engines()}.values())

    def servers(self) -> Sequence[TierServer]:
        """Return the tier servers."""
        return [place.server for place in self._places.values() if isinstance(place, ServerPlace)]

    def measures_here(self) -> bool:
        """Return whether a tier may run on this machine: its engine is reached over a local socket."""
        return any(engine.engine.is_local for engine in self.engines())

    def describe(self) -> EngineDescription:
        by_tier = {name: place.describe() for name, place in self._places.items()}
        distinct = [launcher.describe() for launcher in self.engine_launchers()]
        distinct += [by_tier[name] for name, place in self._places.items() if isinstance(place, ServerPlace)]
        # Without addresses, which name machines: what is stored here goes into every export.
        details = {f"{name}.{key}": value for name, engine in by_tier.items() for key, value in engine.details.items()}
        return EngineDescription(
            self.name,
            " + ".join(dict.fromkeys(f"{engine.name} {engine.version}" for engine in by_tier.values())),
            sum(engine.cpus for engine in distinct),
            sum(engine.memory_bytes for engine in distinct),
            details,
        )

    def host(self) -> Host:
        """Return the machines under the tiers as one."""
        return environment_host(self.hosts(self._places), real_links=self._real_links)

    def hosts(self, tiers: Iterable[str]) -> Mapping[str, Host]:
        """Return the machine under each tier."""
        names = list(tiers)
        # Read once on each engine, where a container of the tier image says what it runs on.
        in_parallel(lambda engine: engine.launcher.host(), self.engines())
        return {name: self._places[name].host() for name in names}

    def prepare(self) -> None:
        """Build the tier image on every engine that does not have it."""
        in_parallel(lambda engine: engine.launcher.prepare(), self.engines())

    def delay_refusal(self) -> str | None:
        """Return None: a real link has the delay that it has, and one in user space can be delayed."""
        return None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Hold the tier servers, and remember between the launches of the block which files the engines have."""
        self._keeps = True
        with ExitStack() as reservations:
            try:
                for server in self.servers():
                    server.hold()
                    reservations.callback(server.release)
                yield
            finally:
                self._keeps = False
                for engine in self.engines():
                    engine.volumes.clear()

    @contextmanager
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[Deployment]:
        """Yield fresh tiers at their places, ready to be called."""
        check_links(tiers, links)
        # A stack for each tier, so that all start at once and all end at once; links end before their tiers.
        stacks, paced = [ExitStack() for _ in tiers], ExitStack()
        try:
            started = in_parallel(
                lambda pair: self._enter(pair[0], pair[1], mounts.get(pair[1].name, ())),
                zip(stacks, tiers, strict=True),
            )
            by_name = {limits.name: tier for limits, tier in zip(tiers, started, strict=True)}
            ways = in_parallel(lambda link: self._way(link, by_name, paced), links)
            addresses = {(link.upstream, link.downstream): way for link, way in zip(links, ways, strict=True)}
            running = {name: tier.tier for name, tier in by_name.items()}
            if self._real_links:
                yield Deployment(running, tuple(links), addresses)
            else:
                yield Deployment(running, tuple(links), addresses, SHORTEST_LOOK_S)
        except ChangedFilesError as error:
            _close(paced)
            in_parallel(_close, stacks)
            self._discard(error.mount, mounts)
            raise
        finally:
            _close(paced)
            in_parallel(_close, stacks)

    def _way(self, link: LinkLimits, started: Mapping[str, StartedTier], paced: ExitStack) -> str:
        """Return where the upstream tier of a link reaches the other: its own address, or that of a link in between."""
        url, upstream, place = started[link.downstream].url, started[link.upstream].tier, self._places[link.upstream]
        if self._real_links:
            return url
        if not isinstance(place, EnginePlace) or not isinstance(upstream, DockerTier):
            raise LaunchError(f"link {link.name!r} cannot be emulated: {link.upstream!r} is not a container")
        return paced.enter_context(place.paced(upstream, link, url))

    def _enter(self, stack: ExitStack, limits: TierLimits, mounts: Sequence[Mount]) -> StartedTier:
        try:
            return stack.enter_context(self._places[limits.name].running(limits, mounts, kept=self._keeps))
        except EngineUnavailableError as error:
            raise EngineUnavailableError(f"tier {limits.name!r}: {error}", tier=limits.name) from error

    def _discard(self, name: str, mounts: Mapping[str, Sequence[Mount]]) -> None:
        for tier, several in mounts.items():
            for mount in several:
                if mount.name == name:
                    self._places[tier].discard(mount)

    def reconnect(self) -> bool:
        """Open lost connections to engines again; return whether there were any."""
        return any(in_parallel(lambda engine: engine.launcher.reconnect(), self.engines()))

    def clean(self, *, volumes: bool = False) -> int:
        """Remove what dead runners left on every engine."""
        return sum(in_parallel(lambda launcher: launcher.clean(volumes=volumes), self.engine_launchers()))


def _close(stack: ExitStack) -> None:
    """End a tier; if its engine is gone, only warn: `clean` removes what is left."""
    try:
        stack.close()
    except LaunchError as error:
        logger.warning("a tier could not be removed: %s", error)
