"""Testbeds: where the tiers of a catalog live (docs/testbeds.md).

A testbed is one Docker engine for all tiers, whose links are emulated, or a place for each tier, whose links are real
unless they are slowed down. No secret stands in a catalog: keys are those of `ssh` and of Docker's contexts, a token is
read from a file.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from catalog.declaration.fields import Declared, Name, Text

Links = Literal["emulated", "real"]
# The testbed of a catalog that declares none: tiers on this machine, as `--launcher` chooses them.
EMULATED = "emulated"
LOCAL = "local"
_ENGINE_SCHEMES = ("ssh", "tcp", "unix")
_SERVER_SCHEMES = ("http", "https")
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})")
_ENGINES = "local, a Docker context's name, ssh://USER@HOST, tcp://HOST:PORT or unix:///PATH"
_SERVERS = "http://HOST:PORT"


def _parts(url: str) -> SplitResult:
    """Split a URL; raise ValueError for an invalid port or host."""
    parts = urlsplit(url)
    _ = parts.port  # a property that checks the number
    # A name with a dash in front would be an option of `ssh`.
    for name in (parts.username, parts.hostname):
        if name is not None and not _is_address(name):
            raise ValueError(f"{name!r} is not the name of a user or a host")
    return parts


def _shown(place: str) -> str:
    """Return a place for a message, without a password."""
    return repr(re.sub(r"(?<=:)[^/@:]*(?=@)", "***", place))


_PASSWORD = "it has a password, which does not belong in a catalog"


def _engine_fault(place: str) -> str | None:
    """Return what is wrong with the place of a Docker engine; None if nothing is."""
    if "://" not in place:
        return None if _CONTEXT.fullmatch(place) else "it is not the name of a Docker context"
    try:
        parts = _parts(place)
    except ValueError as error:
        return str(error)
    if parts.password is not None:
        return _PASSWORD
    if parts.scheme in _SERVER_SCHEMES:
        return "http:// is a tier server, which serves one tier: name it under `tiers`"
    if parts.scheme not in _ENGINE_SCHEMES:
        return f"{parts.scheme}:// does not lead to a Docker engine"
    if parts.query or parts.fragment:
        return "it has a query"
    if parts.scheme == "unix":
        return None if not parts.netloc and len(parts.path) > 1 else "a socket is an absolute path, unix:///PATH"
    if not parts.hostname:
        return "it names no host"
    return "it names no port (2376 is usual)" if parts.scheme == "tcp" and parts.port is None else None


def _server_fault(place: str) -> str | None:
    """Return what is wrong with the place of a tier server; None if nothing is."""
    try:
        parts = _parts(place)
    except ValueError as error:
        return str(error)
    if parts.scheme != "http":
        return "a tier server is reached by http"
    if parts.username is not None:
        return "it names a user; a token is read from token_file or TIERWISE_TIER_TOKEN"
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        return "it is more than the address of a server"
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _ADDRESS.fullmatch(text) is not None
    return True


class TierPlace(Declared):
    """Where one tier lives: a Docker engine that starts it as a container, or a tier server that already runs.

    `address` is how the other tiers reach it (by default the host of the URL), `port` the port of the engine's host
    that its container is published at (by default a free one), `token_file` holds the token of a tier server.
    """

    engine: Text | None = None
    server: Text | None = None
    address: Text | None = None
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    token_file: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_spelling(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"server" if value.startswith(("http://", "https://")) else "engine": value}
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "TierPlace":
        if (self.engine is None) == (self.server is None):
            raise ValueError("a tier lives at one place: an engine or a server")
        if self.engine is not None and (fault := _engine_fault(self.engine)):
            raise ValueError(f"{_shown(self.engine)}: {fault}; allowed: {_ENGINES}")
        if self.server is not None and (fault := _server_fault(self.server)):
            raise ValueError(f"{_shown(self.server)}: {fault}; allowed: {_SERVERS}")
        if self.address is not None and not _is_address(self.address):
            raise ValueError(f"{self.address!r} is not an address; allowed: a name or an IP address, without a port")
        if self.server is None and self.token_file is not None:
            raise ValueError("token_file belongs to a tier server; an engine has the keys of ssh or of its context")
        if self.server is not None and self.port is not None:
            raise ValueError("port is that of a container; the port of a tier server stands in its URL")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}

    @property
    def url(self) -> str:
        """The place as it is declared."""
        return self.engine or self.server or ""

    @property
    def host(self) -> str | None:
        """The host of the URL; None for an engine of this machine or a context, whose URL is known to Docker."""
        return urlsplit(self.url).hostname if "://" in self.url else None

    @property
    def is_unreachable(self) -> bool:
        """Return whether other tiers cannot know how to reach this one: its engine is reached over a local socket."""
        return self.address is None and (self.url == LOCAL or self.url.startswith("unix:"))


class TestbedSpec(Declared):
    """Where tiers live: one `engine` for all, whose links are emulated, or a place for each of the `tiers`.

    Links between places are `real`: they are probed and recorded, not shaped; `emulated` slows those between engines
    down to what is declared. Testbeds of one `replicas` class are of one kind and share their rounds.
    """

    # The test runner would take the name for a class of tests.
    __test__ = False

    engine: Text | None = None
    tiers: Annotated[Mapping[Name, TierPlace], Field(min_length=1)] | None = None
    links: Links = Field(default_factory=lambda values: "real" if values.get("tiers") else "emulated")
    replicas: Name | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "TestbedSpec":
        if (self.engine is None) == (self.tiers is None):
            raise ValueError("a testbed has either one engine for all tiers, or tiers with a place each")
        if self.engine is not None and (fault := _engine_fault(self.engine)):
            raise ValueError(f"{_shown(self.engine)}: {fault}; allowed: {_ENGINES}")
        if self.engine is not None and self.links == "real":
            raise ValueError("links: real needs a place for each tier (tiers:); the links of one engine are emulated")
        servers = [name for name, place in (self.tiers or {}).items() if place.server is not None]
        if servers and self.links == "emulated":
            raise ValueError(
                f"links: emulated slows what containers send, and {servers[0]} is a tier server: write links: real"
            )
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The engines and servers that it uses, as they are declared, each once."""
        places = [place.url for place in (self.tiers or {}).values()]
        return tuple(dict.fromkeys(places if self.engine is None else [self.engine]))


