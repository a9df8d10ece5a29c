"""Whether a link carries what was declared: probed in both directions, and again when a look is out of tolerance."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.launchers import Deployment, LinkLimits
from tierserver.messages import LinkProbe, Probe

Moment = Literal["before", "after"]

# The two payloads take this long at the declared rate; each further look takes twice as long as the one before.
_SMALL_S = 0.01
_LARGE_S = 0.1
# At low rates a frame takes milliseconds, and a transfer begins with one or two for free and ends up to one late: the
# small payload must be past the beginning, and one frame little against what lies between the two.
_FRAME_BYTES = 1448
_SMALL_FRAMES = 12
_FRAMES_BETWEEN = 60
# One look may be spoiled by a moment's load; a link that is really off stays off.
_LOOKS = 3
_DEADLINE_S = 300.0


@dataclass(frozen=True)
class ProbedLink:
    """The last look at a link, the rates (up, down) of looks before it out of tolerance, and what all of them took."""

    link: LinkLimits
    tolerance: float
    moment: Moment
    command: Probe
    probe: LinkProbe
    discarded: Sequence[tuple[float, float]]
    took_s: float


def probe_link(deployment: Deployment, link: LinkLimits, *, tolerance: float, moment: Moment) -> ProbedLink:
    """Time a small and a large payload over the link, both ways, up to three times."""
    url = deployment.url(link.upstream, link.downstream)
    discarded: list[tuple[float, float]] = []
    started = time.monotonic()
    while True:
        command = _command(url, link, _LARGE_S * 2 ** len(discarded))
        answer = deployment.tiers[link.upstream].call(command.to_json(), deadline_s=_DEADLINE_S)
        probe = LinkProbe.from_json(answer)
        rates = (probe.up.rate_bit_per_s, probe.down.rate_bit_per_s)
        if _within(rates, link, tolerance) or len(discarded) == _LOOKS - 1:
            return ProbedLink(link, tolerance, moment, command, probe, discarded, time.monotonic() - started)
        discarded.append(rates)


def _within(rates: tuple[float, float], link: LinkLimits, tolerance: float) -> bool:
    declared = (link.up_bit_per_s, link.down_bit_per_s)
    return all(abs(rate / wanted - 1) <= tolerance for rate, wanted in zip(rates, declared, strict=True))


def _command(url: str, link: LinkLimits, large_s: float) -> Probe:
    """Payloads for each direction by its own rate."""
    small_up, small_down = _small_bytes(link.up_bit_per_s), _small_bytes(link.down_bit_per_s)
    return Probe(
        url=url,
        small_bytes=small_up,
        large_bytes=_large_bytes(link.up_bit_per_s, large_s, small_up),
        down_small_bytes=small_down,
        down_large_bytes=_large_bytes(link.down_bit_per_s, large_s, small_down),
        repetitions=1,
    )


def _small_bytes(bit_per_s: int) -> int:
    return max(_SMALL_FRAMES * _FRAME_BYTES, int(bit_per_s * _SMALL_S / 8))


def _large_bytes(bit_per_s: int, seconds: float, small_bytes: int) -> int:
    return max(small_bytes + _FRAMES_BETWEEN * _FRAME_BYTES, int(bit_per_s * seconds / 8))
