"""Shaping a link with `tbf`, and `netem` where it has a delay, inside a tier's network namespace.

Each end of a link limits what it sends. The settings were measured: `tbf` counts whole Ethernet frames, so the rate is
raised by what headers take; the burst is free credit, so it is small at low rates but never below one frame; the
queue is long enough that congestion control sees delay, not loss.
"""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.errors import EngineUnavailableError, LaunchError
from runner.launchers.engine import ContainerSpec, Engine

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

# Runs as root with NET_ADMIN only, in a container that shares the tier's network namespace. Interfaces do not come in
# the order of attachment, so each is identified by its address.
_HELPER = """
import fcntl, json, socket, struct, subprocess, sys
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
devices = {}
for _, name in socket.if_nameindex():
    try:
        answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))
    except OSError:
        continue
    devices[socket.inet_ntoa(answer[20:24])] = name
for address, settings in json.loads(sys.argv[1]).items():
    device = devices[address]
    for place, *qdisc in settings:
        subprocess.run(["tc", "qdisc", "replace", "dev", device, *place.split(), *qdisc], check=True)
    shown = subprocess.run(["tc", "-s", "qdisc", "show", "dev", device], check=True, capture_output=True, text=True)
    print(json.dumps({"address": address, "device": device, "qdisc": shown.stdout}))
"""


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


def shape(
    engine: Engine,
    *,
    image: str,
    container: str,
    tier: str,
    addresses: Mapping[str, str],
    shapings: Mapping[str, Shaping],
    labels: Mapping[str, str],
) -> list[ShapedDevice]:
    """Set (or, without `shapings`, only read) the qdiscs of a tier; `addresses` and `shapings` are by link name."""
    settings: dict[str, Sequence[Sequence[str]]] = {
        address: shapings[link].settings() if link in shapings else [] for link, address in addresses.items()
    }
    helper = ContainerSpec(
        image=image,
        command=["python", "-I", "-S", "-c", _HELPER, json.dumps(settings)],
        name=f"tierwise-shape-{container[:12]}",
        labels=labels,
        network_mode=f"container:{container}",
        user="0:0",
        capabilities=("NET_ADMIN",),
    )
    try:
        shown = [json.loads(line) for line in engine.run_to_end(helper).splitlines()]
    except LaunchError as error:
        raise type(error)(f"tier {tier!r}: shaping failed: {error}", tier=tier, log_tail=error.log_tail) from error
    links = {address: link for link, address in addresses.items()}
    return [ShapedDevice(tier, links[item["address"]], item["device"], item["qdisc"].strip()) for item in shown]


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