def in_order(testbed: TestbedSpec, tiers: Iterable[str]) -> TestbedSpec:
    """Return a checked testbed with its tiers in this order, the client's first."""
    places = testbed.tiers
    return testbed if places is None else testbed.model_copy(update={"tiers": {name: places[name] for name in tiers}})


# Where in the section, and what is wrong.
TestbedProblem = tuple[tuple[str, ...], str]


def testbed_problems(testbeds: Mapping[str, TestbedSpec], tiers: Iterable[str]) -> Iterator[TestbedProblem]:
    """Yield where testbeds and the declared tiers do not fit, with the path below `testbeds` and what is wrong.

    Parameters
    ----------
    testbeds : mapping
    tiers : iterable of str
        As declared, the client's first.
    """
    declared = list(tiers)
    for name, testbed in testbeds.items():
        places = testbed.tiers
        if places is None:
            continue
        for tier in places:
            if tier not in declared:
                yield (name, "tiers", tier), f"tier {tier!r} is not declared; allowed: {', '.join(declared)}"
        if absent := [tier for tier in declared if tier not in places]:
            yield (name, "tiers"), f"testbed {name!r} has no place for tier {', '.join(absent)}; name one for each tier"
        yield from _place_problems(name, {tier: places[tier] for tier in declared if tier in places})


def _place_problems(name: str, places: Mapping[str, TierPlace]) -> Iterator[TestbedProblem]:
    """Yield the problems of places by tier, the client's first."""
    servers: dict[str, str] = {}
    for number, (tier, place) in enumerate(places.items()):
        # Requests start at the client's tier, so that no other tier needs its address.
        if number and place.is_unreachable:
            message = (
                f"{place.url} is a socket of this machine, by which other tiers cannot reach {tier!r}; "
                f"write {tier}: {{engine: {place.url}, address: HOST}}"
            )
            yield (name, "tiers", tier), message
        if place.server is not None and place.server in servers:
            message = f"{place.server} serves tier {servers[place.server]!r} already; a tier server serves one tier"
            yield (name, "tiers", tier), message
        servers |= {} if place.server is None else {place.server: tier}


def shared_engines(testbeds: Mapping[str, TestbedSpec]) -> list[str]:
    """Return a sentence for each engine or server that two testbeds name, which cannot measure at the same time."""
    users: dict[str, list[str]] = {}
    for name, testbed in testbeds.items():
        for place in testbed.places:
            users.setdefault(place.rstrip("/"), []).append(name)
    return [
        f"testbeds {' and '.join(names)} both use {place}: they cannot measure at the same time; name one of them"
        for place, names in users.items()
        if len(names) > 1
    ]
