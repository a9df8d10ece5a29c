"""What predictions start from: samples with their bytes and the rates of the links that carried them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LinkRate:
    """Payload rates of a link, away from the client's tier (up) and back (down), in bits per second.

    Raises
    ------
    ValueError
        For a rate that is not finite and above zero.
    """

    up_bit_per_s: float
    down_bit_per_s: float

    def __post_init__(self) -> None:
        for name in ("up_bit_per_s", "down_bit_per_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a finite rate above 0, such as 10e6 for 10 Mbit/s, got {value!r}")


@dataclass(frozen=True, eq=False)
class LinkedSamples:
    """Samples of one strategy at one setting of its links.

    Attributes
    ----------
    latency_s : float array, shape (samples,)
    round, input_index : int array, shape (samples,)
    sent_bytes, received_bytes : mapping of link name to int array, shape (samples,)
    declared : mapping of link name to LinkRate
        What the links were asked to be.
    probed : mapping of link name to LinkRate
        What they carried; a link without a probe is taken as declared.
    launcher : str
        `docker` and `process` emulate links, each in its way; anything else is a real link.
    evidence_id : str or None
        Under which the measurements can be fetched.
    """

    latency_s: NDArray[np.float64]
    round: NDArray[np.int64]
    input_index: NDArray[np.int64]
    sent_bytes: Mapping[str, NDArray[np.int64]]
    received_bytes: Mapping[str, NDArray[np.int64]]
    declared: Mapping[str, LinkRate]
    probed: Mapping[str, LinkRate]
    launcher: str = "docker"
    evidence_id: str | None = None

    def rate(self, link: str) -> LinkRate | None:
        """The rate that counts: probed, else declared, else unknown."""
        return self.probed.get(link) or self.declared.get(link)


@dataclass(frozen=True, eq=False)
class StrategyParts:
    """A strategy with its evidence, the setting declared now first.

    `hops` are the requests of one inference in order, each with the links it flows through: a relay passes on while it
    receives, so the links of one hop work at the same time, and hops work one after the other. `missing` says what the
    evidence lacks, and is None where nothing is.
    """

    operator: str
    placement: str
    hops: tuple[tuple[str, ...], ...]
    evidence: tuple[LinkedSamples, ...]
    missing: str | None = None

    @property
    def links(self) -> tuple[str, ...]:
        """All links on its way."""
        return tuple(link for hop in self.hops for link in hop)
