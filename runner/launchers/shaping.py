"""Shaping a link with `tbf`, and `netem` where it has a delay, inside a tier's network namespace.

Each end of a link limits what it sends. The settings were measured: `tbf` counts whole Ethernet frames, so the rate is
raised by what headers take; the burst is free credit, so it is small at low rates but never below one frame; the
queue is long enough that congestion control sees delay, not loss.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from runner.errors import EngineUnavailableError, LaunchError, TierCallError
from runner.launchers.base import LinkLimits
from runner.launchers.container import DockerTier
from runner.launchers.engine import ContainerSpec, Engine

_T = TypeVar("_T")
_R = TypeVar("_R")

NETWORK_LABEL = "tierwise.networks"
# What a container is for: `links` or `tier`.
ROLE_LABEL = "tierwise.role"
_SHAPING_S = 30.0
# The holder of a namespace without links.
_LONE = "lone"

# Ethernet's largest frame as `tc` counts it: 1500 bytes and a header of 14.
_FRAME_BYTES = 1514
# What TCP carries in it: 1500 less two headers of 20 and 12 of time stamps.
_PAYLOAD_BYTES = 1448
_SMALLEST_BURST_BYTES = 1600
_REFERENCE_BIT_PER_S = 200_000_000
_REFERENCE_BURST_BYTES = 32 * 1024
_REFERENCE_QUEUE_S = 0.05
_LONGEST_QUEUE_S = 3.0
_SPARE_FRAMES = 100  # acknowledgements and retransmissions, which are not payload

# Runs as root with NET_ADMIN only, in the container that holds a tier's network namespace. Interfaces do not come in
# the order of attachment, so each is identified by its address. It speaks the lines of `runner.launchers.channel`.
_HOLDER = """
import fcntl, json, socket, struct, subprocess, sys
def devices():
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _, name in socket.if_nameindex():
        try:
            answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))
        except OSError:
            continue
        yield socket.inet_ntoa(answer[20:24]), name
