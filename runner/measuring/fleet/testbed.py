"""What a testbed says of itself, its machine, its versions and where it stores, and the scheduler where it is reached.

The address of a Dask scheduler leads beyond this machine only with TLS, since tasks are code that workers run.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from runner.errors import FleetError
from runner.host import Host
from runner.launchers.base import Deployment, EngineDescription, LinkLimits, Mount, TierLimits
from runner.launchers.select import Selection

# Raised whenever tasks or their results change: a worker of another number is refused.
MESSAGES = 1


@dataclass(frozen=True)
class TestbedDescription:
    """A testbed as its worker describes it.

    `tierwise` and `messages` are its versions, `place` the process that serves it, `store` identifies the database that
    it stores into, and `database` is that database's name in messages.
    """

    # The test runner would take the name for a class of tests.
    __test__ = False

    testbed: str
    tierwise: str
    messages: int
    place: str
    store: str
    database: str
    launcher: str
    hosts: Mapping[str, Host]
    host: Host
    engine: EngineDescription
    replicas: str | None = None
    real_links: bool = False

    @classmethod
    def of(
        cls, selection: Selection, tiers: Iterable[str], *, place: str, store: str, database: str
    ) -> "TestbedDescription":
        """Describe the testbed that a launcher was selected for."""
        launcher = selection.launcher
        return cls(
            testbed=selection.testbed,
            tierwise=version("tierwise"),
            messages=MESSAGES,
            place=place,
            store=store,
            database=database,
            launcher=launcher.name,
            hosts=dict(launcher.hosts(tiers)),
            host=launcher.host(),
            engine=launcher.describe(),
            replicas=selection.replicas,
            real_links=selection.real_links,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TestbedDescription":
        """Read a description.

        Raises
        ------
        FleetError
            For one of another version of Tierwise.
        """
        theirs, ours = (value.get("tierwise"), value.get("messages")), (version("tierwise"), MESSAGES)
        if theirs != ours:
            raise FleetError(
                f"testbed {value.get('testbed')!r} is served by Tierwise {theirs[0]} (messages {theirs[1]}), and this "
                f"is Tierwise {ours[0]} (messages {ours[1]}); allowed: the same version. Install it there and start "
                "its worker again"
            )
        return cls(
            **{
                **value,
                "hosts": {name: _host(host) for name, host in value["hosts"].items()},
                "host": _host(value["host"]),
                "engine": EngineDescription(**value["engine"]),
            }
        )

    def selection(self) -> Selection:
        """Return the testbed for what plans: its launcher knows the machine and starts nothing."""
        return Selection(
            DescribedLauncher(self), f"served by {self.place}", self.testbed, self.replicas, self.real_links
        )


def _host(value: Mapping[str, Any]) -> Host:
    return Host(**{**value, "providers": tuple(value["providers"])})


class DescribedLauncher:
    """The launcher of a testbed that another process serves: plans and keys need its machine alone."""

    def __init__(self, description: TestbedDescription) -> None:
        self._description = description
        self.name = description.launcher

    def describe(self) -> EngineDescription:
        return self._description.engine

    def host(self) -> Host:
        return self._description.host

    def hosts(self, tiers: Iterable[str]) -> Mapping[str, Host]:
        return {name: self._description.hosts[name] for name in tiers}

    def prepare(self) -> None:
        """Do nothing: the worker has prepared its testbed."""

    def delay_refusal(self) -> str | None:
        """Return None: the worker has refused a catalog whose delays it cannot make."""
        return None

    @contextmanager
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[Deployment]:
        """Refuse to launch: its worker does."""
        raise FleetError(f"testbed {self._description.testbed!r} is served by {self._description.place}, not from here")
        yield

    def kept(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reconnect(self) -> bool:
        """Return False: its worker opens its connections itself."""
        return False

    def clean(self, *, volumes: bool = False) -> int:
        """Remove nothing: the worker cleans up where it serves."""
        return 0


_ALLOWED = "allowed: tcp://127.0.0.1:PORT on this machine, tls://HOST:PORT beyond it"
_HOW = "docs/fleet.md says how to start a scheduler"


def check_scheduler(url: str) -> None:
    """Refuse an address that is not a scheduler's, or that would be used unencrypted; raises FleetError."""
    try:
        parts = urlsplit(url)
        complete = bool(parts.hostname) and parts.port is not None
    except ValueError:
        complete = False
    if not complete or parts.scheme not in ("tcp", "tls"):
        raise FleetError(f"{url!r} is not the address of a Dask scheduler; {_ALLOWED}. {_HOW}")
    if parts.scheme == "tcp" and not is_loopback(parts.hostname or ""):
        raise FleetError(
            f"{url} leaves this machine without TLS, and every client of a scheduler can run code on its workers; "
            f"{_ALLOWED}. docs/fleet.md says how to make the certificates"
        )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its own loopback.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("192.0.2.7")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
