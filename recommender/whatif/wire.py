"""How long bytes are on the way over links of given rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recommender.whatif.parts import LinkedSamples, LinkRate, StrategyParts

_SEGMENT_BYTES = 1448
_FRAME_BYTES = 1514
# How the launchers emulate a link: a token bucket lets its burst pass at once, a paced proxy forwards whole chunks.
_SMALLEST_BURST_BYTES = 1600
_REFERENCE_BURST_BYTES = 32 * 1024
_REFERENCE_BIT_PER_S = 200_000_000
_PROXY_GRAIN_S = 0.004
_PROXY_LARGEST_BYTES = 65536


def burst_bytes(launcher: str, bit_per_s: float) -> float:
    """Payload that passes a link at once: a token bucket's burst under `docker`, nothing elsewhere."""
    if launcher != "docker":
        return 0.0
    burst = max(_SMALLEST_BURST_BYTES, _REFERENCE_BURST_BYTES * bit_per_s / _REFERENCE_BIT_PER_S)
    return burst * _SEGMENT_BYTES / _FRAME_BYTES


def grain_bytes(launcher: str, bit_per_s: float) -> float:
    """What a link holds back before it passes anything on: a chunk of the proxy under `process`, else a segment."""
    if launcher != "process":
        return float(_SEGMENT_BYTES)
    return float(np.clip(bit_per_s / 8 * _PROXY_GRAIN_S, _SEGMENT_BYTES, _PROXY_LARGEST_BYTES))


def wire_s(parts: StrategyParts, samples: LinkedSamples, rates: Mapping[str, LinkRate]) -> NDArray[np.float64]:
    """Seconds each sample's bytes are on the way when the links have these rates.

    Parameters
    ----------
    parts : StrategyParts
        For its hops.
    samples : LinkedSamples
        For its bytes and its launcher.
    rates : mapping of link name to LinkRate
        Of every link of the hops.

    Returns
    -------
    float array, shape (samples,)

    Notes
    -----
    In each direction a hop takes as long as its slowest link, and each of its other links adds what it holds back
    before the stream begins to flow: min(bytes, grain) at its rate. A burst that passes at once is taken off.

    Examples
    --------
    >>> count, rate = np.array([1_000_000]), LinkRate(8e6, 8e6)
    >>> link = {"edge-cloud": count}
    >>> samples = LinkedSamples(np.ones(1), count, count, link, {"edge-cloud": 0 * count}, {}, {}, launcher="real")
    >>> wire_s(StrategyParts("identity", "cloud", (("edge-cloud",),), (samples,)), samples, {"edge-cloud": rate})
    array([1.])
    """
    total = np.zeros(samples.latency_s.size)
    for hop in parts.hops:
        up = [_flow(samples.sent_bytes[link], rates[link].up_bit_per_s, samples.launcher) for link in hop]
        down = [_flow(samples.received_bytes[link], rates[link].down_bit_per_s, samples.launcher) for link in hop]
        total += _streamed(up) + _streamed(down)
    return total


@dataclass(frozen=True, eq=False)
class _Flow:
    whole_s: NDArray[np.float64]
    held_s: NDArray[np.float64]


def _flow(count: NDArray[np.int64], bit_per_s: float, launcher: str) -> _Flow:
    paced = np.maximum(count - burst_bytes(launcher, bit_per_s), 0.0)
    return _Flow(8 * paced / bit_per_s, 8 * np.minimum(paced, grain_bytes(launcher, bit_per_s)) / bit_per_s)


def _streamed(flows: Sequence[_Flow]) -> NDArray[np.float64]:
    """Through links that work at the same time: the longest, and what the others hold back first."""
    held = sum((each.held_s for each in flows), start=np.zeros_like(flows[0].held_s))
    longest: NDArray[np.float64] = np.max([each.whole_s - each.held_s for each in flows], axis=0)
    return longest + held
