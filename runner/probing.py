"""Whether a link carries what was declared: probed in both directions, and again when a look is out of tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.launchers import Deployment, LinkLimits
from tierserver.messages import LinkProbe, Probe

Moment = Literal["before", "after"]

# A probe's payloads take this long at the declared rate: long against scheduling noise, short against a measurement.
_SMALL_S = 0.02
_LARGE_S = {"before": 0.2, "after": 0.2}
_MINIMUM_BYTES = 2048
# One look may be spoiled by a moment's load; a link that is really off stays off.
_LOOKS = 3
_DEADLINE_S = 60.0


@dataclass(frozen=True)
class ProbedLink:
    """The last look at a link, and the rates (up, down) of the looks before it that were out of tolerance."""

    link: LinkLimits
    tolerance: float
    moment: Moment
    command: Probe
    probe: LinkProbe
    discarded: Sequence[tuple[float, float]]


def probe_link(deployment: Deployment, link: LinkLimits, *, tolerance: float, moment: Moment) -> ProbedLink:
    """Time a small and a large payload over the link, both ways, up to three times."""
    command = _command(deployment.url(link.upstream, link.downstream), link, _LARGE_S[moment])
    discarded: list[tuple[float, float]] = []
    while True:
        answer = deployment.tiers[link.upstream].call(command.to_json(), deadline_s=_DEADLINE_S)
        probe = LinkProbe.from_json(answer)
        rates = (probe.up.rate_bit_per_s, probe.down.rate_bit_per_s)
        if _within(rates, link, tolerance) or len(discarded) == _LOOKS - 1:
            return ProbedLink(link, tolerance, moment, command, probe, discarded)
        discarded.append(rates)


def _within(rates: tuple[float, float], link: LinkLimits, tolerance: float) -> bool:
    declared = (link.up_bit_per_s, link.down_bit_per_s)
    return all(abs(rate / wanted - 1) <= tolerance for rate, wanted in zip(rates, declared, strict=True))


def _command(url: str, link: LinkLimits, large_s: float) -> Probe:
    """Payloads for each direction by its own rate."""
    return Probe(
        url=url,
        small_bytes=_bytes(link.up_bit_per_s, _SMALL_S),
        large_bytes=_bytes(link.up_bit_per_s, large_s),
        down_small_bytes=_bytes(link.down_bit_per_s, _SMALL_S),
        down_large_bytes=_bytes(link.down_bit_per_s, large_s),
        repetitions=1,
    )


def _bytes(bit_per_s: int, seconds: float) -> int:
    return max(_MINIMUM_BYTES, int(bit_per_s * seconds / 8))