def tc(*arguments):
    done = subprocess.run(["tc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"tc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
def shape(ends):
    addresses, shown = dict(devices()), {}
    for address, settings in ends.items():
        device = addresses[address]
        for place, *qdisc in settings:
            tc("qdisc", "replace", "dev", device, *place.split(), *qdisc)
        shown[address] = [device, tc("-s", "qdisc", "show", "dev", device)]
    return {"shown": shown}
print(json.dumps({"event": "ready"}), flush=True)
token = json.loads(sys.stdin.readline())["token"]
for line in sys.stdin:
    command = json.loads(line)
    if command.get("token") != token:
        continue
    try:
        answer = {"ok": True, "result": shape(command["ends"])}
    except Exception as error:
        answer = {"ok": False, "error": {"type": type(error).__name__, "message": str(error)}}
    print(json.dumps({"id": command["id"], **answer}), flush=True)
"""
# A route's smoothed round-trip time and congestion window would outlive a connection in the namespace's cache, and with
# it the independence of rounds (tcp_metrics, Linux 4.15 and later keep it per namespace).
_SYSCTLS = {"net.ipv4.tcp_no_metrics_save": "1"}


@dataclass(frozen=True)
class TokenBucket:
    """The settings of one `tbf`."""

    rate_bit_per_s: int
    burst_bytes: int
    queue_s: float

    def arguments(self) -> list[str]:
        """Return the settings as `tc` takes them."""
        queue = f"{round(self.queue_s * 1000)}ms"
        return ["rate", f"{self.rate_bit_per_s}bit", "burst", str(self.burst_bytes), "latency", queue]


def token_bucket(bit_per_s: int) -> TokenBucket:
    """Return the settings that let payload through at a declared rate."""
    relative = bit_per_s / _REFERENCE_BIT_PER_S
    return TokenBucket(
        rate_bit_per_s=round(bit_per_s * _FRAME_BYTES / _PAYLOAD_BYTES),
        burst_bytes=max(_SMALLEST_BURST_BYTES, round(_REFERENCE_BURST_BYTES * relative)),
        queue_s=min(_LONGEST_QUEUE_S, max(_REFERENCE_QUEUE_S, _REFERENCE_QUEUE_S / relative)),
    )


@dataclass(frozen=True)
class Shaping:
    """The treatment of packets that one end of a link sends: first the delay, then the rate."""

    bucket: TokenBucket
    delay_s: float = 0.0

    def settings(self) -> list[list[str]]:
        """Return each qdisc's place and arguments, as `tc qdisc replace dev DEVICE` takes them."""
        bucket = ["tbf", *self.bucket.arguments()]
        if not self.delay_s:
            return [["root", *bucket]]
        # netem drops what exceeds its limit, so the limit has to cover the delay and the queue of the bucket below it.
        queued_s = self.delay_s + self.bucket.queue_s
        frames = math.ceil(queued_s * self.bucket.rate_bit_per_s / (8 * _FRAME_BYTES)) + _SPARE_FRAMES
        netem = ["netem", "delay", f"{round(self.delay_s * 1e6)}us", "limit", str(frames)]
        return [["root handle 1:", *netem], ["parent 1:1 handle 10:", *bucket]]


def shaping_of(bit_per_s: int, delay_s: float) -> Shaping:
    """Return the shaping of a declared end of a link."""
    return Shaping(token_bucket(bit_per_s), delay_s)


@dataclass(frozen=True)
class ShapedDevice:
    """One end of a link as the kernel has it."""

    tier: str
    link: str
    device: str
    qdisc: str


class HeldNetworks:
    """The networks of some links, and for each tier a container that holds its interfaces and shapes what they send.

    Tiers join the namespace of their holder, so that what is slow about networks is done once for many rounds. The
    holder runs no part, listens on no port, and alone may change the shaping. Without links there may be one holder of
    an empty namespace, for a tier that is alone.
    """

    def __init__(self, engine: Engine, image: str, links: Sequence[LinkLimits], labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._image = image
        self._links = links
        self._id = uuid.uuid4().hex[:12]
        self._labels = {**labels, NETWORK_LABEL: self._id}
        self._holders: dict[str, DockerTier] = {}
        self._addresses: dict[str, dict[str, str]] = {}

    def make(self, *, lone: bool = False) -> None:
        """Create the networks, then the holders of all tiers at once; do nothing where they are there.

        A `lone` tier without links has its namespace held as well: to make one takes the engine longer than all else of
        a container's start, because it runs a second copy of itself inside.
        """
        if self._addresses:
            return
        in_parallel(lambda link: self._engine.create_network(self._network(link), self._labels), self._links)
        ends = dict.fromkeys(end for link in self._links for end in (link.upstream, link.downstream))
        in_parallel(self._hold, ends or ([_LONE] if lone else []))

    def mode(self, tier: str) -> str:
        """Return the network mode of a tier's container."""
        holder = self._holders.get(tier if self._links else _LONE)
        return "none" if holder is None else f"container:{holder.container}"

    def shape(self) -> list[ShapedDevice]:
        """Set every end of every link once more, with all of its credit, and return them as the kernel has them."""
        return self._command(
            lambda tier, link: shaping_of(
                link.up_bit_per_s if tier == link.upstream else link.down_bit_per_s, link.delay_s
            ).settings()
        )

    def describe(self) -> list[ShapedDevice]:
        """Read both ends of every link, as `tc -s qdisc show` prints them."""
        return self._command(lambda tier, link: [])

    def remove(self) -> None:
        """Remove holders and networks; raise EngineUnavailableError if the engine is gone."""
        for holder in self._holders.values():
            holder.close()
        remove_labelled(self._engine, f"{NETWORK_LABEL}={self._id}")

    def _hold(self, tier: str) -> None:
        links = self._links_of(tier)
        spec = ContainerSpec(
            image=self._image,
            command=["python", "-I", "-S", "-c", _HOLDER],
            name=f"tierwise-{self._id}-{tier}-links",
            labels={**self._labels, ROLE_LABEL: "links"},
            network_mode=self._network(links[0]) if links else "none",
            aliases=[tier] if links else [],
            user="0:0",
            capabilities=("NET_ADMIN",) if links else (),
            sysctls=_SYSCTLS,
            interactive=True,
        )
        container = self._engine.create_container(spec)
        # Engines before API 1.44 take one network at creation; the others must be connected before the start.
        for link in links[1:]:
            self._engine.connect_network(self._network(link), container, tier)
        # Kept before the start, so that `remove` closes the connection whatever fails.
        self._holders[tier] = holder = DockerTier(self._engine, f"{tier} links", container)
        self._engine.start_container(container)
        holder.wait_ready()
        networks = self._engine.inspect(container)["NetworkSettings"]["Networks"]
        self._addresses[tier] = {networks[self._network(link)]["IPAddress"]: link.name for link in links}

    def _command(self, settings: Callable[[str, LinkLimits], Sequence[Sequence[str]]]) -> list[ShapedDevice]:
        """Let every holder set its ends, and return what the kernel has then."""
        by_name = {link.name: link for link in self._links}

        def one(tier: str) -> list[ShapedDevice]:
            links = self._addresses[tier]
            ends = {address: settings(tier, by_name[name]) for address, name in links.items()}
            try:
                shown = self._holders[tier].call({"ends": ends}, deadline_s=_SHAPING_S)["shown"]
            except TierCallError as error:
                message = f"tier {tier!r}: shaping failed: {error.message}"
                raise LaunchError(message, tier=tier, log_tail=error.log_tail) from error
            return [ShapedDevice(tier, links[address], *map(str.strip, end)) for address, end in shown.items()]

        shaped = [tier for tier in self._holders if self._addresses[tier]]
        return [device for devices in in_parallel(one, shaped) for device in devices]

    def _links_of(self, tier: str) -> list[LinkLimits]:
        return [link for link in self._links if tier in (link.upstream, link.downstream)]

    def _network(self, link: LinkLimits) -> str:
        return f"tierwise-{self._id}-{link.name}"


def remove_labelled(engine: Engine, label: str) -> None:
    """Remove all containers with a label, then all such networks, which the engine keeps while they have endpoints."""
    in_parallel(engine.remove_container, [item["Id"] for item in engine.list_containers(label)])
    in_parallel(engine.remove_network, [item["Id"] for item in engine.list_networks(label)])


def in_parallel(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Call for each item in a separate thread, wait for all, raise the first error."""
    listed = list(items)
    if not listed:
        return []
    # A thread for each item: a launch lasts as long as its slowest tier, and the threads only wait for the engine.
    with ThreadPoolExecutor(max_workers=len(listed)) as pool:
        return list(pool.map(function, listed))


def netem_refusal(engine: Engine, *, image: str, labels: Mapping[str, str]) -> str | None:
    """Return why the engine's kernel cannot delay packets, tried on a container's loopback; None if it can."""
    trial = ContainerSpec(
        image=image,
        command=["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
        name=f"tierwise-netem-{uuid.uuid4().hex[:12]}",
        labels=labels,
        user="0:0",
        capabilities=("NET_ADMIN",),
    )
    try:
        engine.run_to_end(trial)
    except EngineUnavailableError:
        raise
    except LaunchError as error:
        last_line = error.log_tail.strip().rsplit("\n", 1)[-1] or str(error)
        return f"the kernel under the Docker engine has no netem (tc: {last_line})"
    return None
