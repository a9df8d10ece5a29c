"""Tiers on hosts of their own: containers of several Docker engines, and tiers of tier servers, with the ways between.

The runner only controls: it starts the tiers, gives each the address of the next, and reads what they report. Requests
go from tier to tier over the network that is there, or over a link that is slowed down to what is declared.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from catalog.declaration import TestbedSpec
from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError
from runner.host import Host, environment_host
from runner.launchers.base import Deployment, EngineDescription, LinkLimits, Mount, TierLimits, check_links
from runner.launchers.container import DockerTier
from runner.launchers.docker import DockerLauncher
from runner.launchers.places import EnginePlace, PlaceAccess, PlacedEngine, ServerPlace, StartedTier, placed
from runner.launchers.process import SHORTEST_LOOK_S
from runner.launchers.server_tier import TierServer
from runner.launchers.shaping import in_parallel

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
