"""The interface of all launchers: limits and mounts in, a deployment of running tiers out.

An experiment uses only these types; its launcher is chosen in one place (`runner.launchers.select`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from catalog.foreign import open_regular
from runner.errors import LaunchError
from runner.host import Host

EventCallback = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TierLimits:
    """The resources that one tier may use; `threads` are those of the inference engine."""

    name: str
    cpus: float
    memory_bytes: int
    threads: int


@dataclass(frozen=True)
class LinkLimits:
    """The network between two tiers; up is from `upstream` (nearer to the client) to `downstream`.

    `delay_s` is one way, the same in both directions. A `real` link is measured and not shaped: its rates are what the
    catalog expects.
    """

    name: str
    upstream: str
    downstream: str
    up_bit_per_s: int
    down_bit_per_s: int
    delay_s: float = 0.0
    real: bool = False


@dataclass(frozen=True)
class Mount:
    """Read-only files for a tier, visible there under `RunningTier.path(name)`; `key` stands for their content.

    `sha256` are the digests that the files must have when the tier reads them. Only a tier with a mount that
    `has_parts` starts with the inference engine loaded.
    """

    name: str
    files: Mapping[str, Path]
    key: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    has_parts: bool = False


def engine_arguments(mounts: Sequence[Mount]) -> list[str]:
    """Return the arguments of a tier that is started with these mounts."""
    # The engine is a third of what a tier imports, and one that only sends or relays never uses it.
    return [] if any(mount.has_parts for mount in mounts) else ["--no-engine"]


def readable(mount: Mount, inside: str) -> Path:
    """Return the real path of one of a mount's files; raise LaunchError if it cannot be read."""
    try:
        path = mount.files[inside].resolve(strict=True)
        # Opened once, so that a missing permission shows here with the mount's name and not in the middle of a launch.
        open_regular(path).close()
    except OSError as error:
        raise LaunchError(f"file {inside!r} of mount {mount.name!r} cannot be read: {error}") from error
    return path


@dataclass(frozen=True)
class EngineDescription:
    """What runs the tiers; stored with every result."""

    name: str
    version: str
    cpus: int
    memory_bytes: int
    details: Mapping[str, str] = field(default_factory=dict)


class RunningTier(Protocol):
    """One running tier."""

    @property
    def name(self) -> str: ...

    def call(
        self, command: Mapping[str, Any], *, on_event: EventCallback | None = None, deadline_s: float
    ) -> dict[str, Any]:
        """Send a command, pass on its events, return its result; raise TierCallError if it fails."""
        ...

    def path(self, mount: str) -> str:
        """Return where the tier sees a mount's files."""
        ...


@dataclass(frozen=True)
class Deployment:
    """Running tiers and the ways between them.

    Requests flow from upstream to downstream, answers come back the same way. `addresses` holds, per pair of
    neighbours (upstream, downstream), the base URL by which the first reaches the second through their link.
    """

    tiers: Mapping[str, RunningTier]
    links: tuple[LinkLimits, ...]
    addresses: Mapping[tuple[str, str], str]
    # The shortest transfer that tells a link's rate: some twenty of the pieces that the launcher's links hand over.
    shortest_look_s: float = 0.015

    def url(self, source: str, target: str) -> str:
        """Return the base URL by which `source` reaches `target`, through relays if they are not neighbours."""
        route = self._route(source, target)
        # The first neighbour is reached over its link; every further tier is reached through the relay before it.
        return self.addresses[route[0], route[1]] + "".join(f"/tiers/{name}" for name in route[2:])

    def routes(self, tier: str) -> dict[str, str]:
        """Return the neighbours that a tier relays to, as its `load` command takes them."""
        return {second: url for (first, second), url in self.addresses.items() if first == tier}

    def _route(self, source: str, target: str) -> list[str]:
        """Return the shortest way over the links, breadth first."""
        # `seen` ends the search where links form a circle.
        ways, seen = deque([[source]]), {source}
        while ways:
            way = ways.popleft()
            if way[-1] == target and len(way) > 1:
                return way
            for first, second in self.addresses:
                if first == way[-1] and second not in seen:
                    seen.add(second)
                    ways.append([*way, second])
        links = ", ".join(f"{link.upstream}→{link.downstream}" for link in self.links) or "none"
        raise LaunchError(f"no way from {source!r} to {target!r}; links of this deployment: {links}")


class Launcher(Protocol):
    """A way to start isolated tiers with limited resources and shaped links between them."""

    name: str

    def describe(self) -> EngineDescription:
        """Describe what the tiers run on."""
        ...

    def host(self) -> Host:
        """Return the machine under the tiers, which keys, limits and checks refer to, wherever the runner itself is."""
        ...

    def hosts(self, tiers: Iterable[str]) -> Mapping[str, Host]:
        """Return the machine under each tier: one for all, unless the tiers are on hosts of their own."""
        ...

    def prepare(self) -> None:
        """Do what is slow and needed once (the tier image), so that no measurement waits for it."""
        ...

    def delay_refusal(self) -> str | None:
        """Return why this launcher cannot delay links; None if it can."""
        ...

    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> AbstractContextManager[Deployment]:
        """Yield fresh tiers, ready to be called and removed at the end of the block; raise LaunchError."""
        ...

    def kept(self) -> AbstractContextManager[None]:
        """Keep between the launches of the block what no tier uses alone; remove it at the end."""
        ...

    def reconnect(self) -> bool:
        """Open connections to engines again that were lost; return whether there were any.

        Raises
        ------
        EngineUnavailableError
            When one cannot be opened.
        """
        ...

    def clean(self, *, volumes: bool = False) -> int:
        """Remove what killed runs left behind and return the count; with `volumes`, cached files as well."""
        ...


def check_links(tiers: Sequence[TierLimits], links: Sequence[LinkLimits]) -> None:
    """Refuse a link that ends at a tier which is not launched, and two tiers of one name."""
    names = [tier.name for tier in tiers]
    # A name is an address too: containers reach one another by it.
    if len(set(names)) != len(names):
        raise LaunchError(f"two tiers have the same name: {', '.join(names)}")
    for link in links:
        for end in (link.upstream, link.downstream):
            if end not in names:
                raise LaunchError(f"link {link.name!r} ends at {end!r}; tiers launched: {', '.join(names)}", tier=end)
